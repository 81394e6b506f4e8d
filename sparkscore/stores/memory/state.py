"""What the memory stores of runs and of logged models share."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import RLock

from sparkscore.records import Dataset, Experiment, LoggedModel, Metric, Removal, Run
from sparkscore.stores.rules import PointKey


@dataclass
class MemoryState:
    """Records by id; who holds `lock` may change them.

    Attributes:
        lock: Held through every call.
        experiments: By id, in the order they were made.
        runs: By id; params, tags and latest metrics are in the run.
        points: Histories by (run id, metric key).
        datasets: By (experiment id, name, digest), as they were first logged.
        logged_models: By id; their metrics are in `model_points`.
        model_points: By (model id, metric key).
        gone_with_experiment: Runs that were deleted with their experiment, and come back with it.
        deletion_times_ms: When each deleted run was deleted.
        removals: Files whose records are purged, by number.
        n_removals: How many there ever were.
        n_experiments: How many were ever made, so that no id is given twice.
    """

    lock: RLock = field(default_factory=RLock)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    points: dict[tuple[str, str], dict[PointKey, Metric]] = field(default_factory=dict)
    datasets: dict[tuple[str, str, str], Dataset] = field(default_factory=dict)
    logged_models: dict[str, LoggedModel] = field(default_factory=dict)
    model_points: dict[tuple[str, str], dict[PointKey, Metric]] = field(default_factory=dict)
    gone_with_experiment: set[str] = field(default_factory=set)
    deletion_times_ms: dict[str, int] = field(default_factory=dict)
    removals: dict[int, Removal] = field(default_factory=dict)
    n_removals: int = 0
    n_experiments: int = 0

    def remove_run(self, run_id: str) -> None:
        """Forget a run and its histories; its files are noted to be removed."""
        self._note_removal(run_id, self.runs.pop(run_id).artifact_uri)
        self.deletion_times_ms.pop(run_id, None)
        self.gone_with_experiment.discard(run_id)
        for place in [place for place in self.points if place[0] == run_id]:
            del self.points[place]

    def remove_logged_model(self, model_id: str) -> None:
        """Forget a logged model and its metrics; its files are noted to be removed."""
        self._note_removal(model_id, self.logged_models.pop(model_id).artifact_uri)
        for place in [place for place in self.model_points if place[0] == model_id]:
            del self.model_points[place]

    def _note_removal(self, record_id: str, artifact_uri: str) -> None:
        self.n_removals += 1
        self.removals[self.n_removals] = Removal(self.n_removals, record_id, artifact_uri)
