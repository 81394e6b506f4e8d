"""What the routes of logged models do."""

from __future__ import annotations

import uuid

from sparkscore.records import LoggedModelStatus
from sparkscore.search import LOGGED_MODELS
from sparkscore.server.calls import Served, Verb
from sparkscore.server.queries import read_model_query
from sparkscore.server.run_names import random_name
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, logged_model_to_json, page_to_json


def create_logged_model(served: Served, given: Given) -> Json:
    """A new PENDING logged model, under an id of the server's unless our client chose one."""
    model = served.logged_models.create_logged_model(
        given.text("experiment_id"),
        model_id=given.text("model_id") or f"m-{uuid.uuid4().hex}",
        name=given.text("name") or random_name(),
        model_type=given.text("model_type"),
        source_run_id=given.text("source_run_id"),
        params=given.pairs("params"),
        tags=given.pairs("tags"),
    )
    return {"model": logged_model_to_json(model)}


def get_logged_model(served: Served, given: Given) -> Json:
    """A logged model by its id."""
    model = served.logged_models.get_logged_model(
        given.text("model_id"), allow_deleted=given.flag("allow_deleted")
    )
    return {"model": logged_model_to_json(model)}


def search_logged_models(served: Served, given: Given) -> Json:
    """One page of logged models."""
    page = served.logged_models.search_logged_models(
        given.texts("experiment_ids"),
        read_model_query(given, LOGGED_MODELS, default_limit=100),
        datasets=[
            (item.text("dataset_name"), item.text("dataset_digest"))
            for item in given.each("datasets")
        ],
    )
    return page_to_json("models", map(logged_model_to_json, page.items), page.next_token)


def finish_logged_model(served: Served, given: Given) -> Json:
    """Mark a logged model as READY or UPLOAD_FAILED."""
    model = served.logged_models.finish_logged_model(
        given.text("model_id"), LoggedModelStatus(given.text("status"))
    )
    return {"model": logged_model_to_json(model)}


def delete_logged_model(served: Served, given: Given) -> Json:
    """Mark a logged model as deleted."""
    served.logged_models.delete_logged_model(given.text("model_id"))
    return {}


def set_logged_model_tags(served: Served, given: Given) -> Json:
    """Set tags of a logged model."""
    model_id = given.text("model_id")
    served.logged_models.set_logged_model_tags(model_id, given.pairs("tags"))
    return {"model": logged_model_to_json(served.logged_models.get_logged_model(model_id))}


def delete_logged_model_tag(served: Served, given: Given) -> Json:
    """Remove a tag of a logged model."""
    served.logged_models.delete_logged_model_tag(given.text("model_id"), given.text("tag_key"))
    return {}


def log_logged_model_params(served: Served, given: Given) -> Json:
    """Add params to a logged model."""
    served.logged_models.log_logged_model_params(given.text("model_id"), given.pairs("params"))
    return {}


VERBS: dict[str, Verb] = {
    "create_logged_model": create_logged_model,
    "get_logged_model": get_logged_model,
    "search_logged_models": search_logged_models,
    "finish_logged_model": finish_logged_model,
    "delete_logged_model": delete_logged_model,
    "set_logged_model_tags": set_logged_model_tags,
    "delete_logged_model_tag": delete_logged_model_tag,
    "log_logged_model_params": log_logged_model_params,
}
