"""Routes of logged models, registered models and their versions."""

from __future__ import annotations

from sparkscore.wire.routes import Route
from sparkscore.wire.shapes import Member, Shape, each, enum, flag, int64, one, text, texts
from sparkscore.wire.shapes_of_records import (
    LOGGED_MODEL,
    LOGGED_MODEL_STATUS,
    NOTHING,
    PARAM,
    REGISTERED_MODEL,
    TAG,
    VERSION,
    VERSION_STATUS,
    VIEW,
)

_MODEL_ID = text("model_id", required=True)
_NAME = text("name", required=True)
_VERSION = text("version", required=True)
_KEY = text("key", required=True)
_VALUE = text("value", required=True, may_be_empty=True)
_TOKEN, _NEXT = text("page_token"), text("next_page_token")
_MODEL = Shape("LoggedModelAnswer", (one("model", LOGGED_MODEL),))
_REGISTERED = Shape("RegisteredModelAnswer", (one("registered_model", REGISTERED_MODEL),))
_ONE_VERSION = Shape("ModelVersionAnswer", (one("model_version", VERSION),))


def _search(name: str, max_results: int) -> Shape:
    return Shape(
        name,
        (
            text("filter"),
            int64("max_results", low=1, high=max_results),
            texts("order_by"),
            _TOKEN,
        ),
    )


def _of_model(name: str, *members: Member) -> Shape:
    return Shape(name, (_NAME, *members))


LOGGED_MODELS = (
    Route(
        "create_logged_model",
        "POST",
        "/logged-models",
        Shape(
            "CreateLoggedModel",
            (
                text("experiment_id", required=True),
                text("name"),
                text("model_type"),
                text("source_run_id"),
                each("params", PARAM, at_most=1000),
                each("tags", TAG, at_most=1000),
                text("model_id"),  # ours, as in create_run
            ),
        ),
        _MODEL,
    ),
    Route(
        "search_logged_models",
        "POST",
        "/logged-models/search",
        Shape(
            "SearchLoggedModels",
            (
                texts("experiment_ids"),
                text("filter"),
                each(
                    "datasets",
                    Shape(
                        "SearchedDataset",
                        (text("dataset_name", required=True), text("dataset_digest")),
                    ),
                ),
                int64("max_results", low=1, high=50_000),
                each(
                    "order_by",
                    Shape(
                        "LoggedModelOrder",
                        (
                            text("field_name", required=True),
                            flag("ascending"),
                            text("dataset_name"),
                            text("dataset_digest"),
                        ),
                    ),
                ),
                _TOKEN,
                enum("view_type", VIEW),  # ours: also those that are deleted
            ),
        ),
        Shape("SearchLoggedModelsAnswer", (each("models", LOGGED_MODEL), _NEXT)),
    ),
    Route(
        "get_logged_model",
        "GET",
        "/logged-models/{model_id}",
        Shape("GetLoggedModel", (_MODEL_ID, flag("allow_deleted"))),
        _MODEL,
    ),
    Route(
        "finish_logged_model",
        "PATCH",
        "/logged-models/{model_id}",
        Shape("FinishLoggedModel", (_MODEL_ID, enum("status", LOGGED_MODEL_STATUS, required=True))),
        _MODEL,
    ),
    Route(
        "delete_logged_model",
        "DELETE",
        "/logged-models/{model_id}",
        Shape("DeleteLoggedModel", (_MODEL_ID,)),
        NOTHING,
    ),
    Route(
        "set_logged_model_tags",
        "PATCH",
        "/logged-models/{model_id}/tags",
        Shape("SetLoggedModelTags", (_MODEL_ID, each("tags", TAG, at_most=1000))),
        _MODEL,
    ),
    Route(
        "delete_logged_model_tag",
        "DELETE",
        "/logged-models/{model_id}/tags/{tag_key:path}",
        Shape("DeleteLoggedModelTag", (_MODEL_ID, text("tag_key", required=True))),
        NOTHING,
    ),
    Route(
        "log_logged_model_params",
        "POST",
        "/logged-models/{model_id}/params",
        Shape("LogLoggedModelParams", (_MODEL_ID, each("params", PARAM, at_most=1000))),
        NOTHING,
    ),
)

