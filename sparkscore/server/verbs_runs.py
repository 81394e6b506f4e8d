"""What the routes of runs do."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

from sparkscore.errors import UsageError, shown
from sparkscore.names import RunId, parse_run_id
from sparkscore.records import Metric, RunStatus
from sparkscore.search import RUNS
from sparkscore.server.calls import Served, Verb
from sparkscore.server.queries import read_query
from sparkscore.server.run_names import random_name
from sparkscore.stores.rules import (
    DEFAULT_EXPERIMENT_ID,
    MAX_PARAM_CHARS,
    MAX_RUN_TAG_CHARS,
    RUN_NAME_TAG,
)
from sparkscore.wire.json_to_records import dataset_input_of, metric_of, model_output_of
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import (
    Json,
    page_to_json,
    run_info_to_json,
    run_to_json,
)

_MAX_ENTITIES = 1000
_HISTORY_TAG = "mlflow.log-model.history"
_CUT_TAG = "sparkscore.cut"
_NEEDED_OF_MODEL = ("artifact_path", "flavors", "utc_time_created", "run_id")


def create_run(served: Served, given: Given) -> Json:
    """A new RUNNING run; one without a name gets one."""
    tags = given.pairs("tags")
    name, tagged = given.text("run_name"), tags.get(RUN_NAME_TAG, "")
    chosen_id = given.text("run_id")  # by our own clients, who say all that they want
    if name and tagged and name != tagged and not chosen_id:
        raise UsageError(
            f"run_name is {shown(name)}, but the tag {RUN_NAME_TAG!r} is {shown(tagged)}: "
            "give one of them"
        )
    if not chosen_id:
        name = name or tagged or random_name()
        tags[RUN_NAME_TAG] = name
    run = served.runs.create_run(
        given.text("experiment_id") or DEFAULT_EXPERIMENT_ID,
        run_id=parse_run_id(chosen_id or uuid.uuid4().hex),
        run_name=name,
        user_id=given.text("user_id"),
        start_time_ms=given.whole("start_time", served.clock()),
        tags=_cut_tags(served, tags),
    )
    return {"run": run_to_json(run)}


def update_run(served: Served, given: Given) -> Json:
    """Set a run's status, end and name, those that are given."""
    run_id = _run_id(given)
    if given.text("run_name"):
        run = served.runs.rename_run(run_id, given.text("run_name"))
    else:
        run = served.runs.get_run(run_id)
    if "status" in given or "end_time" in given:
        status = RunStatus(given.text("status", run.status))
        has_ended = status not in (RunStatus.RUNNING, RunStatus.SCHEDULED)
        end = given.whole_or_none("end_time")
        if end is None and has_ended:
            end = run.end_time_ms
        run = served.runs.update_run(run_id, status, end)
    return {"run_info": run_info_to_json(run)}


def get_run(served: Served, given: Given) -> Json:
    """A run with all that it recorded."""
    return {"run": run_to_json(served.runs.get_run(_run_id(given)))}


def delete_run(served: Served, given: Given) -> Json:
    """Mark a run as deleted."""
    served.runs.delete_run(_run_id(given))
    return {}


def restore_run(served: Served, given: Given) -> Json:
    """Make a run active again."""
    served.runs.restore_run(_run_id(given))
    return {}


def log_metric(served: Served, given: Given) -> Json:
    """Add one point of a metric."""
    served.runs.log_batch(_run_id(given), metrics=[metric_of(given)])
    return {}


def log_param(served: Served, given: Given) -> Json:
    """Add one param."""
    _log(served, _run_id(given), params={given.text("key"): given.text("value")})
    return {}


def set_tag(served: Served, given: Given) -> Json:
    """Set one tag."""
    _log(served, _run_id(given), tags={given.text("key"): given.text("value")})
    return {}


def delete_tag(served: Served, given: Given) -> Json:
    """Remove one tag."""
    served.runs.delete_run_tag(_run_id(given), given.text("key"))
    return {}


def log_batch(served: Served, given: Given) -> Json:
    """Add metrics, params and tags, all or nothing."""
    metrics = [metric_of(item) for item in given.each("metrics")]
    params = _params(given.each("params"))
    tags = given.pairs("tags")
    n_entities = len(metrics) + len(params) + len(tags)
    if n_entities > _MAX_ENTITIES:
        raise UsageError(
            f"A batch logging request can contain at most {_MAX_ENTITIES} entities. "
            f"Got {n_entities}: split them over several requests"
        )
    _log(served, _run_id(given), metrics=metrics, params=params, tags=tags)
    return {}


