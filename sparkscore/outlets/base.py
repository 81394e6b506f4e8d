"""The seam between a stream and the places that its rows are published to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class ScoreShape:
    """What all rows of a stream look like.

    Attributes:
        schema: The columns of the score table.
        keys: Those of them that tell one row from another.
        event_time: The timestamp that says when a row came to be; None: nothing does.
    """

    schema: pa.Schema
    keys: tuple[str, ...]
    event_time: str | None = None


@dataclass(frozen=True)
class CommittedBatch:
    """One micro-batch, as the score table has it for good.

    Attributes:
        stream_id: The stream's own id, which restarts do not change.
        number: Counted from 0; batches are published in this order.
        rows: Reads the batch's rows from the table, with the columns of `shape`, a part at a time;
            may be called again.
    """

    shape: ScoreShape
    stream_id: str
    number: int
    rows: Callable[[], Iterator[pa.RecordBatch]]


class Outlet(Protocol):
    """A place beside the score table that gets each row of a stream.

    The score table stays the record: a batch is published after its commit, and published again
    if the stream ended in between. An outlet that can tell so leaves out what it has.
    """

    @property
    def name(self) -> str:
        """The URI that names it, without secrets; the same for the stream's whole life."""
        ...

    def check(self, shape: ScoreShape) -> None:
        """Refuse, before any row is scored, what could not be published.

        Raises:
            ConfigError: The URI asks what does not go with these rows.
            OutletError: The place does not take such rows.
            OutletAwayError: It does not answer.
        """
        ...

    def publish(self, batch: CommittedBatch) -> int:
        """Publish the rows of a batch, all or none where the place can do so.

        Returns:
            Rows that were handed over: 0 where the place knew the batch.

        Raises:
            OutletError: The place does not take a row.
            OutletAwayError: It does not answer; the same call may succeed later.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
