"""Objects of any file system that fsspec opens, such as hdfs and sftp.

These are file systems, and not object stores: a file is written under another name and moved in.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import fsspec

from sparkscore.errors import (
    InvalidNameError,
    MissingExtraError,
    RecordNotFoundError,
    SparkscoreError,
    StoreUnavailableError,
    listed,
    shown,
)
from sparkscore.extras import extra_of
from sparkscore.records import ArtifactInfo
from sparkscore.stores.transfers import STAGING_PREFIX

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_KNOWN = ("s3", "gs", "az", "abfss", "hdfs", "sftp")


class FsspecObjects:
    """The files of one file system below a folder."""

    def __init__(self, files: AbstractFileSystem, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    @classmethod
    def at(cls, uri: str) -> FsspecObjects:
        """The files below a URI.

        Raises:
            InvalidNameError: fsspec knows no such scheme.
            MissingExtraError: The library of the scheme is not installed.
            StoreUnavailableError: The file system does not answer.
        """
        scheme = urlsplit(uri).scheme
        if scheme not in fsspec.available_protocols():
            raise InvalidNameError(
                f"artifact location {shown(uri)} is of no kind that is known here: "
                f"give a folder, or a URI such as {listed(f'{known}://…' for known in _KNOWN)}"
            )
        try:
            with _guarded(uri):
                files, root = fsspec.url_to_fs(uri, use_listings_cache=False)
        except ImportError as exc:
            cause = exc.__cause__ if isinstance(exc.__cause__, ImportError) else exc
            extra = extra_of(cause.name or "") or "fsspec"
            raise MissingExtraError(
                f"artifact location {shown(uri)} needs a library that is not installed ({exc}); "
                f"run: pip install 'sparkscore[{extra}]'"
            ) from exc
        return cls(files, root)

    def write(self, local: Path, key: str) -> None:
        """See Objects."""
        target, staged = self._place(key), self._place(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        with _guarded(target):
            self._files.makedirs(self._root, exist_ok=True)
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                self._files.put_file(str(local), staged)
                self._check_size(staged, local)
                self._files.mv(staged, target)
            finally:
                if self._files.exists(staged):
                    self._files.rm_file(staged)

    def read(self, key: str, local: Path) -> None:
        """See Objects."""
        place = self._place(key)
        with _guarded(place):
            try:
                self._files.get_file(place, str(local))
            except FileNotFoundError as exc:
                raise RecordNotFoundError(f"there is no file {key!r} in {self._root}") from exc
            self._check_size(place, local)

    def exists(self, key: str) -> bool:
        """See Objects."""
        with _guarded(self._place(key)):
            return bool(self._files.isfile(self._place(key)))

    def below(self, folder: str) -> Sequence[str]:
        """See Objects."""
        place = self._place(folder)
        with _guarded(place):
            found = self._files.find(place)
        return [self._path(path) for path in found if path != place]

    def level(self, folder: str) -> Sequence[ArtifactInfo]:
        """See Objects."""
        place = self._place(folder)
        with _guarded(place):
            if not self._files.isdir(place):
                return []
            found = self._files.ls(place, detail=True)
        return [self._info(facts) for facts in found]

    def remove(self, path: str) -> None:
        """See Objects."""
        place = self._place(path)
        with _guarded(place):
            if self._files.exists(place):
                self._files.rm(place, recursive=True)

    def _info(self, facts: dict[str, object]) -> ArtifactInfo:
        path, size = self._path(str(facts["name"])), facts["size"]
        is_folder = facts["type"] == "directory"
        assert is_folder or isinstance(size, int)
        return ArtifactInfo(path, is_folder, None if is_folder else int(str(size)))

    def _check_size(self, place: str, local: Path) -> None:
        found, wanted = self._files.size(place), local.stat().st_size
        if found != wanted:
            raise StoreUnavailableError(
                f"{place} has {found} bytes and {str(local)!r} has {wanted}, though one is a copy "
                "of the other: run again"
            )

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _path(self, place: str) -> str:
        # Some file systems give back the place with a slash before it, or without.
        return place.strip("/").removeprefix(self._root.strip("/")).strip("/")


@contextmanager
def _guarded(where: str) -> Iterator[None]:
    try:
        yield
    except (SparkscoreError, ImportError):
        raise
    except Exception as exc:
        # Every file system raises the errors of a library of its own.
        raise StoreUnavailableError(
            f"the artifact store failed at {shown(where)}: {type(exc).__name__}: {exc}. Check that "
            "it is there and writable, and run again"
        ) from exc
