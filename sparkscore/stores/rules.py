"""Rules that every store keeps, whatever it keeps records in: limits, immutability, order.

Some messages begin with words of MLflow's own, which its users and their scripts look for.

The limits are MLflow's. A value over its limit is refused, not cut: a record that was shortened
silently is a wrong record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
    listed,
    nearest,
    shown,
)
from sparkscore.names import parse_record_key, parse_run_id
from sparkscore.records import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    ModelVersion,
    Run,
    Stage,
    VersionStatus,
)
from sparkscore.search import View

DEFAULT_EXPERIMENT_ID = "0"
DEFAULT_EXPERIMENT_NAME = "Default"
CONTEXT_TAG = "mlflow.data.context"
RUN_NAME_TAG = "mlflow.runName"

MAX_PARAM_CHARS = 6000
MAX_RUN_TAG_CHARS = 8000
MAX_EXPERIMENT_TAG_CHARS = 20_000
MAX_REGISTRY_TAG_CHARS = 100_000
_MAX_DESCRIPTION_CHARS = 5000
_MAX_NAME_CHARS = 500
_MAX_LOCATION_CHARS = 2048
_MAX_DIGEST_CHARS = 64
_MAX_DATASET_TEXT_CHARS = 1_000_000
_MAX_INPUT_TAG_KEY_CHARS = 255
_MAX_INPUT_TAG_CHARS = 500
_UNUSABLE_IN_LOGGED_NAMES = "/:.%\"'"
_INT64 = range(-(2**63), 2**63)


def check_text(text: str, noun: str, max_chars: int) -> None:
    """Refuse text that not every database can keep.

    Raises:
        UsageError: Over `max_chars` characters, or a NUL or half a surrogate pair in it.
    """
    if len(text) > max_chars:
        raise UsageError(
            f"{noun} has {len(text)} characters; at most {max_chars} are kept: "
            "shorten it, or log it as an artifact"
        )
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(f"{noun} {shown(text)} holds a NUL or half a surrogate pair: remove it")


def check_tags(tags: Mapping[str, str] | None, max_chars: int) -> None:
    """Refuse tags of which a key or value is not usable.

    Raises:
        InvalidNameError: A key is not usable.
        UsageError: A value is.
    """
    for key, value in (tags or {}).items():
        parse_record_key(key, "tag")
        check_text(value, f"the value of tag {key!r}", max_chars)


def check_description(text: str) -> None:
    """Refuse a description over 5000 characters.

    Raises:
        UsageError: It is.
    """
    check_text(text, "description", _MAX_DESCRIPTION_CHARS)


def check_new_experiment(location: str | None, tags: Mapping[str, str] | None) -> None:
    """Refuse an experiment that could not be kept.

    Raises:
        InvalidNameError: A tag's key is not usable.
        UsageError: The location or a tag's value is too long.
    """
    check_text(location or "", "artifact location", _MAX_LOCATION_CHARS)
    check_tags(tags, MAX_EXPERIMENT_TAG_CHARS)


def check_new_run(
    run_name: str, user_id: str, start_time_ms: int, tags: Mapping[str, str] | None
) -> None:
    """Refuse a run that could not be kept.

    Raises:
        InvalidNameError: A tag's key is not usable.
        UsageError: A text is too long or a time is no 64-bit number.
    """
    check_text(run_name, "run name", _MAX_NAME_CHARS)
    check_text(user_id, "user id", _MAX_NAME_CHARS)
    check_int64(start_time_ms, "start time")
    check_tags(tags, MAX_RUN_TAG_CHARS)


def check_batch(
    metrics: Sequence[Metric], params: Mapping[str, str] | None, tags: Mapping[str, str] | None
) -> None:
    """Refuse a batch of which any part could not be kept.

    Raises:
        InvalidNameError: A key is not usable.
        UsageError: A value is too long, or a step or timestamp is no 64-bit number.
    """
    for metric in metrics:
        parse_record_key(metric.key, "metric")
        check_int64(metric.step, f"the step of metric {metric.key!r}")
        check_int64(metric.timestamp_ms, f"the timestamp of metric {metric.key!r}")
        check_text(metric.dataset_name, "dataset name", _MAX_NAME_CHARS)
        check_text(metric.dataset_digest, "dataset digest", _MAX_DIGEST_CHARS)
    check_params(params)
    check_tags(tags, MAX_RUN_TAG_CHARS)


def check_params(params: Mapping[str, str] | None) -> None:
    """Refuse params of which a key or value is not usable.

    Raises:
        InvalidNameError: A key is not usable.
        UsageError: A value is over its limit.
    """
    for key, value in (params or {}).items():
        parse_record_key(key, "param")
        check_text(value, f"the value of param {key!r}", MAX_PARAM_CHARS)


def check_run_name(name: str) -> None:
    """Refuse a run's name that could not be kept.

    Raises:
        UsageError: It is too long.
    """
    check_text(name, "run name", _MAX_NAME_CHARS)


def check_inputs(datasets: Sequence[DatasetInput], model_ids: Sequence[str]) -> None:
    """Refuse inputs of a run that could not be kept.

    Raises:
        InvalidNameError: A model's id is not usable.
        UsageError: A text is too long.
    """
    for item in datasets:
        dataset = item.dataset
        check_text(dataset.name, "dataset name", _MAX_NAME_CHARS)
        check_text(dataset.digest, "dataset digest", _MAX_DIGEST_CHARS)
        check_text(dataset.source_type, "dataset source type", _MAX_NAME_CHARS)
        for noun in ("source", "schema", "profile"):
            check_text(getattr(dataset, noun), f"dataset {noun}", _MAX_DATASET_TEXT_CHARS)
        for key, value in item.tags.items():
            check_text(key, "the key of an input tag", _MAX_INPUT_TAG_KEY_CHARS)
            check_text(value, f"the value of input tag {key!r}", _MAX_INPUT_TAG_CHARS)
    for model_id in model_ids:
        check_model_id(model_id)


def check_outputs(models: Sequence[ModelOutput]) -> None:
    """Refuse outputs of a run that could not be kept.

    Raises:
        InvalidNameError: A model's id is not usable.
        UsageError: A step needs more than 64 bits.
    """
    for model in models:
        check_model_id(model.model_id)
        check_int64(model.step, f"the step of model {model.model_id!r}")


def check_model_id(model_id: str) -> None:
    """Refuse a logged model's id that is not one; it is made like a run's.

    Raises:
        InvalidNameError: It is not 1 to 256 letters, digits, `_` and `-`.
    """
    try:
        parse_run_id(model_id)
    except InvalidNameError as exc:
        raise InvalidNameError(
            f"model id {shown(model_id)} is not 1 to 256 letters, digits, '_' or '-'"
        ) from exc


def check_new_logged_model(
    model_id: str,
    name: str,
    model_type: str,
    source_run_id: str,
    params: Mapping[str, str] | None,
    tags: Mapping[str, str] | None,
) -> None:
    """Refuse a logged model that could not be kept.

    Raises:
        InvalidNameError: The id, the name or a key is not usable.
        UsageError: A text is too long.
    """
    check_model_id(model_id)
    if not name.strip() or any(char in _UNUSABLE_IN_LOGGED_NAMES for char in name):
        raise InvalidNameError(
            f"name {shown(name)} of a logged model is empty or holds one of "
            f"{' '.join(_UNUSABLE_IN_LOGGED_NAMES)}"
        )
    check_text(name, "name of a logged model", _MAX_NAME_CHARS)
    check_text(model_type, "model type", _MAX_NAME_CHARS)
    check_text(source_run_id, "source run id", _MAX_NAME_CHARS)
    check_params(params)
    check_tags(tags, MAX_RUN_TAG_CHARS)


def check_new_version(
    description: str, tags: Mapping[str, str] | None, links: Mapping[str, str], model_id: str
) -> None:
    """Refuse a model version that could not be kept.

    Args:
        description: What its maker says of it.
        tags: Its tags.
        links: Noun to text of what else it names, such as its source.
        model_id: The logged model that it comes from, or "".

    Raises:
        InvalidNameError: A tag's key or the model's id is not usable.
        UsageError: A text is too long.
    """
    check_description(description)
    check_tags(tags, MAX_REGISTRY_TAG_CHARS)
    for noun, text in links.items():
        check_text(text, noun, _MAX_LOCATION_CHARS)
    if model_id:
        check_model_id(model_id)


def check_int64(number: int, noun: str) -> None:
    """Refuse a number that no database column holds.

    Raises:
        UsageError: It is no int, such as one of NumPy, or needs more than 64 bits.
    """
    # First: a range looks for what is no int by going through all that it holds.
    if not isinstance(number, int):
        raise UsageError(f"{noun} is {shown(number)}, which is no int: convert it")
    if int(number) not in _INT64:
        raise UsageError(f"{noun} is {shown(number)}, which needs more than 64 bits")


def check_params_kept(owner: str, known: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse to change a param that a run or logged model (`owner`, as messages call it) has.

    Raises:
        InvalidStateError: A param is known with another value.
    """
    for key, value in new.items():
        if known.get(key, value) != value:
            raise InvalidStateError(
                f"Changing param values is not allowed: param {key!r} is already "
                f"{shown(known[key])} in {owner} and cannot become {shown(value)}; start a new "
                "one, or set a tag"
            )


