"""After its commit, each batch of a stream goes to the outlets that the job names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, OutletAwayError

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.files.checkpoint import Checkpoint
    from sparkscore.outlets.base import CommittedBatch, Outlet
    from sparkscore.workspace import Workspace

_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 15.0


def open_outlets(workspace: Workspace, job: JobSettings) -> list[Outlet]:
    """The places that a job publishes to, none of which was asked anything yet.

    Raises:
        ConfigError: One is unknown, or named twice.
        MissingExtraError: The library that reaches one is not installed.
    """
    outlets = [workspace.outlet(uri) for uri in job.stream.publish]
    names = [outlet.name for outlet in outlets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"outlet {twice!r} is named twice; leave one out")
    return outlets


@dataclass(frozen=True)
class Patience:
    """How long an outlet that is away is asked again, with growing pauses.

    Attributes:
        total_s: From the first failure on.
        clock: Seconds that never go back.
        sleep: Waits.
    """

    total_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Publisher:
    """Publishes batches, each once to each outlet as far as the checkpoint and the outlet know.

    Args:
        outlets: In the order in which they get a batch.
        checkpoint: Remembers the last batch that each of them has taken.
        patience: With outlets that are away.
        on_wait: Told which outlet does not answer and why, when that begins; and None when it has
            answered again.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet],
        checkpoint: Checkpoint,
        patience: Patience,
        on_wait: Callable[[OutletAwayError | None], None],
    ) -> None:
        self._outlets = outlets
        self._checkpoint = checkpoint
        self._patience = patience
        self._on_wait = on_wait
        self._newest = dict(checkpoint.published()) if outlets else {}

    def publish(self, batch: CommittedBatch) -> int:
        """Hand a batch to each outlet that is not known to have it.

        Returns:
            Rows that were handed over, added up over all outlets.

        Raises:
            OutletError: An outlet does not take a row; those before it have the batch.
            OutletAwayError: An outlet was away for longer than there was patience.
            CheckpointError: What was published cannot be remembered.
        """
        n_rows = 0
        for outlet in self._outlets:
            if self._newest.get(outlet.name, -1) >= batch.number:
                continue
            n_rows += self._patiently(outlet, batch)
            self._newest[outlet.name] = batch.number
            self._checkpoint.keep_published(self._newest)
        return n_rows

    def _patiently(self, outlet: Outlet, batch: CommittedBatch) -> int:
        clock, sleep = self._patience.clock, self._patience.sleep
        delay_s, ends_at = _FIRST_DELAY_S, None
        while True:
            try:
                n_rows = outlet.publish(batch)
            except OutletAwayError as exc:
                if ends_at is None:
                    ends_at = clock() + self._patience.total_s
                    self._on_wait(exc)
                if clock() + delay_s > ends_at:
                    raise
                sleep(delay_s)
                delay_s = min(2 * delay_s, _MAX_DELAY_S)
            else:
                if ends_at is not None:
                    self._on_wait(None)
                return n_rows
