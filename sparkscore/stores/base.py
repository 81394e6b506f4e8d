"""The three seams behind which records and files are kept.

Every implementation passes the contract suites in `sparkscore.testing`. Clocks are handed in,
so that a store never decides what time it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

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

Clock = Callable[[], int]
"""Returns the present as milliseconds since the epoch, UTC."""


def system_clock() -> int:
    """The machine's own clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class RunStore(Protocol):
    """Experiments and runs.

    Any call may raise StoreUnavailableError: nothing of it was kept, and the same call may
    succeed later.
    """

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """A new experiment; without a location it gets one below the store's artifact root.

        Raises:
            RecordExistsError: The name is taken, by a deleted experiment too.
        """
        ...

    def get_experiment(self, experiment_id: str) -> Experiment:
        """The experiment of this id, deleted or not.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """The experiment of this name, deleted or not, or None."""
        ...

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """Active experiments, newest first."""
        ...

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
        """A new RUNNING run under an id that the caller chose (so that it can be queued).

        Called again with the same id and experiment it returns the run that is there.

        Raises:
            RecordNotFoundError: No such experiment.
            InvalidStateError: The experiment is deleted.
            RecordExistsError: The id belongs to a run of another experiment.
        """
        ...

    def get_run(self, run_id: RunId) -> Run:
        """The run with its params, tags and latest metrics.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """Active runs that carry all of `tags`, newest start first; no ids: all experiments."""
        ...

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run, all or nothing; a repeated identical metric point is kept once.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted, or a param is known with another value.
            InvalidNameError: A key is not usable.
            UsageError: A value is over its limit (`rules` has them); values are never cut.
        """
        ...

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """The run with a new status and end time (None: not ended).

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted.
        """
        ...

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """All points of a metric by (step, timestamp, value); empty for an unknown key.

        Raises:
            RecordNotFoundError: No such run.
        """
        ...


class ModelStore(Protocol):
    """Registered models, their versions and aliases. Any call may raise StoreUnavailableError."""

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """A new registered model without versions.

        Raises:
            RecordExistsError: The name is taken.
        """
        ...

    def get_model(self, name: ModelName) -> RegisteredModel:
        """The registered model of this name.

        Raises:
            RecordNotFoundError: There is none; near names are offered.
        """
        ...

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """Registered models by name."""
        ...

    def create_version(
        self,
        name: ModelName,
        *,
        source: str,
        run_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """A new PENDING_REGISTRATION version with the next number; numbers are never reused.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

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
        """Turn a pending version READY (with its digest) or FAILED_REGISTRATION.

        Raises:
            RecordNotFoundError: No such version.
            InvalidStateError: The version is not pending.
        """
        ...

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """One version with its tags and the aliases that point at it.

        Raises:
            RecordNotFoundError: There is none; the known numbers are listed.
        """
        ...

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """All versions of a model, highest number first.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version.

        Raises:
            RecordNotFoundError: No such version.
        """
        ...

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """Point an alias at a READY version, away from any other.

        Raises:
            RecordNotFoundError: No such model or version.
            InvalidStateError: The version is not READY.
        """
        ...

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """The version that the alias points at now.

        Raises:
            RecordNotFoundError: No such model or alias; the known aliases are listed.
        """
        ...


class ArtifactStore(Protocol):
    """Files below one root. Paths were parsed by `names.parse_artifact_path`.

    Any call may raise StoreUnavailableError.
    """

    @property
    def root_uri(self) -> str:
        """URI of the root, without a trailing slash."""
        ...

    def put(self, local: Path, path: ArtifactPath) -> None:
        """Store a local file as `path`, or a local folder as the folder `path`.

        A file becomes visible whole or not at all; an existing file is replaced.

        Raises:
            RecordNotFoundError: `local` does not exist.
        """
        ...

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """Copy the file or folder `path` to the new local path `local`, and return it.

        Raises:
            RecordNotFoundError: There is nothing at `path`.
        """
        ...

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """What lies directly in the folder `path`, by name; empty for a file or nothing."""
        ...

    def delete(self, path: ArtifactPath) -> None:
        """Remove the file or folder `path`; nothing happens where nothing is."""
        ...
