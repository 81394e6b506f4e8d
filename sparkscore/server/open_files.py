"""Files of any store, opened to be read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

from sparkscore.errors import RecordNotFoundError
from sparkscore.names import ArtifactPath
from sparkscore.stores.base import ArtifactStore, StreamedArtifactStore


def open_artifact(store: ArtifactStore, path: ArtifactPath) -> BinaryIO:
    """A file of the store, opened to be read.

    Raises:
        RecordNotFoundError: There is no such file.
    """
    if isinstance(store, StreamedArtifactStore):
        return store.open(path)
    with tempfile.TemporaryDirectory(prefix="sparkscore-download-") as folder:
        local = store.get(path, Path(folder) / "file")
        if not local.is_file():
            raise RecordNotFoundError(f"there is no artifact file {path!r}")
        # It stays readable after its name is gone.
        return local.open("rb")