def check_active(record: Experiment | Run) -> None:
    """Refuse to write to a deleted experiment or run.

    Raises:
        InvalidStateError: It is deleted.
    """
    if record.lifecycle_stage is LifecycleStage.ACTIVE:
        return
    if isinstance(record, Run):
        raise deleted_run(record.run_id)
    raise InvalidStateError(
        f"experiment {record.name!r} must be in the 'active' state, but is deleted: restore it or "
        "choose another"
    )


def check_deleted(record: Experiment | Run | LoggedModel) -> None:
    """Refuse to restore or purge what is in use.

    Raises:
        InvalidStateError: It is active.
    """
    if record.lifecycle_stage is LifecycleStage.DELETED:
        return
    if isinstance(record, Experiment):
        what = f"experiment {record.name!r}"
    elif isinstance(record, Run):
        what = f"run {record.run_id!r}"
    else:
        what = f"logged model {record.model_id!r}"
    raise InvalidStateError(f"{what} is active: only what is deleted is restored or purged")


def check_purgeable(model: LoggedModel, experiment: Experiment) -> None:
    """Refuse to purge a logged model that is in use; one of a deleted experiment is not.

    Raises:
        InvalidStateError: It is active, and so is its experiment.
    """
    if experiment.lifecycle_stage is LifecycleStage.ACTIVE:
        check_deleted(model)


