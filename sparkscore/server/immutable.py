"""Files of READY versions stay as they are: what was verified is what is scored."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sparkscore.errors import InvalidNameError, InvalidStateError, RecordNotFoundError
from sparkscore.names import ArtifactPath
from sparkscore.records import ModelVersion, VersionStatus
from sparkscore.search import Comparison, Field, FieldKind, Operator, Query
from sparkscore.server.artifact_places import PROXY_SCHEME
from sparkscore.server.calls import Served
from sparkscore.server.model_sources import source_place

_OF_RUN = re.compile(r"(?:^|/)([A-Za-z0-9][\w-]*)/artifacts(?:/(.*))?$", re.ASCII | re.DOTALL)
_OF_LOGGED_MODEL = re.compile(r"(?:^|/)models/(m-[\w-]+)/artifacts(?:/|$)", re.ASCII)
_PAGE = 1000
_SOURCE = "source_path"


def check_writable(served: Served, path: ArtifactPath) -> None:
    """Refuse to write a file that a READY version holds, or would hold.

    Raises:
        InvalidStateError: There is such a version.
    """
    # Asked for by what the source may be called, since an upload must not read the whole registry.
    where = Comparison(
        Field(FieldKind.ATTRIBUTE, _SOURCE), Operator.IN, tuple(_sources_above(served, path))
    )
    for version in _versions(served, where):
        if version.status is VersionStatus.READY:
            raise _immutable(path, version)


def check_deletable(served: Served, path: ArtifactPath) -> None:
    """Refuse to delete what a READY version holds, or a folder with such a version in it.

    Raises:
        InvalidStateError: There is such a version.
    """
    check_writable(served, path)
    for version in _versions(served, None):
        if version.status is VersionStatus.READY and _lies_below(served, version, path):
            raise _immutable(path, version)


def _sources_above(served: Served, path: ArtifactPath) -> Iterator[str]:
    """All ways to name a folder that holds `path`, or `path` itself, as a version's source."""
    parts = path.split("/")
    for n_parts in range(1, len(parts) + 1):
        folder = "/".join(parts[:n_parts])
        yield f"{PROXY_SCHEME}:/{folder}"
        yield f"{served.artifacts.root_uri}/{folder}"
    logged = _OF_LOGGED_MODEL.search(path)
    if logged is not None:
        yield f"models:/{logged[1]}"
    of_run = _OF_RUN.search(path)
    if of_run is not None:
        inside = (of_run[2] or "").split("/")
        for n_parts in range(1, len(inside) + 1):
            yield f"runs:/{of_run[1]}/{'/'.join(inside[:n_parts])}"


def _lies_below(served: Served, version: ModelVersion, path: ArtifactPath) -> bool:
    try:
        place = source_place(served, version.source)
    except (RecordNotFoundError, InvalidNameError):
        return False  # what it came from is gone, and its files are nobody's
    return place is not None and (not path or f"{place}/".startswith(f"{path}/"))


def _versions(served: Served, where: Comparison | None) -> Iterator[ModelVersion]:
    token: str | None = None
    while True:
        page = served.models.search_versions(Query(where, limit=_PAGE, token=token))
        yield from page.items
        token = page.next_token
        if token is None:
            return


def _immutable(path: ArtifactPath, version: ModelVersion) -> InvalidStateError:
    return InvalidStateError(
        f"artifact {path!r} is of version {version.version} of model {version.name!r}, which is "
        "READY and never changes: write elsewhere and register a new version, or delete this one"
    )
