"""Routes of files, and of the server itself."""

from __future__ import annotations

from sparkscore.wire.routes import Base, Route
from sparkscore.wire.routes_runs import RUN_ID
from sparkscore.wire.shapes import Shape, each, flag, int64, one, text
from sparkscore.wire.shapes_of_records import FILE, NOTHING

_MAX_PARTS = 10_000
_TOKEN, _NEXT = text("page_token"), text("next_page_token")

_UPLOAD = Shape(
    "MultipartUpload",
    (
        text("folder"),
        text("path", required=True),
        int64("num_parts", low=1, high=_MAX_PARTS),
    ),
)
_PART_PLACE = Shape("PlaceOfPart", (text("url"), int64("part_number")))
_STARTED = Shape("MultipartUploadAnswer", (text("upload_id"), each("credentials", _PART_PLACE)))
_PART = Shape(
    "PutArtifactPart",
    (
        text("path", required=True),
        text("upload_id", required=True),
        int64("part_number", low=1, high=_MAX_PARTS, required=True),
    ),
)
_PARTS = Shape("UploadedPart", (int64("part_number"), text("etag"), text("url")))
_FINISH = Shape(
    "FinishMultipartUpload",
    (
        text("folder"),
        text("path", required=True),
        text("upload_id", required=True),
        each("parts", _PARTS),
    ),
)
_LINK = Shape("PresignedUrl", (text("run_id"), text("model_id"), text("path"), int64("expiration")))

ARTIFACTS = (
    Route(
        "list_artifacts",
        "GET",
        "/artifacts/list",
        Shape("ListArtifacts", (RUN_ID, text("path"), _TOKEN)),
        Shape("ListArtifactsAnswer", (text("root_uri"), each("files", FILE), _NEXT)),
    ),
    Route(
        "list_stored_artifacts",
        "GET",
        "/artifacts",
        Shape("ListStoredArtifacts", (text("path"),)),
        Shape("ListStoredArtifactsAnswer", (each("files", FILE),)),
        base=Base.ARTIFACTS,
    ),
    Route(
        "list_logged_model_artifacts",
        "GET",
        "/logged-models/{model_id}/artifacts/directories",
        Shape(
            "ListLoggedModelArtifacts",
            (text("model_id", required=True), text("artifact_directory_path"), _TOKEN),
        ),
        Shape("ListLoggedModelArtifactsAnswer", (text("root_uri"), each("files", FILE), _NEXT)),
    ),
    Route(
        "start_multipart_upload",
        "POST",
        "/mpu/create/{folder:path}",
        _UPLOAD,
        _STARTED,
        base=Base.ARTIFACTS,
    ),
    Route(
        "complete_multipart_upload",
        "POST",
        "/mpu/complete/{folder:path}",
        _FINISH,
        NOTHING,
        base=Base.ARTIFACTS,
    ),
    Route(
        "abort_multipart_upload",
        "POST",
        "/mpu/abort/{folder:path}",
        _FINISH,
        NOTHING,
        base=Base.ARTIFACTS,
    ),
    Route(
        "get_presigned_url",
        "GET",
        "/presigned/{folder:path}",
        Shape("GetPresignedUrl", (text("folder"),)),
        NOTHING,
        base=Base.ARTIFACTS,
    ),
    Route("get_presigned_upload_url", "POST", "/artifacts/presigned-upload-url", _LINK, NOTHING),
    Route(
        "get_presigned_download_url", "POST", "/artifacts/presigned-download-url", _LINK, NOTHING
    ),
)

_BYTES = Shape("Bytes")
_PATH = Shape("StoredFile", (text("path", required=True),))

FILES = (
    Route(
        "put_artifact_part",
        "PUT",
        "/mpu/part/{path:path}",
        _PART,
        NOTHING,
        base=Base.ARTIFACTS,
        is_raw=True,
    ),
    Route(
        "put_stored_artifact",
        "PUT",
        "/artifacts/{path:path}",
        _PATH,
        NOTHING,
        base=Base.ARTIFACTS,
        is_raw=True,
    ),
    Route(
        "get_stored_artifact",
        "GET",
        "/artifacts/{path:path}",
        _PATH,
        _BYTES,
        base=Base.ARTIFACTS,
        is_raw=True,
    ),
    Route(
        "delete_stored_artifact",
        "DELETE",
        "/artifacts/{path:path}",
        _PATH,
        NOTHING,
        base=Base.ARTIFACTS,
    ),
    Route(
        "get_run_artifact",
        "GET",
        "/get-artifact",
        Shape("GetRunArtifact", (RUN_ID, text("path", required=True))),
        _BYTES,
        base=Base.ROOT,
        is_raw=True,
    ),
    Route(
        "get_version_artifact",
        "GET",
        "/model-versions/get-artifact",
        Shape(
            "GetVersionArtifact",
            (
                text("name", required=True),
                text("version", required=True),
                text("path", required=True),
            ),
        ),
        _BYTES,
        base=Base.ROOT,
        is_raw=True,
    ),
    Route(
        "get_logged_model_artifact",
        "GET",
        "/logged-models/{model_id}/artifacts/files",
        Shape(
            "GetLoggedModelArtifact",
            (text("model_id", required=True), text("artifact_file_path", required=True)),
        ),
        _BYTES,
        only_ajax=True,
        is_raw=True,
    ),
    Route(
        "upload_run_artifact",
        "POST",
        "/upload-artifact",
        Shape("UploadRunArtifact", (RUN_ID, text("path", required=True))),
        NOTHING,
        only_ajax=True,
        is_raw=True,
        max_bytes=10 * 1024 * 1024,
    ),
)

SERVER = (
    Route(
        "get_server_info",
        "GET",
        "/server-info",
        Shape("GetServerInfo"),
        Shape(
            "ServerInfo",
            (
                text("store_type"),
                flag("workspaces_enabled"),
                flag("trace_archival_enabled"),
                flag("multipart_uploads_enabled"),
                flag("multipart_downloads_enabled"),
                flag("presigned_upload_run_id_supported"),
                flag("presigned_upload_model_id_supported"),
                one("features_enabled", Shape("Features", (flag("gateway"),))),
                text("sparkscore_version"),  # ours alone: our clients ask more of our servers
            ),
        ),
        base=Base.SERVER,
    ),
)
