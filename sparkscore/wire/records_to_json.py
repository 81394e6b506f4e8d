"""Records as the JSON objects of answers and requests; `json_to_records` reads them back.

Fields that are not set are left out, and so are empty lists, as proto-JSON has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from sparkscore.records import (
    ArtifactInfo,
    DatasetInput,
    Experiment,
    LoggedModel,
    Metric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
    Run,
    Webhook,
)

Json = dict[str, object]


def to_bytes(answer: Mapping[str, object]) -> bytes:
    """An object as the bytes of a body."""
    return json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()


def real_to_json(value: float) -> float | str:
    """A double as proto-JSON writes it: what JSON has no number for becomes text."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def pairs_to_json(pairs: Mapping[str, str]) -> list[Json]:
    """Tags or params."""
    return [{"key": key, "value": value} for key, value in pairs.items()]


def experiment_to_json(experiment: Experiment) -> Json:
    """An experiment."""
    return _set(
        experiment_id=experiment.experiment_id,
        name=experiment.name,
        artifact_location=experiment.artifact_location,
        lifecycle_stage=experiment.lifecycle_stage.value,
        creation_time=experiment.creation_time_ms,
        last_update_time=experiment.last_update_time_ms,
        tags=pairs_to_json(experiment.tags),
    )


def metric_to_json(metric: Metric, run_id: str = "") -> Json:
    """A point of a metric; with a run's id where points of several runs stand side by side."""
    value = metric.value
    found: Json = {
        "key": metric.key,
        "value": value if math.isfinite(value) else real_to_json(value),
        "timestamp": metric.timestamp_ms,
        "step": metric.step,
    }
    if metric.model_id or metric.dataset_name or run_id:
        found |= _set(
            model_id=metric.model_id,
            dataset_name=metric.dataset_name,
            dataset_digest=metric.dataset_digest,
            run_id=run_id,
        )
    return found


def dataset_input_to_json(used: DatasetInput) -> Json:
    """A dataset as a run used it."""
    dataset = used.dataset
    described = _set(
        name=dataset.name,
        digest=dataset.digest,
        source_type=dataset.source_type,
        source=dataset.source,
        schema=dataset.schema,
        profile=dataset.profile,
    )
    return _set(dataset=described, tags=pairs_to_json(used.tags))


def model_output_to_json(output: ModelOutput) -> Json:
    """A logged model that a run made."""
    return {"model_id": output.model_id, "step": output.step}


def run_info_to_json(run: Run) -> Json:
    """What a run is, without what it recorded."""
    return _set(
        run_id=run.run_id,
        run_uuid=run.run_id,
        run_name=run.run_name,
        experiment_id=run.experiment_id,
        user_id=run.user_id,
        status=run.status.value,
        start_time=run.start_time_ms,
        end_time=run.end_time_ms,
        artifact_uri=run.artifact_uri,
        lifecycle_stage=run.lifecycle_stage.value,
    )


def run_to_json(run: Run) -> Json:
    """A run with its latest metrics, params, tags, inputs and outputs."""
    return {
        "info": run_info_to_json(run),
        "data": _set(
            metrics=[metric_to_json(metric) for metric in run.metrics.values()],
            params=pairs_to_json(run.params),
            tags=pairs_to_json(run.tags),
        ),
        "inputs": _set(
            dataset_inputs=[dataset_input_to_json(used) for used in run.datasets],
            model_inputs=[{"model_id": model_id} for model_id in run.model_inputs],
        ),
        "outputs": _set(model_outputs=[model_output_to_json(item) for item in run.model_outputs]),
    }


def file_to_json(file: ArtifactInfo, path: str) -> Json:
    """A file or folder under the path that the question was about."""
    return _set(path=path, is_dir=file.is_folder, file_size=file.n_bytes)


def dataset_summary_to_json(experiment_id: str, used: DatasetInput) -> Json:
    """What a page shows of a dataset."""
    return _set(
        experiment_id=experiment_id,
        name=used.dataset.name,
        digest=used.dataset.digest,
        context=used.tags.get("mlflow.data.context", ""),
    )


def logged_model_to_json(model: LoggedModel) -> Json:
    """A logged model with its params, tags and metrics."""
    info = _set(
        model_id=model.model_id,
        experiment_id=model.experiment_id,
        name=model.name,
        creation_timestamp_ms=model.creation_time_ms,
        last_updated_timestamp_ms=model.last_update_time_ms,
        artifact_uri=model.artifact_uri,
        status=model.status.value,
        model_type=model.model_type,
        source_run_id=model.source_run_id,
        status_message=model.status_message,
        tags=pairs_to_json(model.tags),
        lifecycle_stage=model.lifecycle_stage.value,
    )
    data = _set(
        params=pairs_to_json(model.params),
        metrics=[metric_to_json(metric, model.source_run_id) for metric in model.metrics],
    )
    return {"info": info, "data": data}


def version_to_json(version: ModelVersion) -> Json:
    """A model version."""
    return _set(
        name=version.name,
        version=str(version.version),
        creation_timestamp=version.creation_time_ms,
        last_updated_timestamp=version.last_update_time_ms,
        user_id=version.user_id,
        current_stage=version.stage.value,
        description=version.description,
        source=version.source,
        run_id=version.run_id,
        status=version.status.value,
        status_message=version.status_message,
        tags=pairs_to_json(version.tags),
        run_link=version.run_link,
        aliases=list(version.aliases),
        model_id=version.model_id,
        digest=version.digest,
    )


def registered_model_to_json(model: RegisteredModel, latest: Sequence[ModelVersion] = ()) -> Json:
    """A registered model, with the latest version of each stage."""
    aliases = model.aliases.items()
    return _set(
        name=model.name,
        creation_timestamp=model.creation_time_ms,
        last_updated_timestamp=model.last_update_time_ms,
        description=model.description,
        latest_versions=[version_to_json(version) for version in latest],
        tags=pairs_to_json(model.tags),
        aliases=[{"alias": alias, "version": str(version)} for alias, version in aliases],
    )


def page_to_json(name: str, items: Iterable[Json], next_token: str | None) -> Json:
    """One page of a search."""
    return _set(**{name: list(items)}, next_page_token=next_token)


def webhook_to_json(webhook: Webhook) -> Json:
    """A webhook, without its secret."""
    return _set(
        webhook_id=webhook.webhook_id,
        name=webhook.name,
        description=webhook.description,
        url=webhook.url,
        events=[{"entity": it.entity.value, "action": it.action.value} for it in webhook.events],
        status=webhook.status.value,
        creation_timestamp=webhook.creation_time_ms,
        last_updated_timestamp=webhook.last_update_time_ms,
    )


def _set(**fields: object) -> Json:
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value not in ("", [], {})
    }
