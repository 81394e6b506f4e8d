"""Files from one store to another, compared by their digests when they are there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sparkscore.errors import PackageDigestError, PackageFormatError, RecordNotFoundError
from sparkscore.names import ArtifactPath, parse_artifact_path
from sparkscore.package import compute_seal, open_package
from sparkscore.package.manifest import hash_file
from sparkscore.records import ArtifactInfo
from sparkscore.stores.base import ArtifactStore, StreamedArtifactStore

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Moved:
    """How much was copied."""

    n_files: int
    n_bytes: int


def copy_files(source: ArtifactStore, target: ArtifactStore, place: str) -> Moved:
    """Copy all files of a store into the folder `place` of another, over those that are there.

    The place `""` is the other store's root.

    Raises:
        PackageDigestError: A file arrived as another than it was.
        InvalidNameError: A file's name is not one that is kept here.
        UsageError: A link, a device, or what else is not copied.
        StoreUnavailableError: A store did not answer.
    """
    n_files = n_bytes = 0
    for info in _files(source, ArtifactPath("")):
        path = parse_artifact_path(info.path)
        to = parse_artifact_path(f"{place}/{path}" if place else path)
        n_bytes += _copy_file(source, path, target, to)
        n_files += 1
    return Moved(n_files, n_bytes)


def package_digest(store: ArtifactStore, place: str) -> str:
    """The digest of the package in a folder of a store; `""` for what is no package.

    Raises:
        RecordNotFoundError: There is nothing.
        StoreUnavailableError: The store did not answer.
    """
    path = parse_artifact_path(place)
    if not store.list(path):
        raise RecordNotFoundError(f"there are no files at {place!r} in {store.root_uri}")
    with tempfile.TemporaryDirectory(prefix="sparkscore-import-") as scratch:
        folder = store.get(path, Path(scratch) / "package")
        try:
            open_package(folder)
            return compute_seal(folder).digest
        except PackageFormatError:
            return ""


def local_path(uri: str) -> str | None:
    """The path of a URI of this machine; None for one of elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path).rstrip("/")
    return uri.rstrip("/") if not parts.scheme and uri else None


def path_below(uri: str, root: str) -> str | None:
    """The path of `uri` below the URI `root`, `""` for itself; None where it is elsewhere."""
    place, base = local_path(uri) or uri.rstrip("/"), local_path(root) or root.rstrip("/")
    if place == base:
        return ""
    return place.removeprefix(f"{base}/") if base and place.startswith(f"{base}/") else None


def _files(store: ArtifactStore, folder: ArtifactPath) -> Iterator[ArtifactInfo]:
    for info in store.list(folder):
        if info.is_folder:
            yield from _files(store, ArtifactPath(info.path))
        else:
            yield info


def _copy_file(
    source: ArtifactStore, path: ArtifactPath, target: ArtifactStore, to: ArtifactPath
) -> int:
    if not isinstance(source, StreamedArtifactStore) or not isinstance(
        target, StreamedArtifactStore
    ):
        # Stores of objects keep a digest of their own beside what they are given.
        with tempfile.TemporaryDirectory(prefix="sparkscore-import-") as scratch:
            local = source.get(path, Path(scratch) / "file")
            target.put(local, to)
            return local.stat().st_size
    staged = target.staging_path()
    try:
        with source.open(path) as reader, staged.open("xb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                writer.write(chunk)
        target.take(staged, to)
    finally:
        staged.unlink(missing_ok=True)
    with source.open(path) as was, target.open(to) as now:
        before, after = hash_file(was), hash_file(now)
    if before != after:
        raise PackageDigestError(
            f"file {path!r} of {source.root_uri} changed while it was copied: run again when "
            "nothing writes to it"
        )
    return after.n_bytes