def check_restorable(run: Run, experiment: Experiment) -> None:
    """Refuse to restore a run into a deleted experiment.

    Raises:
        InvalidStateError: The experiment is deleted.
    """
    if experiment.lifecycle_stage is LifecycleStage.DELETED:
        raise InvalidStateError(
            f"run {run.run_id!r} is of experiment {experiment.name!r}, which is deleted: "
            "restore the experiment first"
        )


def check_same_experiment(run: Run, experiment_id: str) -> None:
    """Refuse a run id that another experiment uses.

    Raises:
        RecordExistsError: It does.
    """
    if run.experiment_id != experiment_id:
        raise RecordExistsError(
            f"run id {run.run_id!r} belongs to experiment {run.experiment_id!r}, "
            f"not {experiment_id!r}: choose another run id"
        )


def check_finish(version: ModelVersion, status: VersionStatus) -> None:
    """Refuse to finish a version twice, or not to finish it.

    A READY version without a digest is one whose bytes nobody has verified.

    Raises:
        InvalidStateError: One of these.
    """
    what = f"version {version.version} of model {version.name!r}"
    if version.status is not VersionStatus.PENDING_REGISTRATION:
        raise InvalidStateError(
            f"{what} is {version.status} and never changes again: register a new version"
        )
    if status is VersionStatus.PENDING_REGISTRATION:
        raise InvalidStateError(
            f"{what} cannot become {status}, which it is: give READY or FAILED_REGISTRATION"
        )


def check_archiving(stage: Stage, *, archive_others: bool) -> None:
    """Refuse to empty a stage that any number of versions may be in.

    Raises:
        UsageError: `archive_others` with a stage other than Staging and Production.
    """
    if archive_others and stage not in (Stage.STAGING, Stage.PRODUCTION):
        raise UsageError(
            f"versions in stage {stage.value!r} are not archived for another one: "
            "archive_others goes with Staging and Production"
        )


def check_finish_logged(status: LoggedModelStatus) -> None:
    """Refuse to finish a logged model as one that is not.

    Raises:
        UsageError: The status is PENDING.
    """
    if status is LoggedModelStatus.PENDING:
        raise UsageError(
            f"a logged model is not finished as {status}: "
            f"give {LoggedModelStatus.READY} or {LoggedModelStatus.UPLOAD_FAILED}"
        )


def check_alias_target(version: ModelVersion) -> None:
    """Refuse to point an alias at a version whose bytes are not all there.

    Raises:
        InvalidStateError: The version is not READY.
    """
    if version.status is not VersionStatus.READY:
        why = f" ({version.status_message})" if version.status_message else ""
        raise InvalidStateError(
            f"version {version.version} of model {version.name!r} is {version.status}{why}: "
            "an alias points at READY versions only"
        )


def metric_order(metric: Metric) -> tuple[int, int, bool, float]:
    """What points of one metric are ordered by; NaN comes before every number."""
    is_number = not math.isnan(metric.value)
    return metric.step, metric.timestamp_ms, is_number, metric.value if is_number else 0.0


PointKey = tuple[int, int, bool, float, str, str]


