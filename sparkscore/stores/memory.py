"""Records kept in memory: the reference that every other store must equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import RLock

from sparkscore.names import AliasName, ExperimentName, ModelName, RunId
from sparkscore.records import (
    Experiment,
    LifecycleStage,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
    RunStatus,
    VersionStatus,
)
from sparkscore.stores import rules
from sparkscore.stores.base import Clock, system_clock


class MemoryRunStore:
    """Experiments and runs of one process, safe to share between its threads."""

    def __init__(self, artifact_root: str, clock: Clock = system_clock) -> None:
        self._artifact_root = artifact_root.rstrip("/")
        self._clock = clock
        self._lock = RLock()
        self._experiments: dict[str, Experiment] = {}
        self._runs: dict[str, Run] = {}
        self._points: dict[tuple[str, str], dict[tuple[int, int, bool, float], Metric]] = {}
        self.create_experiment(ExperimentName(rules.DEFAULT_EXPERIMENT_NAME))

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
            experiment_id = str(len(self._experiments))
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
            self._experiments[experiment_id] = experiment
            return experiment

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        with self._lock:
            if experiment_id not in self._experiments:
                raise rules.no_experiment(experiment_id)
            return self._experiments[experiment_id]

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore."""
        with self._lock:
            found = (item for item in self._experiments.values() if item.name == name)
            return next(found, None)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        with self._lock:
            active = [
                experiment
                for experiment in self._experiments.values()
                if experiment.lifecycle_stage is LifecycleStage.ACTIVE
            ]
        active.sort(key=lambda item: (item.creation_time_ms, int(item.experiment_id)), reverse=True)
        return active[:limit]

    def create_run(
        self,
        experiment_id: str,
        *,
        run_id: RunId,
        run_name: str,
        user_id: str,
        start_time_ms: int,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """See RunStore."""
        rules.check_new_run(run_name, user_id, start_time_ms, tags)
        with self._lock:
            experiment = self.get_experiment(experiment_id)
            rules.check_active(experiment)
            if run_id in self._runs:
                rules.check_same_experiment(self._runs[run_id], experiment_id)
                return self._runs[run_id]
            self._runs[run_id] = Run(
                run_id=run_id,
                run_name=run_name,
                experiment_id=experiment_id,
                user_id=user_id,
                status=RunStatus.RUNNING,
                start_time_ms=start_time_ms,
                end_time_ms=None,
                artifact_uri=f"{experiment.artifact_location}/{run_id}/artifacts",
                lifecycle_stage=LifecycleStage.ACTIVE,
                tags=dict(tags or {}),
            )
            return self._runs[run_id]

    def get_run(self, run_id: RunId) -> Run:
        """See RunStore."""
        with self._lock:
            if run_id not in self._runs:
                raise rules.no_run(run_id)
            return self._runs[run_id]

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """See RunStore."""
        with self._lock:
            fitting = [
                run
                for run in self._runs.values()
                if run.lifecycle_stage is LifecycleStage.ACTIVE
                and (not experiment_ids or run.experiment_id in experiment_ids)
                and (tags or {}).items() <= run.tags.items()
            ]
        fitting.sort(key=lambda run: (-run.start_time_ms, run.run_id))
        return fitting[:limit]

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See RunStore."""
        rules.check_batch(metrics, params, tags)
        with self._lock:
            run = self.get_run(run_id)
            rules.check_active(run)
            rules.check_params_kept(run_id, run.params, params or {})
            for metric in metrics:
                points = self._points.setdefault((run_id, metric.key), {})
                points.setdefault(rules.metric_order(metric), metric)
            self._runs[run_id] = replace(
                run,
                params={**run.params, **(params or {})},
                tags={**run.tags, **(tags or {})},
                metrics=rules.latest_points([*run.metrics.values(), *metrics]),
            )

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore."""
        rules.check_int64(end_time_ms or 0, "end time")
        with self._lock:
            run = self.get_run(run_id)
            rules.check_active(run)
            self._runs[run_id] = replace(run, status=status, end_time_ms=end_time_ms)
            return self._runs[run_id]

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        with self._lock:
            self.get_run(run_id)
            return sorted(self._points.get((run_id, key), {}).values(), key=rules.metric_order)


class MemoryModelStore:
    """Registered models of one process, safe to share between its threads."""

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._lock = RLock()
        self._models: dict[str, RegisteredModel] = {}
        self._versions: dict[str, dict[int, ModelVersion]] = {}

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            if name in self._models:
                raise rules.model_exists(name)
            now = self._clock()
            self._models[name] = RegisteredModel(name, now, now, description, dict(tags or {}))
            self._versions[name] = {}
            return self._models[name]

    def get_model(self, name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        with self._lock:
            if name not in self._models:
                raise rules.no_model(name, self._models)
            return self._models[name]

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """See ModelStore."""
        with self._lock:
            return [self._models[name] for name in sorted(self._models)[:limit]]

    def create_version(
        self,
        name: ModelName,
        *,
        source: str,
        run_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            model = self.get_model(name)
            now = self._clock()
            version = ModelVersion(
                name=name,
                version=len(self._versions[name]) + 1,
                creation_time_ms=now,
                last_update_time_ms=now,
                source=source,
                status=VersionStatus.PENDING_REGISTRATION,
                run_id=run_id,
                description=description,
                tags=dict(tags or {}),
            )
            self._versions[name][version.version] = version
            self._models[name] = replace(model, last_update_time_ms=now)
            return version

    def finish_version(
        self,
        name: ModelName,
        version: int,
        status: VersionStatus,
        *,
        source: str | None = None,
        digest: str = "",
        message: str = "",
    ) -> ModelVersion:
        """See ModelStore."""
        with self._lock:
            pending = self.get_version(name, version)
            rules.check_finish(pending, status, digest)
            self._versions[name][version] = replace(
                pending,
                status=status,
                source=pending.source if source is None else source,
                digest=digest,
                status_message=message,
                last_update_time_ms=self._clock(),
            )
            return self.get_version(name, version)

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """See ModelStore."""
        with self._lock:
            model = self.get_model(name)
            if version not in self._versions[name]:
                raise rules.no_version(name, version, sorted(self._versions[name], reverse=True))
            pointing = sorted(alias for alias, at in model.aliases.items() if at == version)
            return replace(self._versions[name][version], aliases=tuple(pointing))

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """See ModelStore."""
        with self._lock:
            self.get_model(name)
            numbers = sorted(self._versions[name], reverse=True)
            return [self.get_version(name, number) for number in numbers]

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            held = self.get_version(name, version)
            self._versions[name][version] = replace(held, tags={**held.tags, **tags})

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """See ModelStore."""
        with self._lock:
            rules.check_alias_target(self.get_version(name, version))
            model = self._models[name]
            self._models[name] = replace(
                model,
                aliases={**model.aliases, alias: version},
                last_update_time_ms=self._clock(),
            )

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """See ModelStore."""
        with self._lock:
            aliases = self.get_model(name).aliases
            if alias not in aliases:
                raise rules.no_alias(name, alias, sorted(aliases))
            return self.get_version(name, aliases[alias])
