"""Files through the server, in pieces: memory stays bounded, and no half file is ever seen.

Whatever lies in a file, a browser keeps it as a download and runs nothing of it.
"""

from __future__ import annotations

import mimetypes
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from anyio import to_thread
from starlette.types import Receive, Scope, Send

from sparkscore.errors import RecordNotFoundError, StoreUnavailableError
from sparkscore.names import ArtifactPath, parse_model_name, parse_run_id
from sparkscore.server.answers import send_fault, send_head, send_json
from sparkscore.server.api import Told, body_within, done, read_call, told, watched
from sparkscore.server.artifact_places import below, parse_safe_path, served_place
from sparkscore.server.calls import Call, Guard, RefusedError, Served
from sparkscore.server.dispatch import Match
from sparkscore.server.immutable import check_writable
from sparkscore.server.model_sources import source_place
from sparkscore.server.multipart import PART_ROUTE, PartArrival, part_place
from sparkscore.server.open_files import open_artifact
from sparkscore.server.verbs_models import parse_version
from sparkscore.stores.base import ArtifactStore, StreamedArtifactStore
from sparkscore.wire.reading import Given
from sparkscore.wire.statuses import Fault

_CHUNK_BYTES = 1024 * 1024
# What a browser might run, were it ever shown and not kept: told as plain text.
_RUNS = ("html", "xml", "svg", "javascript", "ecmascript", "x-shockwave-flash", "pdf")
_PLAIN_NAME = re.compile(r"[\w.\- ]+", re.ASCII)
_NO_RUNNING = (("content-security-policy", "sandbox; default-src 'none'"),)

Place = Callable[[Served, Given], ArtifactPath]


def stored_path(served: Served, given: Given) -> ArtifactPath:  # noqa: ARG001 - a place's signature
    """A path of the store itself."""
    return parse_safe_path(given.text("path").strip("/"))


def run_path(served: Served, given: Given) -> ArtifactPath:
    """A path below the files of a run."""
    run = served.runs.get_run(parse_run_id(given.text("run_id")))
    return served_place(served.artifacts, run.artifact_uri, given.text("path"))


def logged_model_path(served: Served, given: Given) -> ArtifactPath:
    """A path below the files of a logged model."""
    model = served.logged_models.get_logged_model(given.text("model_id"))
    return served_place(served.artifacts, model.artifact_uri, given.text("artifact_file_path"))


def version_path(served: Served, given: Given) -> ArtifactPath:
    """A path below the files of a model version."""
    version = served.models.get_version(parse_model_name(given.text("name")), parse_version(given))
    place = source_place(served, version.source)
    if place is None:
        raise RecordNotFoundError(
            f"version {version.version} of model {version.name!r} is not kept by this server: ask "
            "for its download URI and open that"
        )
    return below(place, given.text("path"))


PLACES: Mapping[str, Place] = {
    "put_stored_artifact": stored_path,
    "get_stored_artifact": stored_path,
    "get_run_artifact": run_path,
    "get_version_artifact": version_path,
    "get_logged_model_artifact": logged_model_path,
    "upload_run_artifact": run_path,
    PART_ROUTE: part_place,
}
"""How each route of bytes says where its file lies."""


