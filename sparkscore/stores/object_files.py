"""Artifacts in an object store (S3, Google, Azure) or in whatever fsspec opens (hdfs, sftp, ...).

Both are asked through `Objects`: keys with bytes, where a folder is but the start of a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from sparkscore.errors import InvalidNameError, RecordNotFoundError, UsageError, shown
from sparkscore.names import ArtifactPath
from sparkscore.records import ArtifactInfo
from sparkscore.stores.transfers import STAGING_PREFIX, arriving, files_to_put, for_each

BUCKET_SCHEMES = ("s3", "s3a", "s3n", "gs", "az", "abfs", "abfss")


class Objects(Protocol):
    """Keys with bytes below one root. Any call may raise StoreUnavailableError."""

    def write(self, local: Path, key: str) -> None:
        """Keep a local file's bytes as `key`; they are seen when all are there."""
        ...

    def read(self, key: str, local: Path) -> None:
        """Write the bytes of a key to the new file `local`, having compared what is known of them.

        Raises:
            RecordNotFoundError: There is no such key.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is this very key; a folder is none."""
        ...

    def below(self, folder: str) -> Sequence[str]:
        """All keys in the folder, those of folders in it too; `""` is the root."""
        ...

    def level(self, folder: str) -> Sequence[ArtifactInfo]:
        """Files and folders directly in the folder, in any order."""
        ...

    def remove(self, path: str) -> None:
        """Remove a key, or all keys in a folder; nothing happens where nothing is."""
        ...


class ObjectArtifactStore:
    """Files as objects; a file is seen when its upload is complete.

    A folder of many files is no single object: its files arrive one by one, some at once. What
    must be seen whole is therefore registered only after it was read back, as the registry does.
    """

    def __init__(self, objects: Objects, root_uri: str) -> None:
        self._objects = objects
        self._root_uri = root_uri.rstrip("/")

    @classmethod
    def at(cls, uri: str, *, s3_endpoint: str | None = None) -> ObjectArtifactStore:
        """The store whose root is a URI such as `s3://bucket/folder` or `sftp://host/folder`.

        Keys and tokens are those that the scheme's library finds: its environment variables, or
        the role of the machine.

        Args:
            uri: Without a password.
            s3_endpoint: Where an S3 store that is not Amazon's answers; None: AWS_ENDPOINT_URL.

        Raises:
            InvalidNameError: The URI names no place that is known here, or holds a password.
            MissingExtraError: The library that opens it is not installed.
        """
        parts = urlsplit(uri)
        if parts.password is not None:
            raise InvalidNameError(
                f"the artifact location on {parts.hostname!r} holds a password, which would be "
                "kept with every run: leave it to the environment or to SSH's own settings"
            )
        if parts.query or parts.fragment:
            raise InvalidNameError(
                f"artifact location {shown(uri)} has a '?' or '#', which no folder's name may have"
            )
        # Both libraries are imported where they are needed: an installation may have either.
        if parts.scheme in BUCKET_SCHEMES:
            from sparkscore.stores.bucket_objects import BucketObjects

            return cls(BucketObjects.at(uri, s3_endpoint), uri)
        from sparkscore.stores.fsspec_objects import FsspecObjects

        return cls(FsspecObjects.at(uri), uri)

    @property
    def root_uri(self) -> str:
        """See ArtifactStore."""
        return self._root_uri

    def put(self, local: Path, path: ArtifactPath) -> None:
        """See ArtifactStore.

        A folder that exists keeps the files that `local` has not.
        """
        files = files_to_put(local)
        keys = [_joined(path, below) for below, _ in files]
        self._check_keys(path, keys)
        pairs = [(file, key) for (_, file), key in zip(files, keys, strict=True)]
        for_each(lambda pair: self._objects.write(*pair), pairs)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """See ArtifactStore.

        Raises:
            UsageError: `local` exists already.
        """
        with arriving(local) as staged:
            if path and self._objects.exists(path):
                self._objects.read(path, staged)
                return local
            keys = [key for key in self._objects.below(path) if not _is_staged(key)]
            if not keys:
                raise RecordNotFoundError(f"there is no artifact {path!r} in {self.root_uri}")
            pairs = [(key, _inside(staged, key, path)) for key in keys]
            for folder in {target.parent for _, target in pairs}:
                folder.mkdir(parents=True, exist_ok=True)
            for_each(lambda pair: self._objects.read(*pair), pairs)
        return local

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """See ArtifactStore."""
        found = (info for info in self._objects.level(path) if not _is_staged(info.path))
        return sorted(found, key=lambda info: info.path)

    def delete(self, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        self._objects.remove(path)

    def _check_keys(self, path: str, keys: Sequence[str]) -> None:
        """Refuse keys beside which a file would be a folder; no object store does so by itself."""
        if _is_staged(path):
            raise InvalidNameError(f"artifact path {path!r} starts with {STAGING_PREFIX!r}")
        below = set(self._objects.below(path))
        folders = {folder for key in below for folder in _folders(key)}
        above = [*_folders(path), *([path] if path and path not in keys else [])]
        taken = next((key for key in above if self._objects.exists(key)), None)
        for key in keys:
            if key in folders:
                taken = key
            taken = next((folder for folder in _folders(key) if folder in below), taken)
        if taken is not None:
            raise UsageError(
                f"artifact {taken!r} in {self.root_uri} would be a file and a folder at once: "
                "delete the one that is there, or choose another path"
            )


def _joined(path: str, below: str) -> str:
    return "/".join(part for part in (path, below) if part)


def _folders(key: str) -> list[str]:
    """The folders that a key lies in, the outermost first."""
    parts = key.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _inside(staged: Path, key: str, path: str) -> Path:
    """Where an object of the folder `path` goes; its key may be anybody's."""
    parts = key.removeprefix(path).strip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidNameError(f"object {shown(key)} has a name that no file may have: remove it")
    return staged.joinpath(*parts)


def _is_staged(path: str) -> bool:
    return path.startswith(STAGING_PREFIX)