def point_key(metric: Metric) -> PointKey:
    """What points of one metric of a run, or of a logged model, are told apart by."""
    return (*metric_order(metric), metric.dataset_name, metric.dataset_digest)


def model_point_order(metric: Metric) -> tuple[str, PointKey]:
    """What the metrics of a logged model are ordered by."""
    return metric.key, point_key(metric)


def dataset_key(used: DatasetInput) -> tuple[str, str]:
    """What datasets of an experiment are told apart by; those of a run are in this order."""
    return used.dataset.name, used.dataset.digest


def context_of(used: DatasetInput) -> DatasetInput:
    """A dataset with no other tag than the one that says what it was used for, if it says it."""
    context = used.tags.get(CONTEXT_TAG)
    return DatasetInput(used.dataset, {CONTEXT_TAG: context} if context else {})


def use_order(experiment_id: str, used: DatasetInput) -> tuple[int, str, str, str]:
    """What uses of datasets are ordered by and told apart."""
    return int(experiment_id), *dataset_key(used), used.tags.get(CONTEXT_TAG, "")


def is_in_view(stage: LifecycleStage, view: View) -> bool:
    """Whether a search looks at records of this stage."""
    wanted = View.ACTIVE_ONLY if stage is LifecycleStage.ACTIVE else View.DELETED_ONLY
    return view in (View.ALL, wanted)


def output_order(model: ModelOutput) -> tuple[int, str]:
    """What the models that a run made are ordered by."""
    return model.step, model.model_id


def logged_model_place(experiment: Experiment, model_id: str) -> str:
    """Where a logged model's files lie, as MLflow's clients expect it."""
    return f"{experiment.artifact_location}/models/{model_id}/artifacts"


def latest_points(points: Iterable[Metric]) -> dict[str, Metric]:
    """The last point of each key, by `metric_order`."""
    latest: dict[str, Metric] = {}
    for point in points:
        held = latest.get(point.key)
        if held is None or metric_order(point) > metric_order(held):
            latest[point.key] = point
    return latest


def experiment_exists(name: str) -> RecordExistsError:
    """The error for an experiment name that is taken."""
    return RecordExistsError(
        f"experiment {name!r} exists already, maybe deleted: use it, or choose another name"
    )


def no_experiment(experiment_id: str) -> RecordNotFoundError:
    """The error for an unknown experiment id."""
    return RecordNotFoundError(
        f"there is no experiment with id {shown(experiment_id)}; "
        "`sparkscore experiments list` shows them"
    )


def no_run(run_id: str) -> RecordNotFoundError:
    """The error for an unknown run id."""
    return RecordNotFoundError(
        f"there is no run with id {shown(run_id)}; `sparkscore runs list` shows them"
    )


def no_tag(owner: str, key: str, known: Iterable[str]) -> RecordNotFoundError:
    """The error for an unknown tag of `owner`, which is as messages call it."""
    keys = sorted(known)
    return RecordNotFoundError(
        f"No tag with name {shown(key)} in {owner}{nearest(key, keys)}; it has {listed(keys)}"
    )


def logged_model_exists(model_id: str) -> RecordExistsError:
    """The error for the id of a logged model that is taken."""
    return RecordExistsError(
        f"logged model {model_id!r} exists already, maybe deleted: choose another id"
    )


def no_logged_model(model_id: str) -> RecordNotFoundError:
    """The error for an unknown logged model."""
    return RecordNotFoundError(
        f"there is no logged model with id {shown(model_id)}, or it is deleted; "
        "a search of its experiment's logged models shows them"
    )


def deleted_run(run_id: str) -> InvalidStateError:
    """The error for a write to a deleted run."""
    return InvalidStateError(
        f"run {run_id!r} must be in the 'active' state, but is deleted: restore it, or choose "
        "another"
    )


def model_exists(name: str) -> RecordExistsError:
    """The error for a model name that is taken."""
    return RecordExistsError(f"registered model {name!r} exists already: choose another name")


def no_model(name: str, known: Iterable[str]) -> RecordNotFoundError:
    """The error for an unknown model name."""
    return RecordNotFoundError(
        f"there is no registered model {name!r}{nearest(name, known)}; "
        "`sparkscore models list` shows them"
    )


def no_version(name: str, version: int, known: Sequence[int]) -> RecordNotFoundError:
    """The error for an unknown version of a known model."""
    return RecordNotFoundError(f"model {name!r} has no version {version}; it has {listed(known)}")


def no_alias(name: str, alias: str, known: Sequence[str]) -> RecordNotFoundError:
    """The error for an unknown alias of a known model."""
    return RecordNotFoundError(
        f"model {name!r} has no alias {alias!r}{nearest(alias, known)}; it has {listed(known)}"
    )
