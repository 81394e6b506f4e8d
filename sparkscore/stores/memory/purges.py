"""What was deleted and purged, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparkscore.records import (
    DeletedRecord,
    Experiment,
    LifecycleStage,
    LoggedModel,
    RecordKind,
    Removal,
    Run,
)
from sparkscore.stores.memory.state import MemoryState


class MemoryPurgeStore:
    """Beside a MemoryRunStore and a MemoryLoggedModelStore, whose state it reads."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def list_deleted(self, before_ms: int) -> Sequence[DeletedRecord]:
        """See PurgeStore."""
        with self._state.lock:
            found = [it for it in self._deleted() if it.deletion_time_ms <= before_ms]
        kinds = list(RecordKind)
        return sorted(
            found, key=lambda it: (kinds.index(it.kind), it.deletion_time_ms, it.record_id)
        )

    def list_removals(self) -> Sequence[Removal]:
        """See PurgeStore."""
        with self._state.lock:
            return list(self._state.removals.values())

    def forget_removal(self, removal_id: int) -> None:
        """See PurgeStore."""
        with self._state.lock:
            self._state.removals.pop(removal_id, None)

    def _deleted(self) -> Iterator[DeletedRecord]:
        gone = {
            it.experiment_id: it.last_update_time_ms
            for it in self._state.experiments.values()
            if it.lifecycle_stage is LifecycleStage.DELETED
        }
        for run in self._state.runs.values():
            if run.lifecycle_stage is LifecycleStage.DELETED:
                yield self._of_run(run)
        for model in self._state.logged_models.values():
            is_deleted = model.lifecycle_stage is LifecycleStage.DELETED
            if is_deleted or model.experiment_id in gone:
                time_ms = model.last_update_time_ms if is_deleted else gone[model.experiment_id]
                yield self._of_logged_model(model, time_ms)
        for experiment_id in gone:
            yield self._of_experiment(self._state.experiments[experiment_id])

    def _of_run(self, run: Run) -> DeletedRecord:
        held = (run.params, run.tags, run.metrics, run.datasets, run.model_inputs)
        n_tags = sum(len(item.tags) for item in run.datasets)
        return DeletedRecord(
            kind=RecordKind.RUN,
            record_id=run.run_id,
            experiment_id=run.experiment_id,
            artifact_uri=run.artifact_uri,
            deletion_time_ms=self._state.deletion_times_ms[run.run_id],
            n_rows=1
            + sum(map(len, held))
            + n_tags
            + len(run.model_outputs)
            + sum(len(it) for place, it in self._state.points.items() if place[0] == run.run_id),
        )

    def _of_logged_model(self, model: LoggedModel, time_ms: int) -> DeletedRecord:
        points = self._state.model_points.items()
        n_points = sum(len(it) for place, it in points if place[0] == model.model_id)
        return DeletedRecord(
            kind=RecordKind.LOGGED_MODEL,
            record_id=model.model_id,
            experiment_id=model.experiment_id,
            artifact_uri=model.artifact_uri,
            deletion_time_ms=time_ms,
            n_rows=1 + len(model.params) + len(model.tags) + n_points,
        )

    def _of_experiment(self, experiment: Experiment) -> DeletedRecord:
        id_ = experiment.experiment_id
        return DeletedRecord(
            kind=RecordKind.EXPERIMENT,
            record_id=id_,
            experiment_id=id_,
            artifact_uri="",
            deletion_time_ms=experiment.last_update_time_ms,
            n_rows=1
            + len(experiment.tags)
            + sum(place[0] == id_ for place in self._state.datasets),
        )
