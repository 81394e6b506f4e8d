"""Experiments in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparkscore.names import ExperimentName
from sparkscore.records import Experiment, LifecycleStage
from sparkscore.search import EXPERIMENTS, Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.matching import page_of, plain_values
from sparkscore.stores.memory.state import MemoryState


class MemoryExperiments:
    """The half of MemoryRunStore that is about experiments."""

    def __init__(self, artifact_root: str, clock: Clock, state: MemoryState) -> None:
        self._artifact_root = artifact_root.rstrip("/")
        self._clock = clock
        self._state = state
        self._lock = state.lock

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """See RunStore."""
        rules.check_new_experiment(artifact_location, tags)
        with self._lock:
            if self.find_experiment(name) is not None:
                raise rules.experiment_exists(name)
            experiment_id = str(self._state.n_experiments)
            self._state.n_experiments += 1
            now = self._clock()
            experiment = Experiment(
                experiment_id=experiment_id,
                name=name,
                artifact_location=artifact_location or f"{self._artifact_root}/{experiment_id}",
                lifecycle_stage=LifecycleStage.ACTIVE,
                creation_time_ms=now,
                last_update_time_ms=now,
                tags=dict(tags or {}),
            )
            self._state.experiments[experiment_id] = experiment
            return experiment

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        with self._lock:
            if experiment_id not in self._state.experiments:
                raise rules.no_experiment(experiment_id)
            return self._state.experiments[experiment_id]

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore."""
        with self._lock:
            found = (item for item in self._state.experiments.values() if item.name == name)
            return next(found, None)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        with self._lock:
            active = [
                experiment
                for experiment in self._state.experiments.values()
                if experiment.lifecycle_stage is LifecycleStage.ACTIVE
            ]
        active.sort(key=lambda item: (item.creation_time_ms, int(item.experiment_id)), reverse=True)
        return active[:limit]

    def search_experiments(self, query: Query) -> Page[Experiment]:
        """See RunStore."""
        with self._lock:
            known = list(self._state.experiments.values())
        in_view = [item for item in known if rules.is_in_view(item.lifecycle_stage, query.view)]
        return page_of(in_view, query, EXPERIMENTS, plain_values)

    def rename_experiment(self, experiment_id: str, name: ExperimentName) -> None:
        """See RunStore."""
        with self._lock:
            experiment = self._active_experiment(experiment_id)
            holder = self.find_experiment(name)
            if holder is not None and holder.experiment_id != experiment_id:
                raise rules.experiment_exists(name)
            self._keep(replace(experiment, name=name, last_update_time_ms=self._clock()))

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See RunStore."""
        rules.check_tags(tags, rules.MAX_EXPERIMENT_TAG_CHARS)
        with self._lock:
            experiment = self._active_experiment(experiment_id)
            self._keep(replace(experiment, tags={**experiment.tags, **tags}))

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """See RunStore."""
        with self._lock:
            experiment = self._active_experiment(experiment_id)
            if key not in experiment.tags:
                raise rules.no_tag(f"experiment {experiment.name!r}", key, experiment.tags)
            left = {name: value for name, value in experiment.tags.items() if name != key}
            self._keep(replace(experiment, tags=left))

    def delete_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        with self._lock:
            experiment = self._active_experiment(experiment_id)
            now_ms = self._move(experiment, LifecycleStage.DELETED)
            for run in self._runs_of(experiment_id):
                if self._state.runs[run].lifecycle_stage is LifecycleStage.ACTIVE:
                    self._delete_run(run, now_ms)
                    self._state.gone_with_experiment.add(run)

    def restore_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        with self._lock:
            experiment = self.get_experiment(experiment_id)
            rules.check_deleted(experiment)
            self._move(experiment, LifecycleStage.ACTIVE)
            for run in self._runs_of(experiment_id):
                if run in self._state.gone_with_experiment:
                    self._restore_run(run)

    def purge_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        with self._lock:
            rules.check_deleted(self.get_experiment(experiment_id))
            for run in self._runs_of(experiment_id):
                self._state.remove_run(run)
            models = self._state.logged_models.values()
            for model in [it for it in models if it.experiment_id == experiment_id]:
                self._state.remove_logged_model(model.model_id)
            for place in [it for it in self._state.datasets if it[0] == experiment_id]:
                del self._state.datasets[place]
            del self._state.experiments[experiment_id]

    def _active_experiment(self, experiment_id: str) -> Experiment:
        experiment = self.get_experiment(experiment_id)
        rules.check_active(experiment)
        return experiment

    def _keep(self, experiment: Experiment) -> None:
        self._state.experiments[experiment.experiment_id] = experiment

    def _move(self, experiment: Experiment, stage: LifecycleStage) -> int:
        now_ms = self._clock()
        self._keep(replace(experiment, lifecycle_stage=stage, last_update_time_ms=now_ms))
        return now_ms

    def _runs_of(self, experiment_id: str) -> list[str]:
        runs = self._state.runs.values()
        return [run.run_id for run in runs if run.experiment_id == experiment_id]

    def _delete_run(self, run_id: str, now_ms: int) -> None:
        run = self._state.runs[run_id]
        self._state.runs[run_id] = replace(run, lifecycle_stage=LifecycleStage.DELETED)
        self._state.deletion_times_ms[run_id] = now_ms

    def _restore_run(self, run_id: str) -> None:
        run = self._state.runs[run_id]
        self._state.runs[run_id] = replace(run, lifecycle_stage=LifecycleStage.ACTIVE)
        self._state.gone_with_experiment.discard(run_id)
        self._state.deletion_times_ms.pop(run_id, None)
