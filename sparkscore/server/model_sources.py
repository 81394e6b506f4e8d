"""Where the bytes of a model version come from: what may be named, and what is meant by it.

A source is text that a client gives, and that other clients open later, so that it is checked as a
path would be: it climbs nowhere, and what it names is of the run or logged model that the request
names too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from sparkscore.errors import RecordNotFoundError, UsageError, shown
from sparkscore.names import ArtifactPath, parse_model_name, parse_run_id
from sparkscore.records import LoggedModel
from sparkscore.search import All, Comparison, Field, FieldKind, Operator, Query
from sparkscore.server.artifact_places import PROXY_SCHEME, place_of
from sparkscore.server.calls import Served

_REMOTE_SCHEMES = (
    "abfs", "abfss", "adl", "az", "b2", "dbfs", "ftp", "gs", "hdfs", "http", "https", "r2", "s3",
    "s3a", "s3n", "sftp", "viewfs", "wasb", "wasbs",
)  # fmt: skip
_RUN_SOURCE = re.compile(r"runs:/+([^/]+)/?(.*)", re.DOTALL)
_LOGGED_SOURCE = re.compile(r"models:/+(m-[^/]+)/?(.*)", re.DOTALL)
_VERSION_SOURCE = re.compile(r"models:/+([^/@]+)/([0-9]{1,9})", re.DOTALL)
_LOGGED_PLACE = re.compile(r"(?:^|/)models/(m-[^/]+)/artifacts(?:/|$)")
_MAX_HOPS = 5
_MAX_UNQUOTED = 10
_MAX_CHARS = 2048


@dataclass(frozen=True)
class Owner:
    """What a request says that a source is of."""

    run_id: str
    model_id: str


def check_source(served: Served, source: str, owner: Owner) -> None:
    """Refuse a source that climbs, is of no known kind, or is of another run or logged model.

    Raises:
        UsageError: It does one of these; begins as clients of MLflow expect it.
        RecordNotFoundError: The run, logged model or version that it names does not exist.
    """
    _check_plain(source)
    pattern = served.settings.source_pattern
    if pattern and not re.search(pattern, source):
        raise _refused(source, f"this server takes sources that match {pattern!r} only")
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        _check_local(served, source, owner)
    elif parts.scheme == "runs":
        _check_of_run(served, source, owner)
    elif parts.scheme == "models":
        _check_of_models(served, source, owner)
    elif parts.scheme == PROXY_SCHEME:
        if not served.settings.lenient_sources and not _is_owned(served, source, owner):
            raise _not_owned(source)
    elif parts.scheme not in _REMOTE_SCHEMES:
        known = ", ".join(_REMOTE_SCHEMES)
        raise _refused(source, f"its scheme is none of runs, models, {PROXY_SCHEME}, {known}")


def resolve_source(served: Served, source: str) -> str:
    """The URI where the bytes of a source lie; what names no record is such a URI itself.

    Raises:
        RecordNotFoundError: The run, logged model or version that it names does not exist.
    """
    for _ in range(_MAX_HOPS):
        logged, version = _LOGGED_SOURCE.fullmatch(source), _VERSION_SOURCE.fullmatch(source)
        if logged is not None:
            model = served.logged_models.get_logged_model(logged[1], allow_deleted=True)
            return _joined(model.artifact_uri, logged[2])
        if version is None:
            break
        name, number = parse_model_name(version[1]), int(version[2])
        source = served.models.get_version(name, number).source
    return source


def source_place(served: Served, source: str) -> ArtifactPath | None:
    """Where the bytes of a source lie in the store that is served, or None where they do not.

    Raises:
        RecordNotFoundError: The run, logged model or version that it names does not exist.
        InvalidNameError: Its path is not a plain one.
    """
    uri = resolve_source(served, source)
    of_run = _RUN_SOURCE.fullmatch(uri)
    if of_run is None:
        return place_of(served.artifacts, uri)
    run = served.runs.get_run(parse_run_id(of_run[1]))
    place = place_of(served.artifacts, _joined(run.artifact_uri, of_run[2]))
    if place is not None and served.artifacts.list(place):
        return place
    # Clients of 3.x name a model by its run, and keep its files elsewhere.
    model = _logged_by_run(served, run.experiment_id, run.run_id, of_run[2])
    return place if model is None else place_of(served.artifacts, model.artifact_uri)


def run_behind(served: Served, source: str, model_id: str) -> str:
    """The run that made the logged model that a version is of, or "" where there is none."""
    logged = _LOGGED_SOURCE.fullmatch(source)
    made_of = model_id or (logged[1] if logged else "")
    model = _logged_or_none(served, made_of) if made_of else None
    return "" if model is None else model.source_run_id


def _check_plain(source: str) -> None:
    plain = source
    for _ in range(_MAX_UNQUOTED):
        if len(source) > _MAX_CHARS or "\0" in plain or ".." in re.split(r"[/\\?#=&]", plain):
            raise _refused(source, "it is too long, or climbs by '..'")
        following = unquote(plain)
        if following == plain:
            return
        plain = following
    raise _refused(source, "it is encoded again and again")


def _check_local(served: Served, source: str, owner: Owner) -> None:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise _refused(source, f"it is not a valid remote uri: {parts.netloc!r} is another machine")
    if not (owner.run_id or owner.model_id) or not _is_owned(served, source, owner):
        raise _refused(
            source,
            "to use a local path as a model version source, the run_id request parameter has to "
            "be specified and the local path has to be contained within the artifact directory of "
            "the run specified by the run_id",
        )


def _check_of_run(served: Served, source: str, owner: Owner) -> None:
    of_run = _RUN_SOURCE.fullmatch(source)
    if of_run is None:
        raise _refused(source, "give runs:/RUN_ID/PATH")
    run_id = parse_run_id(of_run[1])
    if served.settings.lenient_sources or run_id == owner.run_id:
        return
    if owner.model_id:
        model = served.logged_models.get_logged_model(owner.model_id)
        if model.source_run_id == run_id:
            return
    raise _not_owned(source)


def _check_of_models(served: Served, source: str, owner: Owner) -> None:
    logged, version = _LOGGED_SOURCE.fullmatch(source), _VERSION_SOURCE.fullmatch(source)
    if version is not None and logged is None:
        served.models.get_version(parse_model_name(version[1]), int(version[2]))
        return
    if logged is None:
        raise _refused(source, "give models:/MODEL_ID or models:/NAME/VERSION")
    model = served.logged_models.get_logged_model(logged[1])
    owned = logged[1] == owner.model_id or (owner.run_id and model.source_run_id == owner.run_id)
    if not (owned or served.settings.lenient_sources):
        raise _not_owned(source)


def _is_owned(served: Served, source: str, owner: Owner) -> bool:
    """Whether a source lies below the files of the run or logged model that the request names."""
    roots: list[str] = []
    if owner.run_id:
        roots.append(served.runs.get_run(parse_run_id(owner.run_id)).artifact_uri)
        held = _LOGGED_PLACE.search(source)
        if held is not None:
            model = _logged_or_none(served, held[1])
            if model is not None and model.source_run_id == owner.run_id:
                roots.append(model.artifact_uri)
    if owner.model_id:
        roots.append(served.logged_models.get_logged_model(owner.model_id).artifact_uri)
    found = _normal(source)
    return any(f"{found}/".startswith(f"{_normal(root)}/") for root in roots)


def _logged_or_none(served: Served, model_id: str) -> LoggedModel | None:
    try:
        return served.logged_models.get_logged_model(model_id)
    except RecordNotFoundError:
        return None


def _logged_by_run(
    served: Served, experiment_id: str, run_id: str, name: str
) -> LoggedModel | None:
    def is_text(key: str, value: str) -> Comparison:
        return Comparison(Field(FieldKind.ATTRIBUTE, key), Operator.EQUAL, value)

    where = All((is_text("source_run_id", run_id), is_text("name", name)))
    page = served.logged_models.search_logged_models([experiment_id], Query(where, limit=1))
    return page.items[0] if page.items else None


def _joined(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path.strip('/')}" if path.strip("/") else root


def _normal(uri: str) -> str:
    """One text for the ways to write a local path or a proxied URI."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return unquote(parts.path).rstrip("/")
    if parts.scheme == PROXY_SCHEME:
        return f"{PROXY_SCHEME}:/{parts.path.strip('/')}"
    return uri.rstrip("/")


def _not_owned(source: str) -> UsageError:
    return _refused(
        source,
        "it is not of the run_id or model_id that the request names: name the run or logged model "
        "that it is of, or start the server with SPARKSCORE_MODEL_SOURCE_CHECK=lenient",
    )


def _refused(source: str, why: str) -> UsageError:
    return UsageError(f"Invalid model version source: {shown(source)}: {why}.")
