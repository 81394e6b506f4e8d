"""What the boosting libraries share: measures of each step, early stopping, importances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sparkscore.autologging.patches import Function
from sparkscore.autologging.sklearn import bound
from sparkscore.autologging.training import Training, ongoing, plain_key
from sparkscore.records import Metric
from sparkscore.stores.base import Clock, system_clock
from sparkscore.tracking import ActiveRun

if TYPE_CHECKING:
    from sparkscore.autologging.rows import Rows

# A call to a store for each step would cost more than the step. What is waiting is sent when it
# fills a call, or when it is this old, so that a long training can be watched.
_MAX_WAITING = 1000
_MAX_WAITING_MS = 10_000


class Steps:
    """Collects what is measured in each boosting step, and logs it in batches.

    Args:
        run: Takes the points.
        clock: Milliseconds since the epoch.
    """

    def __init__(self, run: ActiveRun, clock: Clock = system_clock) -> None:
        self._run = run
        self._clock = clock
        self._waiting: list[Metric] = []
        self._history: dict[str, dict[int, float]] = {}
        self._sent_ms = clock()
        self.n_steps = 0

    def add(self, step: int, measured: Iterable[tuple[str, str, float]]) -> None:
        """Take what was measured in a step.

        Args:
            step: Its number, from 0.
            measured: Name of the evaluated rows, of the measure, and its value.
        """
        now = self._clock()
        for rows, measure, value in measured:
            key = plain_key(f"{rows}-{measure}".replace("@", "_at_"))
            self._history.setdefault(key, {})[step] = float(value)
            self._waiting.append(Metric(key, float(value), now, step))
        self.n_steps = step + 1
        if len(self._waiting) >= _MAX_WAITING or now - self._sent_ms >= _MAX_WAITING_MS:
            self.send()

    def send(self) -> None:
        """Log what is waiting."""
        points, self._waiting = self._waiting, []
        self._sent_ms = self._clock()
        self._run.log_points(points)

    def add_best(self, best: int, first: int) -> None:
        """Log where training stopped early, and the best values as those of one more step.

        That makes them the latest, which is what a list of runs shows.

        Args:
            best: Number of the best step, as the library counts.
            first: What the library then calls the step that is 0 here.
        """
        now = self._clock()
        stopped = self.n_steps - 1 + first
        self._waiting += [
            Metric("best_iteration", best, now),
            Metric("stopped_iteration", stopped, now),
            *(
                Metric(key, values[best - first], now, self.n_steps)
                for key, values in self._history.items()
                if best - first in values
            ),
        ]


@dataclass
class TrainCall:
    """A call of a boosting library's own `train`.

    Attributes:
        arguments: By name, defaults too.
        rows: What it was trained on, once that was looked at.
    """

    arguments: Mapping[str, object]
    rows: Rows | None = None

    @classmethod
    def of(
        cls, train: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Self | None:
        """The record of a call; None for one that does not bind."""
        given = bound(train, args, kwargs)
        return None if given is None else cls(given)


def to_follow(library: str) -> Training | None:
    """The training whose steps a call of the library's `train` makes, or None.

    The scikit-learn API of a library calls `train` once; a search for params calls it often, and
    its steps are not those of one model.
    """
    training = ongoing()
    if training is None or not training.is_recorded or training.steps is not None:
        return None
    if training.recorder is None or training.recorder.library != library:
        return None
    training.steps = Steps(training.run)
    return training


def add_step(training: Training, step: int, measured: Iterable[tuple[str, str, float]]) -> None:
    """Take what was measured in a step of a training that is followed; see `Steps.add`."""
    with training.keeping("steps"):
        if training.steps is not None:
            training.steps.add(step, measured)


def log_importances(training: Training, kind: str, importances: Mapping[str, float]) -> None:
    """Keep how much each feature counts, the most important first."""
    ranked = sorted(importances.items(), key=lambda item: item[1], reverse=True)
    training.run.log_json(dict(ranked), f"feature_importance_{kind}.json")
