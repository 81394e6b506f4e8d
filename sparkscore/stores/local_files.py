"""Artifacts as files below a local folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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

_STAGING_PREFIX = ".incoming-"


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
            staged = self._root / f"{_STAGING_PREFIX}{uuid.uuid4().hex}"
            try:
                _copy(local.resolve(), staged)
                _move_in(staged, target)
            finally:
                _remove(staged)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """See ArtifactStore.

        Raises:
            UsageError: `local` exists already.
        """
        with self._guarded(path):
            source = self._place(path)
            if not source.exists():
                raise RecordNotFoundError(f"there is no artifact {path!r} in {self.root_uri}")
            if local.exists():
                raise UsageError(f"{str(local)!r} exists already: name a new file or folder")
            local.parent.mkdir(parents=True, exist_ok=True)
            staged = local.with_name(f"{_STAGING_PREFIX}{uuid.uuid4().hex}")
            try:
                _copy(source, staged)
                staged.rename(local)
            finally:
                _remove(staged)
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
                if not entry.name.startswith(_STAGING_PREFIX)
            ]

    def delete(self, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        with self._guarded(path):
            _remove(self._place(path))

    def _place(self, path: ArtifactPath) -> Path:
        place = self._root / path
        if path.startswith(_STAGING_PREFIX):
            raise InvalidNameError(f"artifact path {path!r} starts with {_STAGING_PREFIX!r}")
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
            if (Path(folder) / name).is_symlink():
                raise _refused(Path(folder) / name, "is a symbolic link to a folder")
            (inside / name).mkdir()
        for name in files:
            found = Path(folder) / name
            if not found.resolve().is_relative_to(source.resolve()):
                raise _refused(found, "is a symbolic link out of the folder")
            _copy_file(found, inside / name)


def _copy_file(source: Path, target: Path) -> None:
    # Asked before opening: to open a FIFO hangs, to open a device may do anything.
    if not stat.S_ISREG(source.stat().st_mode):
        raise _refused(source, "is no regular file")
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"{str(path)!r} {why} and is not copied: replace it by the file itself")


def _move_in(staged: Path, target: Path) -> None:
    if staged.is_dir() and target.is_dir():
        for entry in staged.iterdir():
            _move_in(entry, target / entry.name)
    else:
        staged.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _info(entry: Path, path: str) -> ArtifactInfo:
    is_folder = entry.is_dir()
    return ArtifactInfo(path, is_folder, None if is_folder else entry.lstat().st_size)
