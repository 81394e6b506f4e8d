"""Large files in parts: each is kept aside, and all become one file when the client says so.

The parts lie in a folder of this machine that all processes of a server share. Where the store is
a folder too, it is the same disk, so that the whole is moved to its place and not copied.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from sparkscore.errors import RecordNotFoundError, UsageError, shown
from sparkscore.names import ArtifactPath
from sparkscore.server.artifact_places import below, parse_safe_path
from sparkscore.server.calls import Call, Outcome, RefusedError, Served, Verb
from sparkscore.server.immutable import check_writable
from sparkscore.stores.base import ArtifactStore, StreamedArtifactStore
from sparkscore.stores.transfers import STAGING_PREFIX
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json
from sparkscore.wire.routes import all_routes
from sparkscore.wire.statuses import Fault

PART_ROUTE = "put_artifact_part"
_PREFIX = f"{STAGING_PREFIX}parts-"
_ID = re.compile(r"[0-9a-f]{32}")
_BY_WHOM = re.compile(r"[\\/]")
_TARGET = "target"
_WHOLE = "whole"
_STALE_S = 24 * 3600


def start(served: Served, given: Given) -> Json:
    """Begin an upload; `MultipartLinks` tells where its parts go."""
    path = _path(given)
    check_writable(served, path)
    _remove_stale(served.artifacts)
    upload_id = uuid.uuid4().hex
    folder = _folder(served.artifacts, upload_id)
    folder.mkdir(mode=0o700)
    (folder / _TARGET).write_text(path, encoding="utf-8")
    place = all_routes()[PART_ROUTE].url_path.replace("{path:path}", quote(path))
    return {
        "upload_id": upload_id,
        "credentials": [
            {
                "url": f"{place}?{urlencode({'upload_id': upload_id, 'part_number': number})}",
                "part_number": number,
                "headers": {},
            }
            for number in range(1, given.whole("num_parts", 1) + 1)
        ],
    }


def complete(served: Served, given: Given) -> Json:
    """Put the parts together, in the order of their numbers, as one file.

    Raises:
        RecordNotFoundError: There is no such upload.
        UsageError: A part is not there as its digest says.
    """
    path = _path(given)
    check_writable(served, path)
    folder = _known(served.artifacts, path, given)
    told = {part.whole("part_number"): part.text("etag").strip('"') for part in given.each("parts")}
    parts = [_kept_part(folder, number, told[number]) for number in sorted(told)]
    if not parts:
        raise UsageError("parts is empty: name each part that was sent")
    limit = served.settings.max_upload_bytes
    if limit is not None and sum(part.stat().st_size for part in parts) > limit:
        raise RefusedError(
            Fault("REQUEST_TOO_LARGE", f"a file of at most {limit} bytes is taken here")
        )
    # Claimed by its name, so that the same request once more finds nothing, and never a half.
    joining = folder.with_name(f"{folder.name}-joining")
    try:
        folder.rename(joining)
    except FileNotFoundError as exc:
        raise _unknown(given) from exc
    try:
        whole = _joined([joining / part.name for part in parts], joining / _WHOLE)
        if isinstance(served.artifacts, StreamedArtifactStore):
            served.artifacts.take(whole, path)
        else:
            served.artifacts.put(whole, path)
    finally:
        shutil.rmtree(joining, ignore_errors=True)
    return {}


def abort(served: Served, given: Given) -> Json:
    """Remove the parts of an upload.

    Raises:
        RecordNotFoundError: There is no such upload.
    """
    shutil.rmtree(_known(served.artifacts, _path(given), given))
    return {}


VERBS: dict[str, Verb] = {
    "start_multipart_upload": start,
    "complete_multipart_upload": complete,
    "abort_multipart_upload": abort,
}


class PartArrival:
    """One part as it arrives; it counts once all of it is there, and replaces an earlier try.

    Raises:
        RecordNotFoundError: There is no such upload.
    """

    def __init__(self, store: ArtifactStore, path: ArtifactPath, call: Call) -> None:
        self.call = call
        self.path = path
        self._number = call.given.whole("part_number")
        self._folder = _known(store, path, call.given)
        self._staged = self._folder / f"{uuid.uuid4().hex}.incoming"
        self._digest = hashlib.sha256()
        self._file = self._staged.open("xb")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What tells the part's digest; the client names it when the upload is complete."""
        return (("etag", f'"{self._digest.hexdigest()}"'),)

    def write(self, chunk: bytes) -> bytes:
        """Add a piece."""
        self._digest.update(chunk)
        self._file.write(chunk)
        return b""

    def store(self) -> None:
        """Count the part as there."""
        self._file.close()
        for earlier in self._folder.glob(f"{self._number:05}.*"):
            earlier.unlink(missing_ok=True)
        self._staged.rename(self._folder / f"{self._number:05}.{self._digest.hexdigest()}")

    def discard(self) -> None:
        """Remove what is left of a part that did not arrive."""
        with suppress(OSError):
            self._file.close()
            self._staged.unlink(missing_ok=True)


