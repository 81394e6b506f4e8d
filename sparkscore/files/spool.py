"""Messages that were received and are not scored yet: kept, before anybody is told that they are.

A broker forgets a message once it is acknowledged. So a message lies here, durably, before it is;
and from here on it has a place, and can be read again, which is all that a stream needs.

What one call adds is one segment. Its file is written under a name that no reader looks at; then
the state names it, and which messages it holds; then it gets its name. Whoever is killed in
between has added the segment if the state names it, and has added nothing if not.
"""

from __future__ import annotations

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

from sparkscore.errors import CheckpointError, SourceAwayError, shown
from sparkscore.whole_files import write_whole

SPOOLED = pa.schema(
    [
        pa.field("value", pa.binary()),
        pa.field("mqtt_topic", pa.string()),
        pa.field("mqtt_received_at", pa.timestamp("us", "UTC")),
    ]
)
"""The columns of a segment: a row a message."""
SPOOL_OPTION = "spool"
"""Which source option names the folder of the spool."""
N_REMEMBERED = 2000
"""Messages that are known again; brokers send less than that before they wait for an answer."""
_STATE = "state.json"
_SEGMENTS = "segments"


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

    Raises:
        SourceAwayError: Another process fills the spool.
        CheckpointError: It cannot be written, or its state cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest = 0
        self._recent: deque[str] = deque(maxlen=N_REMEMBERED)
        self._unnamed: list[Message] = []
        self._lock = FileLock(folder / "lock")
        with self._writable():
            (folder / _SEGMENTS).mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as exc:
                raise SourceAwayError(
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

        Raises:
            CheckpointError: They cannot be written; the same call may be made again.
        """
        with self._writable():
            if list(messages) != self._unnamed:
                self._name()
                number = self._newest + 1
                recent = deque(self._recent, N_REMEMBERED)
                recent.extend(message.digest for message in messages)
                _write_synced(_draft_of(segment_path(self._folder, number)), _table(messages))
                state = {"segment": number, "recent": list(recent)}
                write_whole(self._folder / _STATE, json.dumps(state))
                _sync_folder(self._folder)
                # From here on it is added: who opens it next finds draft and state, and a call
                # that is made again has only its name to give.
                self._newest, self._recent, self._unnamed = number, recent, list(messages)
            self._name()

    def _name(self) -> None:
        """Let readers see the newest segment, if they do not yet."""
        if not self._unnamed:
            return
        final = segment_path(self._folder, self._newest)
        if _draft_of(final).is_file():
            _draft_of(final).replace(final)
        _sync_folder(final.parent)
        self._unnamed = []

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

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except SourceAwayError:
            raise
        except OSError as exc:
            raise CheckpointError(
                f"the spool {shown(str(self._folder))} cannot be written: {exc}; make room, or "
                "give this user the right to write there"
            ) from exc


def _table(messages: Sequence[Message]) -> pa.Table:
    columns = [
        [message.payload for message in messages],
        [message.topic for message in messages],
        [message.received_at for message in messages],
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SPOOLED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SPOOLED)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _write_synced(path: Path, rows: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(rows, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names durable that files of a folder have got."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
