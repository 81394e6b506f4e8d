"""Artifacts as files below a local folder."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from sparkscore.errors import (
    InvalidNameError,
    RecordNotFoundError,
    SparkscoreError,
    StoreUnavailableError,
    UsageError,
    shown,
)
from sparkscore.names import ArtifactPath
from sparkscore.records import ArtifactInfo
from sparkscore.stores.transfers import (
    STAGING_PREFIX,
    arriving,
    check_inside,
    check_no_link,
    check_regular,
    remove,
)


class LocalArtifactStore:
    """Files below `root`; a put is written beside its place and then moved in, whole.

    Symbolic links that lead out of the root (or out of a folder that is put), and devices,
    sockets and FIFOs are refused before they are opened.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @classmethod
    def at(cls, uri: str) -> LocalArtifactStore:
        """The store whose root is a `file://` URI or a plain path.

        Raises:
            InvalidNameError: The URI has another scheme or names another host.
        """
        parts = urlsplit(uri)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return cls(Path(unquote(parts.path)))
        if parts.scheme:
            raise InvalidNameError(
                f"artifact location {shown(uri)} is not on this machine: "
                "give file:///FOLDER or a plain path"
            )
        return cls(Path(uri))

    @property
    def root_uri(self) -> str:
        """See ArtifactStore."""
        return self._root.as_uri()

    def put(self, local: Path, path: ArtifactPath) -> None:
        """See ArtifactStore.

        A folder that exists keeps the files that `local` has not.
        """
        with self._guarded(path):
            if not local.exists():
                raise RecordNotFoundError(f"there is no file or folder {str(local)!r} to store")
            target = self._place(path)
            self._root.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = self._root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
            try:
                _copy(local.resolve(), staged)
                _move_in(staged, target)
            finally:
                remove(staged)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """See ArtifactStore.

        Raises:
            UsageError: `local` exists already.
        """
        with self._guarded(path):
            source = self._place(path)
            if not source.exists():
                raise RecordNotFoundError(f"there is no artifact {path!r} in {self.root_uri}")
            with arriving(local) as staged:
                _copy(source, staged)
            return local

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """See ArtifactStore."""
        with self._guarded(path):
            folder = self._place(path)
            if not folder.is_dir():
                return []
            return [
                _info(entry, f"{path}/{entry.name}" if path else entry.name)
                for entry in sorted(folder.iterdir())
                if not entry.name.startswith(STAGING_PREFIX)
            ]

    def delete(self, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        with self._guarded(path):
            remove(self._place(path))

    def open(self, path: ArtifactPath) -> BinaryIO:
        """See StreamedArtifactStore."""
        with self._guarded(path):
            source = self._place(path)
            if not source.is_file():
                raise RecordNotFoundError(f"there is no artifact file {path!r}")
            return source.open("rb")

    def staging_path(self) -> Path:
        """See StreamedArtifactStore."""
        with self._guarded(ArtifactPath("")):
            self._root.mkdir(parents=True, exist_ok=True)
        return self._root / f"{STAGING_PREFIX}{uuid.uuid4().hex}"

    def take(self, staged: Path, path: ArtifactPath) -> None:
        """See StreamedArtifactStore."""
        with self._guarded(path):
            target = self._place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.replace(target)

    def _place(self, path: ArtifactPath) -> Path:
        place = self._root / path
        if path.startswith(STAGING_PREFIX):
            raise InvalidNameError(f"artifact path {path!r} starts with {STAGING_PREFIX!r}")
        if not place.resolve().is_relative_to(self._root.resolve()):
            raise InvalidNameError(
                f"artifact path {path!r} leads out of {self.root_uri} by a symbolic link: "
                "remove the link"
            )
        return place

    @contextmanager
    def _guarded(self, path: ArtifactPath) -> Iterator[None]:
        try:
            yield
        except SparkscoreError:
            raise
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as exc:
            raise UsageError(
                f"artifact {path!r} in {self.root_uri} would be a file and a folder at once: "
                "delete the one that is there, or choose another path"
            ) from exc
        except OSError as exc:
            if exc.errno == errno.ENAMETOOLONG:
                raise InvalidNameError(f"artifact path {shown(path)} is too long") from exc
            raise StoreUnavailableError(
                f"the artifact store {self.root_uri} failed at {path!r}: {exc.strerror or exc}. "
                "Check that the folder is writable and not full, and run again"
            ) from exc


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        _copy_file(source, target)
        return
    target.mkdir()
    for folder, names, files in os.walk(source):
        inside = target / Path(folder).relative_to(source)
        for name in names:
            check_no_link(Path(folder) / name)
            (inside / name).mkdir()
        for name in files:
            check_inside(Path(folder) / name, source.resolve())
            _copy_file(Path(folder) / name, inside / name)


def _copy_file(source: Path, target: Path) -> None:
    check_regular(source)
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _move_in(staged: Path, target: Path) -> None:
    if staged.is_dir() and target.is_dir():
        for entry in staged.iterdir():
            _move_in(entry, target / entry.name)
    else:
        staged.replace(target)


def _info(entry: Path, path: str) -> ArtifactInfo:
    is_folder = entry.is_dir()
    return ArtifactInfo(path, is_folder, None if is_folder else entry.lstat().st_size)
