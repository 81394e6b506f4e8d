"""Which columns of a stream are watched for drift, and what is remembered of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkscore.errors import CheckpointError, ConfigError, listed, nearest
from sparkscore.scoring.drift import DriftWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparkscore.conf import JobSettings
    from sparkscore.files.checkpoint import Checkpoint
    from sparkscore.scoring.outcome import Outcome
    from sparkscore.scoring.plan import ScoringPlan

_MAX_COLUMNS = 50
"""Each is two series of the run, and two gauges."""


class StreamDrift:
    """Compares the last rows of a stream with the first ones that its champion has scored.

    Each version has first rows of its own; the checkpoint keeps them.

    Args:
        checkpoint: The stream's.
        n_rows: Rows that are compared with as many.
        announce: Told in one line where that cannot be kept; it costs the stream nothing.
    """

    def __init__(
        self, checkpoint: Checkpoint, n_rows: int, announce: Callable[[str], None]
    ) -> None:
        self._checkpoint = checkpoint
        self._n_rows = n_rows
        self._announce = announce
        self._digest = ""
        self._window = DriftWindow(n_rows)

    def close(self) -> None:
        """Keep what is known at the end of the process."""
        if self._digest:
            self._keep()

    def batch(self, digest: str, outcome: Outcome) -> dict[str, float]:
        """Take a batch that the champion of a digest has scored; what is known then.

        Returns:
            See `DriftWindow.measures`.
        """
        if not outcome.sketches:
            return {}
        if digest != self._digest:
            self._digest, self._window = digest, self._known(digest)
        if self._window.add(outcome.sketches):
            self._keep()
        return self._window.measures()

    def _known(self, digest: str) -> DriftWindow:
        try:
            window = self._checkpoint.drift_of(digest)
        except CheckpointError as exc:
            self._announce(f"drift is told against new first rows: {exc}")
            window = None
        # Another number of rows is another comparison.
        is_same = window is not None and window.n_rows == self._n_rows
        return window if window is not None and is_same else DriftWindow(self._n_rows)

    def _keep(self) -> None:
        try:
            self._checkpoint.keep_drift(self._digest, self._window)
        except CheckpointError as exc:
            self._announce(f"the first rows of a model are not kept: {exc}")


def drift_columns(job: JobSettings) -> tuple[str, ...]:
    """Columns whose drift is asked for, each once: those to be told, and those with a bound."""
    stream = job.stream
    asked = (stream.drift.columns, stream.alerts.drift, stream.alerts.empty_share)
    return tuple(dict.fromkeys(name for names in asked for name in names))


def check_drift_columns(plan: ScoringPlan, columns: tuple[str, ...]) -> None:
    """Refuse columns that nobody looks at.

    Raises:
        ConfigError: One is neither read by the model nor predicted, or they are too many.
    """
    bound = (b for b in plan.bindings if not b.guards)
    read = (binding.source.name for binding in bound if binding.source is not None)
    known = list(dict.fromkeys([*read, *plan.predictions.names]))
    unknown = next((name for name in columns if name not in known), None)
    if unknown is not None:
        raise ConfigError(
            f"drift of {unknown!r} is asked for, which the model neither reads nor predicts"
            f"{nearest(unknown, known)}; it has {listed(known)}"
        )
    if len(columns) > _MAX_COLUMNS:
        raise ConfigError(
            f"drift of {len(columns)} columns is asked for, and each is two series of the run for "
            f"months; name at most {_MAX_COLUMNS} (stream.drift.columns)"
        )
