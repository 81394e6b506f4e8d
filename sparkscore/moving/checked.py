"""What of a foreign record can be kept: the rest is left out by name, and nothing is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from sparkscore.errors import InvalidNameError, SparkscoreError, shown
from sparkscore.names import (
    parse_alias,
    parse_experiment_name,
    parse_model_name,
    parse_record_key,
    parse_run_id,
)
from sparkscore.records import (
    DatasetInput,
    Experiment,
    LoggedModel,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
)
from sparkscore.stores import rules
from sparkscore.stores.copies_base import Refuse, RunPoint

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


def kept_experiment(experiment: Experiment, refuse: Refuse) -> Experiment | None:
    """The experiment with those of its tags that can be kept, or None."""
    try:
        parse_experiment_name(experiment.name)
        _check_times(experiment.creation_time_ms, experiment.last_update_time_ms)
    except SparkscoreError as exc:
        refuse("experiment", experiment.experiment_id, str(exc))
        return None
    owner = experiment.experiment_id
    return replace(experiment, tags=_pairs(experiment.tags, "experiment tag", owner, refuse))


def kept_run(run: Run, refuse: Refuse) -> Run | None:
    """The run with those of its params, tags and inputs that can be kept, or None."""
    try:
        parse_run_id(run.run_id)
        rules.check_new_run(run.run_name, run.user_id, run.start_time_ms, None)
        _check_times(run.end_time_ms or 0)
        rules.check_outputs(run.model_outputs)
        rules.check_inputs((), run.model_inputs)
    except SparkscoreError as exc:
        refuse("run", run.run_id, str(exc))
        return None
    return replace(
        run,
        params=_pairs(run.params, "param", run.run_id, refuse),
        tags=_pairs(run.tags, "tag", run.run_id, refuse),
        datasets=tuple(_datasets(run, refuse)),
    )


def kept_points(points: Iterable[RunPoint], refuse: Refuse) -> Iterator[RunPoint]:
    """Those of the points that can be kept."""
    for it in points:
        fault = _fault_of(it.point)
        if fault is None:
            yield it
        else:
            refuse("metric point", f"{it.run_id}/{it.point.key}", fault)


def kept_logged_model(model: LoggedModel, refuse: Refuse) -> LoggedModel | None:
    """The logged model with what of it can be kept, or None."""
    try:
        rules.check_new_logged_model(
            model.model_id, model.name, model.model_type, model.source_run_id, None, None
        )
        _check_times(model.creation_time_ms, model.last_update_time_ms)
    except SparkscoreError as exc:
        refuse("logged model", model.model_id, str(exc))
        return None
    of_model = (RunPoint(model.model_id, replace(it, model_id="")) for it in model.metrics)
    return replace(
        model,
        params=_pairs(model.params, "param", model.model_id, refuse),
        tags=_pairs(model.tags, "tag", model.model_id, refuse),
        metrics=tuple(it.point for it in kept_points(of_model, refuse)),
    )


def kept_model(model: RegisteredModel, refuse: Refuse) -> RegisteredModel | None:
    """The registered model with what of it can be kept, or None."""
    try:
        parse_model_name(model.name)
        rules.check_description(model.description)
        _check_times(model.creation_time_ms, model.last_update_time_ms)
    except SparkscoreError as exc:
        refuse("registered model", model.name, str(exc))
        return None
    aliases: dict[str, int] = {}
    for alias, number in model.aliases.items():
        try:
            aliases[parse_alias(alias)] = number
        except InvalidNameError as exc:
            refuse("alias", f"{model.name}@{alias}", str(exc))
    tags = _pairs(model.tags, "model tag", model.name, refuse)
    return replace(model, tags=tags, aliases=aliases)


def kept_version(version: ModelVersion, refuse: Refuse) -> ModelVersion | None:
    """The version with those of its tags that can be kept, or None."""
    name = f"{version.name}/{version.version}"
    links = {
        "source": version.source,
        "run link": version.run_link,
        "run id": version.run_id,
        "user id": version.user_id,
    }
    try:
        rules.check_new_version(version.description, None, links, version.model_id)
        _check_times(version.creation_time_ms, version.last_update_time_ms)
    except SparkscoreError as exc:
        refuse("model version", name, str(exc))
        return None
    return replace(version, tags=_pairs(version.tags, "version tag", name, refuse))


def _pairs(pairs: Mapping[str, str], kind: str, owner: str, refuse: Refuse) -> dict[str, str]:
    kept: dict[str, str] = {}
    for key, value in pairs.items():
        fault = _fault_of_key(key, kind)
        if fault is None and _UNUSABLE.search(value):
            fault = f"the value of {kind} {key!r} holds a NUL or half a surrogate pair"
        if fault is None:
            kept[key] = value
        else:
            refuse(kind, f"{owner}/{key}", fault)
    return kept


@lru_cache(maxsize=10_000)
def _fault_of_key(key: str, kind: str) -> str | None:
    """What is wrong with a key; the same ones come with every run."""
    try:
        parse_record_key(key, kind)
    except InvalidNameError as exc:
        return str(exc)
    return None


def _fault_of(point: Metric) -> str | None:
    fault = _fault_of_key(point.key, "metric")
    if fault is None and (point.step not in _INT64 or point.timestamp_ms not in _INT64):
        fault = f"a step or time of metric {point.key!r} needs more than 64 bits"
    if fault is None and (point.dataset_name or point.dataset_digest):
        try:
            rules.check_batch([point], None, None)
        except SparkscoreError as exc:
            fault = str(exc)
    return fault


def _datasets(run: Run, refuse: Refuse) -> Iterator[DatasetInput]:
    seen: set[tuple[str, str]] = set()
    for item in run.datasets:
        try:
            rules.check_inputs([item], ())
        except SparkscoreError as exc:
            refuse("dataset", f"{run.run_id}/{item.dataset.name}", str(exc))
            continue
        if rules.dataset_key(item) not in seen:
            seen.add(rules.dataset_key(item))
            yield item


def _check_times(*times_ms: int) -> None:
    for time_ms in times_ms:
        rules.check_int64(time_ms, f"time {shown(time_ms)}")
