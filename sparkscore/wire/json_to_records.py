"""Records from the JSON objects of answers; the other way of `records_to_json`.

Servers of other releases leave fields out or add some: what is not there is empty.
"""

from __future__ import annotations

from sparkscore.records import (
    ArtifactInfo,
    Dataset,
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
    Run,
    RunStatus,
    Stage,
    VersionStatus,
)
from sparkscore.wire.reading import Given


def experiment_of(given: Given) -> Experiment:
    """An experiment."""
    return Experiment(
        experiment_id=given.text("experiment_id"),
        name=given.text("name"),
        artifact_location=given.text("artifact_location"),
        lifecycle_stage=LifecycleStage(given.text("lifecycle_stage", "active")),
        creation_time_ms=given.whole("creation_time"),
        last_update_time_ms=given.whole("last_update_time"),
        tags=given.pairs("tags"),
    )


def metric_of(given: Given) -> Metric:
    """A point of a metric."""
    return Metric(
        key=given.text("key"),
        value=given.real("value"),
        timestamp_ms=given.whole("timestamp"),
        step=given.whole("step"),
        model_id=given.text("model_id"),
        dataset_name=given.text("dataset_name"),
        dataset_digest=given.text("dataset_digest"),
    )


def dataset_input_of(given: Given) -> DatasetInput:
    """A dataset as a run used it."""
    dataset = given.one("dataset")
    return DatasetInput(
        Dataset(
            name=dataset.text("name"),
            digest=dataset.text("digest"),
            source_type=dataset.text("source_type"),
            source=dataset.text("source"),
            schema=dataset.text("schema"),
            profile=dataset.text("profile"),
        ),
        given.pairs("tags"),
    )


def model_output_of(given: Given) -> ModelOutput:
    """A logged model that a run made."""
    return ModelOutput(given.text("model_id"), given.whole("step"))


def run_of(given: Given) -> Run:
    """A run with all that it recorded."""
    info, data = given.one("info"), given.one("data")
    metrics = [metric_of(item) for item in data.each("metrics")]
    return Run(
        run_id=info.text("run_id") or info.text("run_uuid"),
        run_name=info.text("run_name"),
        experiment_id=info.text("experiment_id"),
        user_id=info.text("user_id"),
        status=RunStatus(info.text("status", RunStatus.RUNNING)),
        start_time_ms=info.whole("start_time"),
        end_time_ms=info.whole_or_none("end_time"),
        artifact_uri=info.text("artifact_uri"),
        lifecycle_stage=LifecycleStage(info.text("lifecycle_stage", "active")),
        params=data.pairs("params"),
        metrics={metric.key: metric for metric in metrics},
        tags=data.pairs("tags"),
        datasets=tuple(
            dataset_input_of(item) for item in given.one("inputs").each("dataset_inputs")
        ),
        model_inputs=tuple(
            item.text("model_id") for item in given.one("inputs").each("model_inputs")
        ),
        model_outputs=tuple(
            model_output_of(item) for item in given.one("outputs").each("model_outputs")
        ),
    )


def file_of(given: Given) -> ArtifactInfo:
    """A file or folder, under the path that the answer gives."""
    is_folder = given.flag("is_dir")
    return ArtifactInfo(
        given.text("path"), is_folder, None if is_folder else given.whole("file_size")
    )


def logged_model_of(given: Given) -> LoggedModel:
    """A logged model with its params, tags and metrics."""
    info, data = given.one("info"), given.one("data")
    return LoggedModel(
        model_id=info.text("model_id"),
        experiment_id=info.text("experiment_id"),
        name=info.text("name"),
        model_type=info.text("model_type"),
        source_run_id=info.text("source_run_id"),
        status=LoggedModelStatus(info.text("status", LoggedModelStatus.PENDING)),
        artifact_uri=info.text("artifact_uri"),
        creation_time_ms=info.whole("creation_timestamp_ms"),
        last_update_time_ms=info.whole("last_updated_timestamp_ms"),
        lifecycle_stage=LifecycleStage(info.text("lifecycle_stage", "active")),
        status_message=info.text("status_message"),
        params=data.pairs("params"),
        tags=info.pairs("tags"),
        metrics=tuple(metric_of(item) for item in data.each("metrics")),
    )


def version_of(given: Given) -> ModelVersion:
    """A model version."""
    return ModelVersion(
        name=given.text("name"),
        version=int(given.text("version", "0")),
        creation_time_ms=given.whole("creation_timestamp"),
        last_update_time_ms=given.whole("last_updated_timestamp"),
        source=given.text("source"),
        status=VersionStatus(given.text("status", VersionStatus.READY)),
        status_message=given.text("status_message"),
        digest=given.text("digest"),
        run_id=given.text("run_id"),
        description=given.text("description"),
        tags=given.pairs("tags"),
        aliases=given.texts("aliases"),
        stage=Stage(given.text("current_stage", Stage.NONE)),
        run_link=given.text("run_link"),
        model_id=given.text("model_id"),
        user_id=given.text("user_id"),
    )


def registered_model_of(given: Given) -> RegisteredModel:
    """A registered model."""
    return RegisteredModel(
        name=given.text("name"),
        creation_time_ms=given.whole("creation_timestamp"),
        last_update_time_ms=given.whole("last_updated_timestamp"),
        description=given.text("description"),
        tags=given.pairs("tags"),
        aliases={
            item.text("alias"): int(item.text("version", "0")) for item in given.each("aliases")
        },
    )
