"""Where an artifact URI lies within the one store that is served, or that it does not.

Only that store is ever read or written, whatever location an experiment was given: a client that
may name a location must not make the server open its own disk or its own buckets.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from sparkscore.errors import InvalidNameError, UsageError, shown
from sparkscore.names import ArtifactPath, parse_artifact_path
from sparkscore.stores.base import ArtifactStore

PROXY_SCHEME = "mlflow-artifacts"


def place_of(store: ArtifactStore, uri: str) -> ArtifactPath | None:
    """The path of a URI within the store, or None where it lies elsewhere.

    Raises:
        InvalidNameError: It lies there, but its path is not a plain one.
    """
    parts = urlsplit(uri)
    if parts.scheme == PROXY_SCHEME:
        return parse_artifact_path(parts.path.strip("/"))
    root = store.root_uri.rstrip("/")
    if not parts.scheme and uri.startswith("/"):
        return _below(unquote(urlsplit(root).path), uri) if root.startswith("file:") else None
    return _below(root, uri)


def served_place(store: ArtifactStore, uri: str, path: str = "") -> ArtifactPath:
    """The place of a path below a URI.

    Raises:
        UsageError: The URI does not lie in the store that is served.
        InvalidNameError: The path is not a plain one.
    """
    place = place_of(store, uri)
    if place is None:
        raise UsageError(
            f"the files at {shown(uri)} are not kept by this server: open that location itself"
        )
    return below(place, path)


def below(folder: ArtifactPath, path: str) -> ArtifactPath:
    """The place of a path below a folder of the store.

    Raises:
        InvalidNameError: The path is not a plain one.
    """
    inside = parse_safe_path(path)
    return ArtifactPath(f"{folder}/{inside}" if folder and inside else folder or inside)


def parse_safe_path(path: str) -> ArtifactPath:
    """`names.parse_artifact_path`, told in the words that clients of MLflow look for.

    Raises:
        InvalidNameError: The path is not a plain one.
    """
    try:
        return parse_artifact_path(path)
    except InvalidNameError as exc:
        raise InvalidNameError(f"Invalid path: {exc}") from exc


def relative_to(folder: ArtifactPath, path: str) -> str:
    """A path of the store as it is below a folder of it."""
    return path.removeprefix(f"{folder}/") if folder else path


def _below(root: str, uri: str) -> ArtifactPath | None:
    if uri.rstrip("/") == root:
        return ArtifactPath("")
    inside = uri.removeprefix(f"{root}/")
    return None if inside == uri else parse_artifact_path(inside.strip("/"))
