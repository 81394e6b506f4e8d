"""Messages that were received and are not scored yet: kept, before anybody is told that they are.

A broker forgets a message once it is acknowledged. So a message lies here, durably, before it is;
and from here on the rows have numbers, and can be read again, which is all that a stream needs.

What one call adds is one segment. Its file is written under a name that no reader looks at; then
the state names it, and which messages it holds; then it gets its name. Whoever is killed in
between has added the segment if the state names it, and has added nothing if not.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from sparkscore.errors import CheckpointError, SourceError, SourceUnavailableError, listed, shown
from sparkscore.files.json_reading import is_readable_json, parsed_lines
from sparkscore.files.lines import lines_of
from sparkscore.files.planning import FilePiece
from sparkscore.whole_files import write_whole

ENVELOPE = pa.schema({"topic": pa.string(), "received_at": pa.timestamp("us", "UTC")})
"""What is known of each message, after the columns of its payload."""
N_REMEMBERED = 2000
"""Messages that are known again; brokers send less than that before they wait for an answer."""
_MAX_MALFORMED_FILES = 200
_STATE = "state.json"
_SEGMENTS = "segments"
_MALFORMED = "malformed"


@dataclass(frozen=True)
class Message:
    """What a feed has received.

    Attributes:
        received_at: In UTC.
    """

    topic: str
    payload: bytes
    received_at: dt.datetime

    @property
    def digest(self) -> str:
        """What tells it from other messages; when it came is no part of it."""
        return blake2b(self.topic.encode() + b"\0" + self.payload, digest_size=8).hexdigest()


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment of a spool lies, by its number, which begins at 1."""
    return folder / _SEGMENTS / f"{number:020}.parquet"


def segments_in(folder: Path) -> list[int]:
    """Numbers of the segments that a spool holds, ascending; some may be missing in between."""
    return sorted(int(path.stem) for path in (folder / _SEGMENTS).glob("[0-9]*.parquet"))


