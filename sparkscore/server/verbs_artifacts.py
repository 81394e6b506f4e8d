"""What the routes of files do that answer with JSON; the bytes themselves are `artifact_bytes`'."""

from __future__ import annotations

import sparkscore
from sparkscore.names import parse_run_id
from sparkscore.server.artifact_places import below, parse_safe_path, relative_to, served_place
from sparkscore.server.calls import RefusedError, Served, Verb
from sparkscore.server.immutable import check_deletable
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, file_to_json, page_to_json
from sparkscore.wire.statuses import Fault

_NO_LINKS = (
    "Presigned URLs are not supported by this server: ask it for the file itself, which is "
    "streamed whatever its size"
)


def list_artifacts(served: Served, given: Given) -> Json:
    """Files of a run, with paths below the run's root."""
    run = served.runs.get_run(parse_run_id(given.text("run_id")))
    return _listed(served, run.artifact_uri, given.text("path"))


def list_logged_model_artifacts(served: Served, given: Given) -> Json:
    """Files of a logged model, with paths below its root."""
    model = served.logged_models.get_logged_model(given.text("model_id"))
    return _listed(served, model.artifact_uri, given.text("artifact_directory_path"))


def list_stored_artifacts(served: Served, given: Given) -> Json:
    """Files of a folder of the store, each by its bare name."""
    folder = parse_safe_path(given.text("path").strip("/"))
    found = served.artifacts.list(folder)
    files = [file_to_json(item, relative_to(folder, item.path)) for item in found]
    return page_to_json("files", files, None)


def delete_stored_artifact(served: Served, given: Given) -> Json:
    """Remove a file or a folder."""
    path = parse_safe_path(given.text("path").strip("/"))
    check_deletable(served, path)
    served.artifacts.delete(path)
    return {}


def get_server_info(served: Served, given: Given) -> Json:  # noqa: ARG001 - a verb's signature
    """What this server can do; clients ask before large transfers."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
        "sparkscore_version": sparkscore.__version__,
    }


def refuse_link(served: Served, given: Given) -> Json:  # noqa: ARG001 - a verb's signature
    """Tell a client to ask for the file itself."""
    raise RefusedError(Fault("NOT_IMPLEMENTED", _NO_LINKS))


def _listed(served: Served, uri: str, path: str) -> Json:
    root = served_place(served.artifacts, uri)
    found = served.artifacts.list(below(root, path.strip("/")))
    files = [file_to_json(item, relative_to(root, item.path)) for item in found]
    return {"root_uri": uri, **page_to_json("files", files, None)}


VERBS: dict[str, Verb] = {
    "list_artifacts": list_artifacts,
    "list_logged_model_artifacts": list_logged_model_artifacts,
    "list_stored_artifacts": list_stored_artifacts,
    "delete_stored_artifact": delete_stored_artifact,
    "get_server_info": get_server_info,
    "get_presigned_url": refuse_link,
    "get_presigned_upload_url": refuse_link,
    "get_presigned_download_url": refuse_link,
}
