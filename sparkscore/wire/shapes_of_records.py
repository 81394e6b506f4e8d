"""The shapes of records, as they stand in answers and, in part, in requests."""

from __future__ import annotations

from sparkscore.wire.shapes import Shape, each, enum, flag, int64, one, real, text, texts

RUN_STATUS = {"RUNNING": 1, "SCHEDULED": 2, "FINISHED": 3, "FAILED": 4, "KILLED": 5}
VIEW = {"ACTIVE_ONLY": 1, "DELETED_ONLY": 2, "ALL": 3}
LOGGED_MODEL_STATUS = {
    "LOGGED_MODEL_PENDING": 1,
    "LOGGED_MODEL_READY": 2,
    "LOGGED_MODEL_UPLOAD_FAILED": 3,
}
VERSION_STATUS = {"PENDING_REGISTRATION": 1, "FAILED_REGISTRATION": 2, "READY": 3}

NOTHING = Shape("Nothing")
TAG = Shape("Tag", (text("key", required=True), text("value", may_be_empty=True)))
PARAM = Shape("Param", (text("key", required=True), text("value", may_be_empty=True)))

EXPERIMENT = Shape(
    "Experiment",
    (
        text("experiment_id"),
        text("name"),
        text("artifact_location"),
        text("lifecycle_stage"),
        int64("creation_time"),
        int64("last_update_time"),
        each("tags", TAG),
    ),
)

METRIC = Shape(
    "Metric",
    (
        text("key", required=True),
        real("value", required=True),
        int64("timestamp", required=True),
        int64("step"),
        text("model_id"),
        text("dataset_name"),
        text("dataset_digest"),
        text("run_id"),
    ),
)

DATASET = Shape(
    "Dataset",
    (
        text("name", required=True),
        text("digest", required=True),
        text("source_type", required=True),
        text("source", required=True),
        text("schema"),
        text("profile"),
    ),
)
DATASET_INPUT = Shape("DatasetInput", (one("dataset", DATASET, required=True), each("tags", TAG)))
MODEL_INPUT = Shape("ModelInput", (text("model_id", required=True),))
MODEL_OUTPUT = Shape("ModelOutput", (text("model_id", required=True), int64("step")))

RUN_INFO = Shape(
    "RunInfo",
    (
        text("run_id"),
        text("run_uuid"),
        text("run_name"),
        text("experiment_id"),
        text("user_id"),
        enum("status", RUN_STATUS),
        int64("start_time"),
        int64("end_time"),
        text("artifact_uri"),
        text("lifecycle_stage"),
    ),
)
RUN_DATA = Shape("RunData", (each("metrics", METRIC), each("params", PARAM), each("tags", TAG)))
RUN_INPUTS = Shape(
    "RunInputs", (each("dataset_inputs", DATASET_INPUT), each("model_inputs", MODEL_INPUT))
)
RUN_OUTPUTS = Shape("RunOutputs", (each("model_outputs", MODEL_OUTPUT),))
RUN = Shape(
    "Run",
    (
        one("info", RUN_INFO),
        one("data", RUN_DATA),
        one("inputs", RUN_INPUTS),
        one("outputs", RUN_OUTPUTS),
    ),
)

FILE = Shape("File", (text("path"), flag("is_dir"), int64("file_size")))
DATASET_SUMMARY = Shape(
    "DatasetSummary", (text("experiment_id"), text("name"), text("digest"), text("context"))
)

LOGGED_MODEL_INFO = Shape(
    "LoggedModelInfo",
    (
        text("model_id"),
        text("experiment_id"),
        text("name"),
        int64("creation_timestamp_ms"),
        int64("last_updated_timestamp_ms"),
        text("artifact_uri"),
        enum("status", LOGGED_MODEL_STATUS),
        text("model_type"),
        text("source_run_id"),
        text("status_message"),
        each("tags", TAG),
        text("lifecycle_stage"),
    ),
)
LOGGED_MODEL_DATA = Shape("LoggedModelData", (each("params", PARAM), each("metrics", METRIC)))
LOGGED_MODEL = Shape(
    "LoggedModel", (one("info", LOGGED_MODEL_INFO), one("data", LOGGED_MODEL_DATA))
)

VERSION = Shape(
    "ModelVersion",
    (
        text("name"),
        text("version"),
        int64("creation_timestamp"),
        int64("last_updated_timestamp"),
        text("user_id"),
        text("current_stage"),
        text("description"),
        text("source"),
        text("run_id"),
        enum("status", VERSION_STATUS),
        text("status_message"),
        each("tags", TAG),
        text("run_link"),
        texts("aliases"),
        text("model_id"),
        text("digest"),
    ),
)
ALIAS = Shape("Alias", (text("alias"), text("version")))
REGISTERED_MODEL = Shape(
    "RegisteredModel",
    (
        text("name"),
        int64("creation_timestamp"),
        int64("last_updated_timestamp"),
        text("description"),
        each("latest_versions", VERSION),
        each("tags", TAG),
        each("aliases", ALIAS),
    ),
)