class ByteRoutes:
    """Uploads and downloads."""

    def __init__(self, served: Served, guards: Sequence[Guard]) -> None:
        self._served = served
        self._guards = guards

    async def __call__(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a route of bytes."""
        if match.route.method == "GET":
            await self._download(match, scope, send)
        else:
            await self._upload(match, scope, receive, send)

    async def _download(self, match: Match, scope: Scope, send: Send) -> None:
        opened: list[tuple[ArtifactPath, BinaryIO]] = []

        def open_file() -> bytes:
            call = read_call(match, scope, b"")
            with watched(call, self._guards):
                place = self._place(call)
                opened.append((place, open_artifact(self._served.artifacts, place)))
            return done(call, self._guards, {})

        answered = await to_thread.run_sync(told, open_file, match.route)
        if not opened:
            await _refuse(send, answered)
            return
        path, file = opened[0]
        try:
            await _send_file(send, path, file)
        finally:
            await to_thread.run_sync(file.close)

    async def _upload(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        arrival: list[Arrival | PartArrival] = []

        def begin() -> bytes:
            call = read_call(match, scope, b"")
            with watched(call, self._guards):
                place = self._place(call)
                check_writable(self._served, place)
                kind = PartArrival if match.route.name == PART_ROUTE else Arrival
                with _disk(place):
                    arrival.append(kind(self._served.artifacts, place, call))
            return b""

        begun = await to_thread.run_sync(told, begin, match.route)
        if not arrival:
            await body_within(0, receive)
            await _refuse(send, begun)
            return
        try:
            answered = await self._receive(arrival[0], match, receive)
            if isinstance(answered, bytes):
                answered = await to_thread.run_sync(
                    told, lambda: self._finish(arrival[0]), match.route
                )
        finally:
            await to_thread.run_sync(arrival[0].discard)
        if isinstance(answered, bytes):
            await send_json(send, answered, arrival[0].headers)
        elif answered is not None:
            await _refuse(send, answered)

    async def _receive(
        self, arrival: Arrival | PartArrival, match: Match, receive: Receive
    ) -> Told | None:
        """Fill the file; None where the client left before the end."""
        limit = self._limit(match)
        held, n_bytes, more = bytearray(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            held += message.get("body", b"")
            more = message.get("more_body", False)
            if limit is not None and n_bytes + len(held) > limit:
                if more:
                    await body_within(0, receive)
                return Fault("REQUEST_TOO_LARGE", f"a file of at most {limit} bytes is taken here")
            if len(held) >= _CHUNK_BYTES or not more:
                n_bytes += len(held)
                written = await to_thread.run_sync(
                    told, lambda chunk=bytes(held): self._write(arrival, chunk), match.route
                )
                if not isinstance(written, bytes):
                    if more:
                        await body_within(0, receive)
                    return written
                held.clear()
        return b""

    def _write(self, arrival: Arrival | PartArrival, chunk: bytes) -> bytes:
        with _disk(arrival.path):
            return arrival.write(chunk)

    def _finish(self, arrival: Arrival | PartArrival) -> bytes:
        with _disk(arrival.path):
            arrival.store()
        return done(arrival.call, self._guards, {})

    def _limit(self, match: Match) -> int | None:
        if match.route.name == "upload_run_artifact":
            return match.route.max_bytes
        return self._served.settings.max_upload_bytes

    def _place(self, call: Call) -> ArtifactPath:
        return PLACES[call.route.name](self._served, call.given)


class Arrival:
    """A file that arrives in pieces: kept aside, and moved to its place when it is whole."""

    def __init__(self, store: ArtifactStore, path: ArtifactPath, call: Call) -> None:
        self.call = call
        self.path = path
        self.headers: tuple[tuple[str, str], ...] = ()
        self._store = store
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if isinstance(store, StreamedArtifactStore):
            self._staged = store.staging_path()
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="sparkscore-upload-")
            self._staged = Path(self._folder.name) / "file"
        self._file = self._staged.open("xb")

    def write(self, chunk: bytes) -> bytes:
        """Add a piece."""
        self._file.write(chunk)
        return b""

    def store(self) -> None:
        """Put the whole file in its place."""
        self._file.close()
        if isinstance(self._store, StreamedArtifactStore):
            self._store.take(self._staged, self.path)
        else:
            self._store.put(self._staged, self.path)

    def discard(self) -> None:
        """Remove what is left; nothing happens where the file was put in its place."""
        with suppress(OSError):
            self._file.close()
            self._staged.unlink(missing_ok=True)
            if self._folder is not None:
                self._folder.cleanup()


@contextmanager
def _disk(path: ArtifactPath) -> Iterator[None]:
    """Tell a disk that is full or gone as a store that is away."""
    try:
        yield
    except StoreUnavailableError:
        raise
    except OSError as exc:
        raise StoreUnavailableError(
            f"the server cannot keep {path!r} now ({exc.strerror}): try again"
        ) from exc


async def _send_file(send: Send, path: ArtifactPath, file: BinaryIO) -> None:
    n_bytes = await to_thread.run_sync(_size, file)
    name = path.rpartition("/")[2]
    headers = (
        ("content-type", _content_type(name)),
        ("content-length", str(n_bytes)),
        ("content-disposition", f"attachment; {_named(name)}"),
        *_NO_RUNNING,
    )
    await send_head(send, 200, headers)
    left = n_bytes
    while left > 0:
        chunk = await to_thread.run_sync(file.read, min(_CHUNK_BYTES, left))
        if not chunk:
            # Cut meanwhile: the promised length is not met, which a client takes as a failure.
            break
        left -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
    if n_bytes == 0:
        await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, answered: Told) -> None:
    if isinstance(answered, RefusedError):
        await send_fault(send, answered.fault, answered.headers)
    elif isinstance(answered, Fault):
        await send_fault(send, answered)


def _size(file: BinaryIO) -> int:
    n_bytes = file.seek(0, 2)
    file.seek(0)
    return n_bytes


def _named(name: str) -> str:
    """How the header names the file: as it is where every client reads that."""
    if _PLAIN_NAME.fullmatch(name):
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"


def _content_type(name: str) -> str:
    guessed, encoding = mimetypes.guess_type(name, strict=False)
    if guessed is None or encoding is not None:
        return "application/octet-stream"
    if any(part in guessed for part in _RUNS):
        return "text/plain; charset=utf-8"
    return guessed
