"""Artifacts that a tracking server hands on, as `mlflow-artifacts:` URIs name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from sparkscore.errors import (
    InvalidNameError,
    RecordNotFoundError,
    StoreUnavailableError,
    UsageError,
    shown,
)
from sparkscore.names import ArtifactPath, parse_artifact_path
from sparkscore.records import ArtifactInfo
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.stores.transfers import arriving, files_to_put, for_each
from sparkscore.wire.json_to_records import file_of
from sparkscore.wire.routes import Base

SCHEME = "mlflow-artifacts"
_FILES = f"{Base.ARTIFACTS}/artifacts"
_BLOCK_BYTES = 1 << 20


class RemoteArtifactStore:
    """Files below a path of a server; a file of any size passes in blocks.

    Whether a file that is half there is ever seen is the server's to say; ours and MLflow's put
    it in its place when the upload is complete.
    """

    def __init__(self, server: RemoteServer, path: str, root_uri: str) -> None:
        self._server = server
        self._path = path
        self._root_uri = root_uri

    @classmethod
    def at(cls, uri: str, server: RemoteServer) -> RemoteArtifactStore:
        """The store whose root is an `mlflow-artifacts:` URI.

        Args:
            uri: `mlflow-artifacts:/PATH`; one that names a host must name the server's.
            server: The tracking server.

        Raises:
            InvalidNameError: It names another host, or a path that is none.
        """
        parts = urlsplit(uri)
        if parts.netloc not in ("", urlsplit(server.uri).netloc):
            raise InvalidNameError(
                f"artifact location {shown(uri)} is at another server than {server.uri}: set "
                "tracking.uri to that one"
            )
        path = parse_artifact_path(parts.path.strip("/"))
        return cls(server, path, uri.rstrip("/"))

    @property
    def root_uri(self) -> str:
        """See ArtifactStore."""
        return self._root_uri

    def put(self, local: Path, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        pairs = [(file, self._joined(path, below)) for below, file in files_to_put(local)]
        for_each(lambda pair: self._upload(*pair), pairs)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """See ArtifactStore.

        Raises:
            UsageError: `local` exists already.
        """
        with arriving(local) as staged:
            # Listed first: a server may answer the question for a folder's bytes with any error.
            found = tuple(self._files_below(path))
            pairs = [(key, staged / key.removeprefix(path).strip("/")) for key in found]
            for folder in {target.parent for _, target in pairs}:
                folder.mkdir(parents=True, exist_ok=True)
            if pairs:
                for_each(lambda pair: self._download(*pair), pairs)
            elif not path or not self._downloaded(self._joined(path), staged):
                raise RecordNotFoundError(f"there is no artifact {path!r} in {self.root_uri}")
        return local

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """See ArtifactStore."""
        try:
            answer = self._server.ask("list_stored_artifacts", {"path": self._joined(path)})
        except RecordNotFoundError:
            return []
        found = [_below(path, file_of(item)) for item in answer.each("files")]
        return sorted(found, key=lambda info: info.path)

    def delete(self, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        place = self._joined(path)
        if not place:
            # The server's own root is no file that it could remove.
            for info in self.list(path):
                self.delete(ArtifactPath(info.path))
            return
        try:
            self._server.send("DELETE", _url(place))
        except RecordNotFoundError:
            return

    def _joined(self, *parts: str) -> str:
        return "/".join(part for part in (self._path, *parts) if part)

    def _upload(self, file: Path, place: str) -> None:
        n_bytes = file.stat().st_size
        url = self._server.uri + _url(place)
        headers = {"Content-Length": str(n_bytes), "Content-Type": "application/octet-stream"}

        def once() -> None:
            with file.open("rb") as opened:
                answer = self._server.client.put(url, content=_blocks(opened), headers=headers)
            self._server.check(answer)

        self._server.trying(once)

    def _downloaded(self, place: str, local: Path) -> bool:
        """Whether there was such a file, which then is at `local`."""

        def once() -> None:
            with self._server.streaming(_url(place)) as answer, local.open("wb") as file:
                for block in answer.iter_bytes(_BLOCK_BYTES):
                    file.write(block)

        try:
            self._server.trying(once)
        except RecordNotFoundError:
            return False
        return True

    def _download(self, path: str, local: Path) -> None:
        if not self._downloaded(self._joined(path), local):
            raise StoreUnavailableError(
                f"artifact {path!r} of {self.root_uri} was removed while it was read: run again"
            )

    def _files_below(self, path: ArtifactPath) -> Iterator[str]:
        for info in self.list(path):
            if info.is_folder:
                yield from self._files_below(ArtifactPath(info.path))
            else:
                yield info.path


def _url(place: str) -> str:
    return f"{_FILES}/{quote(place)}"


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _below(path: ArtifactPath, info: ArtifactInfo) -> ArtifactInfo:
    """A file with its path from the root; servers tell its name alone."""
    name = info.path.rpartition("/")[2]
    try:
        parse_artifact_path(name)
    except InvalidNameError as exc:
        raise UsageError(f"the server lists {shown(info.path)}, which is no name: {exc}") from exc
    return ArtifactInfo(f"{path}/{name}" if path else name, info.is_folder, info.n_bytes)
