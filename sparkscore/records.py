"""The records of the model lifecycle, as plain frozen values.

Field names follow MLflow's entities; times are milliseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class LifecycleStage(StrEnum):
    """Whether an experiment or run is in use or has been deleted (and may be restored)."""

    ACTIVE = "active"
    DELETED = "deleted"


class RunStatus(StrEnum):
    """What a run is doing, or how it ended."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class VersionStatus(StrEnum):
    """Whether a model version's bytes are all there and verified."""

    PENDING_REGISTRATION = "PENDING_REGISTRATION"
    FAILED_REGISTRATION = "FAILED_REGISTRATION"
    READY = "READY"


@dataclass(frozen=True)
class Experiment:
    """A named collection of runs."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: LifecycleStage
    creation_time_ms: int
    last_update_time_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One measured value of a run; `value` may be NaN or infinite."""

    key: str
    value: float
    timestamp_ms: int
    step: int = 0


@dataclass(frozen=True)
class Run:
    """One recorded execution; `metrics` holds the latest point of each key.

    The latest point is the one with the highest (step, timestamp, value).
    """

    run_id: str
    run_name: str
    experiment_id: str
    user_id: str
    status: RunStatus
    start_time_ms: int
    end_time_ms: int | None
    artifact_uri: str
    lifecycle_stage: LifecycleStage
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredModel:
    """A named line of model versions; `aliases` maps an alias to a version number."""

    name: str
    creation_time_ms: int
    last_update_time_ms: int
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One registered package; `digest` is its package digest once it is READY.

    `source` is where the bytes lie: a URI below the artifact root of the registry.
    """

    name: str
    version: int
    creation_time_ms: int
    last_update_time_ms: int
    source: str
    status: VersionStatus
    status_message: str = ""
    digest: str = ""
    run_id: str = ""
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArtifactInfo:
    """A file or folder in an artifact store; `path` is relative to the store's root."""

    path: str
    is_folder: bool
    n_bytes: int | None
