"""Stores that fail on demand, to be laid around a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparkscore.errors import StoreUnavailableError
from sparkscore.names import AliasName, ArtifactPath, ExperimentName, ModelName, RunId
from sparkscore.records import (
    ArtifactInfo,
    Experiment,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
    RunStatus,
    VersionStatus,
)
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.models_base import ModelStore


class Fault:
    """Decides which calls fail; one may govern several stores.

    Attributes:
        is_down: Every call fails.
        calls_left: The store goes down by itself after so many calls; None: it does not.
    """

    def __init__(self, *, is_down: bool = False, calls_left: int | None = None) -> None:
        self.is_down = is_down
        self.calls_left = calls_left

    def check(self) -> None:
        """Count a call, or fail it.

        Raises:
            StoreUnavailableError: It is this call's turn to fail.
        """
        if self.calls_left == 0:
            self.is_down = True
        if self.is_down:
            raise StoreUnavailableError("the store is down, as the test wants it")
        if self.calls_left is not None:
            self.calls_left -= 1


class FailingRunStore:
    """A RunStore that is up or down as `fault` says."""

    def __init__(self, inner: RunStore, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        self._fault.check()
        return self._inner.create_experiment(name, artifact_location, tags)

    def get_experiment(self, experiment_id: str) -> Experiment:
        self._fault.check()
        return self._inner.get_experiment(experiment_id)

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        self._fault.check()
        return self._inner.find_experiment(name)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        self._fault.check()
        return self._inner.list_experiments(limit=limit)

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
        self._fault.check()
        return self._inner.create_run(
            experiment_id,
            run_id=run_id,
            run_name=run_name,
            user_id=user_id,
            start_time_ms=start_time_ms,
            tags=tags,
        )

    def get_run(self, run_id: RunId) -> Run:
        self._fault.check()
        return self._inner.get_run(run_id)

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        self._fault.check()
        return self._inner.list_runs(experiment_ids=experiment_ids, tags=tags, limit=limit)

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._fault.check()
        self._inner.log_batch(run_id, metrics=metrics, params=params, tags=tags)

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        self._fault.check()
        return self._inner.update_run(run_id, status, end_time_ms)

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        self._fault.check()
        return self._inner.metric_history(run_id, key)


class FailingModelStore:
    """A ModelStore that is up or down as `fault` says."""

    def __init__(self, inner: ModelStore, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        self._fault.check()
        return self._inner.create_model(name, description, tags)

    def get_model(self, name: ModelName) -> RegisteredModel:
        self._fault.check()
        return self._inner.get_model(name)

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        self._fault.check()
        return self._inner.list_models(limit=limit)

    def create_version(
        self,
        name: ModelName,
        *,
        source: str,
        run_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        self._fault.check()
        return self._inner.create_version(
            name, source=source, run_id=run_id, description=description, tags=tags
        )

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
        self._fault.check()
        return self._inner.finish_version(
            name, version, status, source=source, digest=digest, message=message
        )

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        self._fault.check()
        return self._inner.get_version(name, version)

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        self._fault.check()
        return self._inner.list_versions(name)

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        self._fault.check()
        self._inner.set_version_tags(name, version, tags)

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        self._fault.check()
        self._inner.set_alias(name, alias, version)

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        self._fault.check()
        return self._inner.get_version_by_alias(name, alias)


class FailingArtifactStore:
    """An ArtifactStore that is up or down as `fault` says."""

    def __init__(self, inner: ArtifactStore, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    @property
    def root_uri(self) -> str:
        return self._inner.root_uri

    def put(self, local: Path, path: ArtifactPath) -> None:
        self._fault.check()
        self._inner.put(local, path)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        self._fault.check()
        return self._inner.get(path, local)

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        self._fault.check()
        return self._inner.list(path)

    def delete(self, path: ArtifactPath) -> None:
        self._fault.check()
        self._inner.delete(path)
