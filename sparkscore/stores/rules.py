"""Rules that every store keeps, whatever it keeps records in: limits, immutability, order.

The limits are MLflow's. A value over its limit is refused, not cut: a record that was shortened
silently is a wrong record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sparkscore.errors import (
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
    listed,
    nearest,
    shown,
)
from sparkscore.names import parse_record_key
from sparkscore.records import (
    Experiment,
    LifecycleStage,
    Metric,
    ModelVersion,
    Run,
    VersionStatus,
)

DEFAULT_EXPERIMENT_ID = "0"
DEFAULT_EXPERIMENT_NAME = "Default"

MAX_PARAM_CHARS = 6000
MAX_RUN_TAG_CHARS = 8000
MAX_EXPERIMENT_TAG_CHARS = 20_000
MAX_REGISTRY_TAG_CHARS = 100_000
_MAX_DESCRIPTION_CHARS = 5000
_MAX_NAME_CHARS = 500
_MAX_LOCATION_CHARS = 2048
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
    for key, value in (params or {}).items():
        parse_record_key(key, "param")
        check_text(value, f"the value of param {key!r}", MAX_PARAM_CHARS)
    check_tags(tags, MAX_RUN_TAG_CHARS)


def check_int64(number: int, noun: str) -> None:
    """Refuse a number that no database column holds.

    Raises:
        UsageError: It needs more than 64 bits.
    """
    if number not in _INT64:
        raise UsageError(f"{noun} is {shown(number)}, which needs more than 64 bits")


def check_params_kept(run_id: str, known: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse to change a param that a run has.

    Raises:
        InvalidStateError: A param is known with another value.
    """
    for key, value in new.items():
        if known.get(key, value) != value:
            raise InvalidStateError(
                f"param {key!r} is already {shown(known[key])} in run {run_id!r} and cannot become "
                f"{shown(value)}: params never change; start a new run, or set a tag"
            )


def check_active(record: Experiment | Run) -> None:
    """Refuse to write to a deleted experiment or run.

    Raises:
        InvalidStateError: It is deleted.
    """
    if record.lifecycle_stage is LifecycleStage.ACTIVE:
        return
    what = f"run {record.run_id!r}" if isinstance(record, Run) else f"experiment {record.name!r}"
    raise InvalidStateError(f"{what} is deleted and takes no writes: restore it or choose another")


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


def check_finish(version: ModelVersion, status: VersionStatus, digest: str) -> None:
    """Refuse to finish a version twice, or as READY without a digest.

    Raises:
        InvalidStateError: One of these.
    """
    what = f"version {version.version} of model {version.name!r}"
    if version.status is not VersionStatus.PENDING_REGISTRATION:
        raise InvalidStateError(
            f"{what} is {version.status} and never changes again: register a new version"
        )
    if status is VersionStatus.PENDING_REGISTRATION or (
        status is VersionStatus.READY and not digest
    ):
        raise InvalidStateError(
            f"{what} cannot become {status} with digest {digest!r}: "
            "give READY with a digest, or FAILED_REGISTRATION"
        )


def check_alias_target(version: ModelVersion) -> None:
    """Refuse to point an alias at a version whose bytes are not verified.

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
    """What points of one metric are ordered and told apart by; NaN comes before every number."""
    is_number = not math.isnan(metric.value)
    return metric.step, metric.timestamp_ms, is_number, metric.value if is_number else 0.0


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
