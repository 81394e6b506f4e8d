"""What each route asks of its caller: a role for what it is about. No route is without a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from sparkscore.accounts import EVERYTHING, Resource, Role
from sparkscore.errors import RecordNotFoundError
from sparkscore.names import ExperimentName, parse_run_id
from sparkscore.server.artifact_places import parse_safe_path
from sparkscore.server.calls import Served
from sparkscore.stores.rules import DEFAULT_EXPERIMENT_ID
from sparkscore.wire.reading import Given

Need = tuple[Resource, str, Role]
"""A role that the caller must have for a resource."""

Decision = Callable[[Served, Given], Iterable[Need]]
"""All that a call needs; nothing: whoever has signed in may make it."""

_EXPERIMENT, _MODEL = Resource.EXPERIMENT, Resource.MODEL


def _anybody(_: Served, __: Given) -> Iterable[Need]:
    return ()


def _experiment(role: Role, _: Served, given: Given) -> Iterable[Need]:
    yield _EXPERIMENT, given.text("experiment_id") or DEFAULT_EXPERIMENT_ID, role


def _experiment_by_name(role: Role, served: Served, given: Given) -> Iterable[Need]:
    found = served.runs.find_experiment(ExperimentName(given.text("experiment_name")))
    if found is not None:  # else there is nothing to hide
        yield _EXPERIMENT, found.experiment_id, role


def _experiments(role: Role, _: Served, given: Given) -> Iterable[Need]:
    for experiment_id in given.texts("experiment_ids"):
        yield _EXPERIMENT, experiment_id, role


def _run(role: Role, served: Served, given: Given) -> Iterable[Need]:
    if given.text("run_id"):
        yield _of_run(role, served, given.text("run_id"))


def _runs(role: Role, served: Served, given: Given) -> Iterable[Need]:
    for field in ("run_id", "run_ids"):
        if field in given:
            yield from (_of_run(role, served, run_id) for run_id in given.texts(field))


def _run_and_models(role: Role, served: Served, given: Given) -> Iterable[Need]:
    yield from _run(role, served, given)
    named = {given.text("model_id")}
    named |= {
        item.text("model_id") for field in ("metrics", "models") for item in given.each(field)
    }
    for model_id in sorted(named - {""}):
        yield _of_logged_model(role, served, model_id)


def _logged_model(role: Role, served: Served, given: Given) -> Iterable[Need]:
    yield _of_logged_model(role, served, given.text("model_id"))


def _run_or_logged_model(role: Role, served: Served, given: Given) -> Iterable[Need]:
    yield from _run(role, served, given)
    if given.text("model_id"):
        yield from _logged_model(role, served, given)


def _path(field: str, role: Role, served: Served, given: Given) -> Iterable[Need]:
    """Files lie below the id of their experiment; what lies elsewhere is of all experiments."""
    first = parse_safe_path(given.text(field).strip("/")).partition("/")[0]
    known = first and _is_experiment(served, first)
    yield _EXPERIMENT, first if known else EVERYTHING, role


def _model(role: Role, _: Served, given: Given) -> Iterable[Need]:
    yield _MODEL, given.text("name"), role


def _all_models(role: Role, _: Served, __: Given) -> Iterable[Need]:
    yield _MODEL, EVERYTHING, role


def _new_version(served: Served, given: Given) -> Iterable[Need]:
    yield from _model(Role.REGISTER, served, given)
    yield from _run_or_logged_model(Role.READ, served, given)
    source = given.text("source")
    if source.startswith("mlflow-artifacts:"):
        inside = source.partition(":")[2].lstrip("/")
        yield from _path("path", Role.READ, served, Given({"path": inside}))


def _of_run(role: Role, served: Served, run_id: str) -> Need:
    return _EXPERIMENT, served.runs.get_run(parse_run_id(run_id)).experiment_id, role


def _of_logged_model(role: Role, served: Served, model_id: str) -> Need:
    model = served.logged_models.get_logged_model(model_id, allow_deleted=True)
    return _EXPERIMENT, model.experiment_id, role


def _is_experiment(served: Served, text: str) -> bool:
    try:
        served.runs.get_experiment(text)
    except RecordNotFoundError:
        return False
    return True


def _all(
    decide: Callable[[Role, Served, Given], Iterable[Need]], role: Role, *names: str
) -> Mapping[str, Decision]:
    return dict.fromkeys(names, partial(decide, role))


DECISIONS: Mapping[str, Decision] = {
    # Whoever makes a new one is its administrator; lists leave out what may not be read.
    **dict.fromkeys(
        (
            "create_experiment",
            "create_registered_model",
            "get_server_info",
            "search_experiments",
            "search_registered_models",
            "search_versions",
        ),
        _anybody,
    ),
    **_all(_experiment, Role.READ, "get_experiment"),
    **_all(_experiment_by_name, Role.READ, "get_experiment_by_name"),
    **_all(_experiments, Role.READ, "search_runs", "search_datasets", "search_logged_models"),
    **_all(_experiment, Role.LOG, "create_run", "create_logged_model"),
    **_all(
        _experiment,
        Role.ADMIN,
        "delete_experiment",
        "restore_experiment",
        "update_experiment",
        "set_experiment_tag",
        "delete_experiment_tag",
        "purge_experiment",
    ),
    **_all(_run, Role.READ, "get_run", "get_metric_history", "list_artifacts", "get_run_artifact"),
    **_all(_runs, Role.READ, "get_metric_history_bulk", "get_metric_history_bulk_interval"),
    **_all(
        _run,
        Role.LOG,
        "update_run",
        "delete_run",
        "restore_run",
        "log_param",
        "set_tag",
        "delete_tag",
        "log_model",
        "log_inputs",
        "upload_run_artifact",
    ),
    **_all(_run_and_models, Role.LOG, "log_metric", "log_batch", "log_outputs"),
    **_all(_run, Role.ADMIN, "purge_run"),
    **_all(
        _logged_model,
        Role.READ,
        "get_logged_model",
        "list_logged_model_artifacts",
        "get_logged_model_artifact",
    ),
    **_all(
        _logged_model,
        Role.LOG,
        "finish_logged_model",
        "delete_logged_model",
        "set_logged_model_tags",
        "delete_logged_model_tag",
        "log_logged_model_params",
    ),
    **_all(_logged_model, Role.ADMIN, "purge_logged_model"),
    **_all(_run_or_logged_model, Role.READ, "get_presigned_download_url"),
    **_all(_run_or_logged_model, Role.LOG, "get_presigned_upload_url"),
    **_all(partial(_path, "path"), Role.READ, "list_stored_artifacts", "get_stored_artifact"),
    **_all(partial(_path, "path"), Role.LOG, "put_stored_artifact", "delete_stored_artifact"),
    **_all(partial(_path, "path"), Role.LOG, "put_artifact_part"),
    **_all(partial(_path, "folder"), Role.READ, "get_presigned_url"),
    **_all(
        partial(_path, "folder"),
        Role.LOG,
        "start_multipart_upload",
        "complete_multipart_upload",
        "abort_multipart_upload",
    ),
    **_all(
        _model,
        Role.READ,
        "get_registered_model",
        "get_latest_versions",
        "get_version",
        "get_version_by_alias",
        "get_download_uri",
        "get_version_artifact",
    ),
    "create_version": _new_version,
    **_all(
        _model,
        Role.REGISTER,
        "update_registered_model",
        "set_registered_model_tag",
        "delete_registered_model_tag",
        "update_version",
        "set_version_tag",
        "delete_version_tag",
    ),
    **_all(_model, Role.PROMOTE, "set_alias", "delete_alias", "move_version"),
    **_all(
        _model,
        Role.ADMIN,
        "rename_registered_model",
        "delete_registered_model",
        "delete_version",
    ),
    # They tell of all models, and have this server send requests.
    **_all(
        _all_models,
        Role.ADMIN,
        "create_webhook",
        "list_webhooks",
        "get_webhook",
        "update_webhook",
        "delete_webhook",
        "test_webhook",
    ),
}
