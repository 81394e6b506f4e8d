"""The digest of a package where it is kept: file by file, with no copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator

from sparkscore.names import ArtifactPath
from sparkscore.package.manifest import FileSeal, hash_file, is_sealed, seal_of
from sparkscore.server.artifact_places import relative_to
from sparkscore.server.open_files import open_artifact
from sparkscore.stores.base import ArtifactStore

_PACKAGE_FILE = "MLmodel"


def digest_of(store: ArtifactStore, folder: ArtifactPath) -> str:
    """The package digest of a folder of the store, or "" where no package lies in it."""
    files: dict[str, FileSeal] = {}
    for path in _files(store, folder):
        name = relative_to(folder, path)
        if is_sealed(name):
            with open_artifact(store, path) as file:
                files[name] = hash_file(file)
    return seal_of(files).digest if _PACKAGE_FILE in files else ""


def _files(store: ArtifactStore, folder: ArtifactPath) -> Iterator[ArtifactPath]:
    for item in store.list(folder):
        path = ArtifactPath(item.path)
        if item.is_folder:
            yield from _files(store, path)
        else:
            yield path