REGISTERED_MODELS = (
    Route(
        "create_registered_model",
        "POST",
        "/registered-models/create",
        _of_model("CreateRegisteredModel", text("description"), each("tags", TAG)),
        _REGISTERED,
    ),
    Route(
        "rename_registered_model",
        "POST",
        "/registered-models/rename",
        _of_model("RenameRegisteredModel", text("new_name", required=True)),
        _REGISTERED,
    ),
    Route(
        "update_registered_model",
        "PATCH",
        "/registered-models/update",
        _of_model("UpdateRegisteredModel", text("description", may_be_empty=True)),
        _REGISTERED,
    ),
    Route(
        "delete_registered_model",
        "DELETE",
        "/registered-models/delete",
        _of_model("DeleteRegisteredModel"),
        NOTHING,
    ),
    Route(
        "get_registered_model",
        "GET",
        "/registered-models/get",
        _of_model("GetRegisteredModel"),
        _REGISTERED,
    ),
    Route(
        "search_registered_models",
        "GET",
        "/registered-models/search",
        _search("SearchRegisteredModels", 1000),
        Shape("SearchRegisteredModelsAnswer", (each("registered_models", REGISTERED_MODEL), _NEXT)),
        also=("POST",),  # R asks so
    ),
    Route(
        "get_latest_versions",
        "POST",
        "/registered-models/get-latest-versions",
        _of_model("GetLatestVersions", texts("stages")),
        Shape("GetLatestVersionsAnswer", (each("model_versions", VERSION),)),
        also=("GET",),
    ),
    Route(
        "set_registered_model_tag",
        "POST",
        "/registered-models/set-tag",
        _of_model("SetRegisteredModelTag", _KEY, _VALUE),
        NOTHING,
    ),
    Route(
        "delete_registered_model_tag",
        "DELETE",
        "/registered-models/delete-tag",
        _of_model("DeleteRegisteredModelTag", _KEY),
        NOTHING,
    ),
    Route(
        "set_alias",
        "POST",
        "/registered-models/alias",
        _of_model("SetAlias", text("alias", required=True), _VERSION),
        NOTHING,
    ),
    Route(
        "delete_alias",
        "DELETE",
        "/registered-models/alias",
        _of_model("DeleteAlias", text("alias", required=True)),
        NOTHING,
    ),
    Route(
        "get_version_by_alias",
        "GET",
        "/registered-models/alias",
        _of_model("GetVersionByAlias", text("alias", required=True)),
        _ONE_VERSION,
    ),
)

VERSIONS = (
    Route(
        "create_version",
        "POST",
        "/model-versions/create",
        _of_model(
            "CreateVersion",
            text("source", required=True),
            text("run_id"),
            each("tags", TAG),
            text("run_link"),
            text("description"),
            text("model_id"),
            # Ours: a version that is PENDING_REGISTRATION until update_version finishes it.
            enum("status", VERSION_STATUS),
            text("user_id"),
        ),
        _ONE_VERSION,
    ),
    Route(
        "update_version",
        "PATCH",
        "/model-versions/update",
        _of_model(
            "UpdateVersion",
            _VERSION,
            text("description", may_be_empty=True),
            # Ours: how a pending version ends.
            enum("status", VERSION_STATUS),
            text("source"),
            text("digest"),
            text("status_message"),
        ),
        _ONE_VERSION,
    ),
    Route(
        "delete_version",
        "DELETE",
        "/model-versions/delete",
        _of_model("DeleteVersion", _VERSION),
        NOTHING,
    ),
    Route(
        "get_version",
        "GET",
        "/model-versions/get",
        _of_model("GetVersion", _VERSION),
        _ONE_VERSION,
    ),
    Route(
        "search_versions",
        "GET",
        "/model-versions/search",
        _search("SearchVersions", 200_000),
        Shape("SearchVersionsAnswer", (each("model_versions", VERSION), _NEXT)),
    ),
    Route(
        "get_download_uri",
        "GET",
        "/model-versions/get-download-uri",
        _of_model("GetDownloadUri", _VERSION),
        Shape("GetDownloadUriAnswer", (text("artifact_uri"),)),
    ),
    Route(
        "set_version_tag",
        "POST",
        "/model-versions/set-tag",
        _of_model("SetVersionTag", _VERSION, _KEY, _VALUE),
        NOTHING,
    ),
    Route(
        "delete_version_tag",
        "DELETE",
        "/model-versions/delete-tag",
        _of_model("DeleteVersionTag", _VERSION, _KEY),
        NOTHING,
    ),
    Route(
        "move_version",
        "POST",
        "/model-versions/transition-stage",
        _of_model(
            "MoveVersion",
            _VERSION,
            text("stage", required=True),
            flag("archive_existing_versions"),
        ),
        _ONE_VERSION,
    ),
)