class MultipartLinks:
    """A guard that makes the places of parts whole URLs, as this caller reached the server.

    Clients send parts without their credentials: who gave some in a header gets it back with each
    URL, to be sent with the part.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def before(self, call: Call) -> None:
        """See Guard."""

    def after(self, call: Call, outcome: Outcome) -> Json | None:
        """See Guard."""
        if call.route.name != "start_multipart_upload" or outcome.answer is None:
            return None
        headers = {name.decode("latin-1"): value for name, value in call.scope["headers"]}
        root = f"{call.scope['scheme']}://{headers.get('host', b'').decode('latin-1')}"
        sent = headers.get("authorization")
        with_it = {} if sent is None else {"Authorization": sent.decode("latin-1")}
        credentials = outcome.answer["credentials"]
        assert isinstance(credentials, list)
        told = [
            {**it, "url": f"{root}{self._prefix}{it['url']}", "headers": with_it}
            for it in credentials
        ]
        return {**outcome.answer, "credentials": told}


def part_place(served: Served, given: Given) -> ArtifactPath:  # noqa: ARG001 - a place's signature
    """The path of the file that a part is of."""
    return parse_safe_path(given.text("path").strip("/"))


def _path(given: Given) -> ArtifactPath:
    """The path of the whole file; clients name the local one, of which the last part counts."""
    name = _BY_WHOM.split(given.text("path"))[-1]
    if not name:
        raise UsageError(f"path {shown(given.text('path'))} names no file")
    return below(parse_safe_path(given.text("folder").strip("/")), name)


def _folder(store: ArtifactStore, upload_id: str) -> Path:
    if isinstance(store, StreamedArtifactStore):
        return store.staging_path().with_name(f"{_PREFIX}{upload_id}")
    return Path(tempfile.gettempdir()) / f"sparkscore{_PREFIX}{upload_id}"


def _known(store: ArtifactStore, path: ArtifactPath, given: Given) -> Path:
    upload_id = given.text("upload_id")
    if not _ID.fullmatch(upload_id):
        raise _unknown(given)
    folder = _folder(store, upload_id)
    try:
        if (folder / _TARGET).read_text(encoding="utf-8") == path:
            return folder
    except FileNotFoundError:
        pass
    raise _unknown(given)


def _kept_part(folder: Path, number: int, digest: str) -> Path:
    part = folder / f"{number:05}.{digest}"
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or not part.is_file():
        raise UsageError(
            f"parts: part {number} with etag {shown(digest)} is not there; send it again, and give "
            "the header ETag of its answer"
        )
    return part


def _joined(parts: list[Path], whole: Path) -> Path:
    """One file of all parts; the first becomes it, so that a single one is not copied."""
    parts[0].rename(whole)
    with whole.open("ab") as file:
        for part in parts[1:]:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
            part.unlink()
    return whole


def _remove_stale(store: ArtifactStore) -> None:
    """Remove uploads that nobody has gone on with for a day."""
    beside = _folder(store, "0")
    for folder in beside.parent.glob(f"{beside.name[:-1]}*"):
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def _unknown(given: Given) -> RecordNotFoundError:
    return RecordNotFoundError(
        f"upload_id {shown(given.text('upload_id'))} is of no upload of this path: begin anew"
    )