class Spool:
    """The folder that one feed of one stream keeps its messages in.

    Args:
        folder: Its own; on this machine, or on a file system that workers see at the same path.
        schema: Columns of a payload, which is one JSON object; then those of `ENVELOPE`.

    Raises:
        SourceError: A column is of a type that JSON text does not tell exactly.
        SourceUnavailableError: Another process fills the spool.
        CheckpointError: It cannot be written, or its state cannot be read.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._payload = pa.schema([f for f in schema if f.name not in ENVELOPE.names])
        self._schema = schema
        _check_types(self._payload)
        self.n_malformed = 0
        self._newest = 0
        self._recent: deque[str] = deque(maxlen=N_REMEMBERED)
        with self._writable():
            for name in (_SEGMENTS, _MALFORMED):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout as exc:
                raise SourceUnavailableError(
                    f"the spool {shown(str(folder))} is being filled by another process, which "
                    "gets the messages of this stream; end that one, or wait until it has ended"
                ) from exc
            try:
                self._recover()
            except BaseException:
                self._lock.release()
                raise

    @property
    def recent(self) -> Sequence[str]:
        """Digests of the last messages that were added, the newest last."""
        return tuple(self._recent)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever added."""
        return self._newest == 0

    def add(self, messages: Sequence[Message]) -> None:
        """Keep messages, all or none; durably when this returns.

        A payload that is no JSON object of the schema is set aside with its reason, and counted.

        Raises:
            CheckpointError: They cannot be written; nothing of them is kept.
        """
        number = self._newest + 1
        rows, malformed = self._parsed(messages)
        recent = deque(self._recent, N_REMEMBERED)
        recent.extend(message.digest for message in messages)
        final = segment_path(self._folder, number)
        with self._writable():
            if rows.num_rows:
                _write_synced(_draft_of(final), rows)
            if malformed:
                text = "".join(json.dumps(one) + "\n" for one in malformed)
                write_whole(self._malformed_path(number), text)
            state = {"segment": number, "recent": list(recent)}
            write_whole(self._folder / _STATE, json.dumps(state))
            _sync_folder(self._folder)
            # From here on it is added: who is killed now finds draft and state when they open it.
            self._newest, self._recent = number, recent
            self.n_malformed += len(malformed)
            if rows.num_rows:
                _draft_of(final).replace(final)
                _sync_folder(final.parent)
        if malformed:
            self._forget_old_malformed()

    def close(self) -> None:
        """Let another process fill it."""
        self._lock.release()

    def _recover(self) -> None:
        """Bring a process's work to its end that was killed, or take it back."""
        path = self._folder / _STATE
        state: dict[str, Any] = {"segment": 0, "recent": []}
        if path.is_file():
            try:
                state = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as exc:
                raise CheckpointError(
                    f"the spool's state {shown(str(path))} is damaged: {exc}; put it back from a "
                    "backup, or start over with --start-over and a new --checkpoint"
                ) from exc
        self._newest = int(state["segment"])
        self._recent.extend(state["recent"])
        final = segment_path(self._folder, self._newest)
        if _draft_of(final).is_file():
            _draft_of(final).replace(final)
        for draft in final.parent.glob(".*"):
            draft.unlink()
        for other in (self._folder / _MALFORMED).glob("[0-9]*"):
            if int(other.stem) > self._newest:
                other.unlink()

    def _parsed(self, messages: Sequence[Message]) -> tuple[pa.Table, list[dict[str, str]]]:
        """The rows of those messages that are well formed, and what is to be said of the others."""
        try:
            return pa.Table.from_batches([self._rows(messages)]), []
        except SourceError:
            pass  # Some are not: which ones, each is asked by itself.
        batches, malformed = [], []
        for message in messages:
            try:
                batches.append(self._rows([message]))
            except SourceError as exc:
                malformed.append(
                    {
                        "topic": message.topic,
                        "received_at": message.received_at.isoformat(),
                        "payload": base64.b64encode(message.payload).decode(),
                        "reason": str(exc),
                    }
                )
        return pa.Table.from_batches(batches, self._schema), malformed

    def _rows(self, messages: Sequence[Message]) -> pa.RecordBatch:
        # Outside of texts, where they are not allowed, ends of lines are mere spaces.
        payloads = [m.payload.replace(b"\n", b" ").replace(b"\r", b" ") for m in messages]
        try:
            lines = lines_of(b"\n".join(payloads) + b"\n")
        except pa.ArrowInvalid as exc:
            raise SourceError("a payload is no UTF-8") from exc
        if len(lines.texts) != len(messages):
            raise SourceError("a payload is empty")
        values = parsed_lines(lines, FilePiece("message", 0, 1), self._payload)
        known = {
            "topic": pa.array([m.topic for m in messages], pa.string()),
            "received_at": pa.array([m.received_at for m in messages], ENVELOPE.field(1).type),
        }
        columns = dict(zip(self._payload.names, values.columns, strict=True)) | known
        return pa.RecordBatch.from_arrays(
            [columns[name] for name in self._schema.names], schema=self._schema
        )

    def _malformed_path(self, number: int) -> Path:
        return self._folder / _MALFORMED / f"{number:020}.jsonl"

    def _forget_old_malformed(self) -> None:
        """Keep the newest: a sensor that has gone mad must not fill the disk."""
        for path in sorted((self._folder / _MALFORMED).glob("[0-9]*"))[:-_MAX_MALFORMED_FILES]:
            path.unlink(missing_ok=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if isinstance(exc, SourceUnavailableError):
                raise
            raise CheckpointError(
                f"the spool {shown(str(self._folder))} cannot be written: {exc}; make room, or "
                "give this user the right to write there"
            ) from exc


def _check_types(payload: pa.Schema) -> None:
    other = [str(field) for field in payload if not is_readable_json(field.type)]
    if other:
        raise SourceError(
            f"--source-schema has columns whose values JSON text does not tell exactly: "
            f"{listed(other)}; take BIGINT, DOUBLE, STRING, BOOLEAN, DATE or TIMESTAMP, and "
            "cast in the model"
        )


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _write_synced(path: Path, rows: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(rows.combine_chunks(), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names durable that files of a folder have got."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
