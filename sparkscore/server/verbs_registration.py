"""What the routes do that make a model version, or tell where its bytes lie."""

from __future__ import annotations

import json
from contextlib import suppress

from sparkscore.errors import (
    InvalidNameError,
    PackageDigestError,
    RecordNotFoundError,
    SparkscoreError,
    StoreUnavailableError,
)
from sparkscore.names import ModelName, parse_model_name
from sparkscore.records import ModelVersion, VersionStatus
from sparkscore.server.calls import Served, Verb
from sparkscore.server.model_sources import (
    Owner,
    check_source,
    resolve_source,
    run_behind,
    source_place,
)
from sparkscore.server.sealing import digest_of
from sparkscore.server.verbs_models import parse_version
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, version_to_json

_VERSIONS_TAG = "mlflow.modelVersions"


def create_version(served: Served, given: Given) -> Json:
    """The next version of a model, READY at once, with a digest where its bytes are kept here.

    One that is asked for as PENDING_REGISTRATION stays so until `update_version` finishes it.
    """
    name, source = parse_model_name(given.text("name")), given.text("source")
    run_id, model_id = given.text("run_id"), given.text("model_id")
    served.models.get_model(name)
    check_source(served, source, Owner(run_id, model_id))
    pending = served.models.create_version(
        name,
        source=source,
        run_id=run_id or run_behind(served, source, model_id),
        description=given.text("description"),
        tags=given.pairs("tags"),
        run_link=given.text("run_link"),
        model_id=model_id,
        user_id=given.text("user_id"),
    )
    if given.text("status") == VersionStatus.PENDING_REGISTRATION:
        return {"model_version": version_to_json(pending)}
    ready = _finished(served, pending)
    if model_id:
        _tag_logged_model(served, model_id, ready)
    return {"model_version": version_to_json(ready)}


def update_version(served: Served, given: Given) -> Json:
    """The version with another description, or finished where a status is given."""
    name, number = parse_model_name(given.text("name")), parse_version(given)
    version = served.models.get_version(name, number)
    if "description" in given:
        version = served.models.describe_version(name, number, given.text("description"))
    if "status" in given:
        version = _ended(served, version, given)
    return {"model_version": version_to_json(version)}


def get_download_uri(served: Served, given: Given) -> Json:
    """Where a client finds the bytes of a version."""
    version = served.models.get_version(parse_model_name(given.text("name")), parse_version(given))
    return {"artifact_uri": resolve_source(served, version.source)}


def _ended(served: Served, pending: ModelVersion, given: Given) -> ModelVersion:
    """A pending version as its client says that it ended; what is kept here is looked at."""
    status, source = VersionStatus(given.text("status")), given.text("source") or pending.source
    digest = given.text("digest")
    check_source(served, source, Owner(pending.run_id, pending.model_id))
    if status is VersionStatus.READY:
        found = _digest(served, source)
        if found and digest and found != digest:
            raise PackageDigestError(
                f"the package at {source} has digest {found}, but the client says {digest}: "
                "upload it again and register that"
            )
        digest = digest or found
    return served.models.finish_version(
        ModelName(pending.name),
        pending.version,
        status,
        source=source,
        digest=digest,
        message=given.text("status_message"),
    )


def _finished(served: Served, pending: ModelVersion) -> ModelVersion:
    name = ModelName(pending.name)
    try:
        digest = _digest(served, pending.source)
        return served.models.finish_version(
            name, pending.version, VersionStatus.READY, digest=digest
        )
    except SparkscoreError as exc:
        # The one who asked is told, and asks again: this number must not stay pending for ever.
        with suppress(StoreUnavailableError):
            served.models.finish_version(
                name, pending.version, VersionStatus.FAILED_REGISTRATION, message=str(exc)[:500]
            )
        raise


def _digest(served: Served, source: str) -> str:
    """The package digest of a source that is kept here, or "" where it is not, or no package."""
    try:
        place = source_place(served, source)
    except (RecordNotFoundError, InvalidNameError):
        return ""
    return "" if place is None else digest_of(served.artifacts, place)


def _tag_logged_model(served: Served, model_id: str, version: ModelVersion) -> None:
    """Say in the logged model's tag which versions were made of it, as clients read it."""
    tags = served.logged_models.get_logged_model(model_id).tags
    try:
        held: object = json.loads(tags.get(_VERSIONS_TAG, "[]"))
    except (ValueError, RecursionError):
        held = []
    known = held if isinstance(held, list) else []
    named = json.dumps([*known, {"name": version.name, "version": version.version}])
    served.logged_models.set_logged_model_tags(model_id, {_VERSIONS_TAG: named})


VERBS: dict[str, Verb] = {
    "create_version": create_version,
    "get_download_uri": get_download_uri,
    "update_version": update_version,
}