def log_model(served: Served, given: Given) -> Json:
    """Add a model's description to those that the run's tag holds, as clients of 2.x ask for."""
    run_id = _run_id(given)
    described = _model_json(given.text("model_json"))
    held = served.runs.get_run(run_id).tags.get(_HISTORY_TAG, "[]")
    served.runs.log_batch(run_id, tags={_HISTORY_TAG: _history(held, described)})
    return {}


def log_inputs(served: Served, given: Given) -> Json:
    """Add datasets and logged models that a run used."""
    served.runs.log_inputs(
        _run_id(given),
        datasets=[dataset_input_of(item) for item in given.each("datasets")],
        model_ids=[item.text("model_id") for item in given.each("models")],
    )
    return {}


def log_outputs(served: Served, given: Given) -> Json:
    """Add logged models that a run made."""
    models = [model_output_of(item) for item in given.each("models")]
    served.runs.log_outputs(_run_id(given), models)
    return {}


def search_runs(served: Served, given: Given) -> Json:
    """One page of runs."""
    query = read_query(given, RUNS, default_limit=1000, view="run_view_type")
    page = served.runs.search_runs(given.texts("experiment_ids"), query)
    return page_to_json("runs", map(run_to_json, page.items), page.next_token)


def _run_id(given: Given) -> RunId:
    return parse_run_id(given.text("run_id"))


def _params(items: Sequence[Given]) -> dict[str, str]:
    params: dict[str, str] = {}
    for item in items:
        key, value = item.text("key"), item.text("value")
        if params.setdefault(key, value) != value:
            raise UsageError(
                f"Changing param values is not allowed: param {key!r} is in the request as "
                f"{shown(params[key])} and as {shown(value)}: give it once"
            )
    return params


def _log(
    served: Served,
    run_id: RunId,
    metrics: Sequence[Metric] = (),
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    name = (tags or {}).get(RUN_NAME_TAG)
    kept = _cut_params(served, params or {})
    all_tags = _cut_tags(served, tags or {})
    if kept != (params or {}):
        named = ", ".join(sorted(key for key in kept if kept[key] != (params or {})[key]))
        all_tags[_CUT_TAG] = named[:MAX_RUN_TAG_CHARS]
    served.runs.log_batch(run_id, metrics=metrics, params=kept, tags=all_tags)
    if name:
        served.runs.rename_run(run_id, name)


def _cut_params(served: Served, params: dict[str, str]) -> dict[str, str]:
    if not served.settings.cut_long_values:
        return params
    return {key: value[:MAX_PARAM_CHARS] for key, value in params.items()}


def _cut_tags(served: Served, tags: dict[str, str]) -> dict[str, str]:
    if not served.settings.cut_long_values:
        return dict(tags)
    cut = {key: value[:MAX_RUN_TAG_CHARS] for key, value in tags.items()}
    named = ", ".join(sorted(key for key in cut if cut[key] != tags[key]))
    return {**cut, _CUT_TAG: named[:MAX_RUN_TAG_CHARS]} if named else cut


def _history(held: str, described: dict[str, object]) -> str:
    """The tag with one more description; what does not fit goes, the oldest first."""
    history = [*_listed(held), described]
    while len(history) > 1 and len(json.dumps(history)) > MAX_RUN_TAG_CHARS:
        history.pop(0)
    text = json.dumps(history)
    if len(text) > MAX_RUN_TAG_CHARS:
        # A signature of many columns; what a reader of the tag looks for are these.
        needed = {name: described[name] for name in _NEEDED_OF_MODEL if name != "flavors"}
        text = json.dumps([{**needed, "flavors": {}}])
    return text


def _listed(held: str) -> list[object]:
    try:
        history: object = json.loads(held)
    except (ValueError, RecursionError):
        return []  # somebody wrote something else into the tag
    return history if isinstance(history, list) else []


def _model_json(text: str) -> dict[str, object]:
    try:
        described: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"Malformed model info. \n {shown(text)} \n is no JSON: {exc}") from exc
    missing = [
        name
        for name in _NEEDED_OF_MODEL
        if not isinstance(described, dict) or name not in described
    ]
    if not isinstance(described, dict) or missing:
        raise UsageError(f"Model json is missing mandatory fields: {', '.join(missing)}")
    return described


VERBS: dict[str, Verb] = {
    "create_run": create_run,
    "update_run": update_run,
    "get_run": get_run,
    "delete_run": delete_run,
    "restore_run": restore_run,
    "log_metric": log_metric,
    "log_param": log_param,
    "set_tag": set_tag,
    "delete_tag": delete_tag,
    "log_batch": log_batch,
    "log_model": log_model,
    "log_inputs": log_inputs,
    "log_outputs": log_outputs,
    "search_runs": search_runs,
}
