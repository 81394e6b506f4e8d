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


class LoggedModelStatus(StrEnum):
    """Whether a logged model's files are all there."""

    PENDING = "LOGGED_MODEL_PENDING"
    READY = "LOGGED_MODEL_READY"
    UPLOAD_FAILED = "LOGGED_MODEL_UPLOAD_FAILED"


class Stage(StrEnum):
    """A model version's place in MLflow's older scheme; aliases are the newer one."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


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
    """One measured value of a run; `value` may be NaN or infinite.

    It may be of a logged model of the run (`model_id`), and measured on a dataset.
    """

    key: str
    value: float
    timestamp_ms: int
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True)
class Dataset:
    """Data that a run used; name and digest tell two apart within an experiment.

    `source`, `schema` and `profile` are the text (mostly JSON) that the client gave.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str = ""
    profile: str = ""


@dataclass(frozen=True)
class DatasetInput:
    """A dataset as a run used it; the tag `mlflow.data.context` says for what."""

    dataset: Dataset
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelOutput:
    """A logged model that a run made, at a step."""

    model_id: str
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
    datasets: tuple[DatasetInput, ...] = ()
    model_inputs: tuple[str, ...] = ()
    model_outputs: tuple[ModelOutput, ...] = ()


@dataclass(frozen=True)
class LoggedModel:
    """A model that an experiment holds, registered or not; `metrics` as they were logged."""

    model_id: str
    experiment_id: str
    name: str
    model_type: str
    source_run_id: str
    status: LoggedModelStatus
    artifact_uri: str
    creation_time_ms: int
    last_update_time_ms: int
    lifecycle_stage: LifecycleStage = LifecycleStage.ACTIVE
    status_message: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()


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
    """One registered package; `digest` is its package digest once it is READY and verified.

    `source` is where the bytes lie, or for a version that was registered over REST, the URI that
    the client gave; such a one may be READY without a digest, and is then not verified.
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
    stage: Stage = Stage.NONE
    run_link: str = ""
    model_id: str = ""
    user_id: str = ""


class RecordKind(StrEnum):
    """What a deleted record is."""

    RUN = "run"
    LOGGED_MODEL = "logged model"
    EXPERIMENT = "experiment"


@dataclass(frozen=True)
class DeletedRecord:
    """A record that was deleted and can still be restored, or purged.

    Attributes:
        artifact_uri: Where its files lie; empty for an experiment, whose runs and models have them.
        deletion_time_ms: When it was deleted, by itself or with its experiment.
        n_rows: How many rows of the store are its own; those of an experiment without its runs'
            and logged models'.
    """

    kind: RecordKind
    record_id: str
    experiment_id: str
    artifact_uri: str
    deletion_time_ms: int
    n_rows: int


@dataclass(frozen=True)
class Removal:
    """Files of a record that was purged, which are to be removed."""

    removal_id: int
    record_id: str
    artifact_uri: str


@dataclass(frozen=True)
class ArtifactInfo:
    """A file or folder in an artifact store; `path` is relative to the store's root."""

    path: str
    is_folder: bool
    n_bytes: int | None


class WebhookEntity(StrEnum):
    """What an event is about."""

    REGISTERED_MODEL = "REGISTERED_MODEL"
    MODEL_VERSION = "MODEL_VERSION"
    MODEL_VERSION_TAG = "MODEL_VERSION_TAG"
    MODEL_VERSION_ALIAS = "MODEL_VERSION_ALIAS"


class WebhookAction(StrEnum):
    """What was done to it."""

    CREATED = "CREATED"
    SET = "SET"
    DELETED = "DELETED"


class WebhookStatus(StrEnum):
    """Whether events are sent to a webhook."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


@dataclass(frozen=True)
class WebhookEvent:
    """A kind of event, such as (MODEL_VERSION, CREATED)."""

    entity: WebhookEntity
    action: WebhookAction


@dataclass(frozen=True)
class Webhook:
    """A URL that is told of events.

    Attributes:
        events: What it is told of.
        sealed_secret: The key of its signatures, encrypted by the server; empty: none.
    """

    webhook_id: str
    name: str
    url: str
    events: tuple[WebhookEvent, ...]
    status: WebhookStatus
    creation_time_ms: int
    last_update_time_ms: int
    description: str = ""
    sealed_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Delivery:
    """What one webhook is to be told of one event.

    Attributes:
        delivery_id: The same for all tries, so that a receiver knows a repetition.
        event: Its name, such as MODEL_VERSION.CREATED.
        body: The JSON as it is sent.
        n_failed: How many tries failed.
        due_ms: When the next try is due; a try that is under way has moved it on.
    """

    delivery_id: str
    webhook_id: str
    event: str
    body: str
    due_ms: int
    n_failed: int = 0
