"""What the attempts at a run have finished, kept beside its table until the run's one commit.

A run's ledger is a folder below the table's, where no reader of Delta looks:

    _sparkscore/<application id>/attempt-<attempt>.json              an attempt has begun
                                 chunk-<chunk>-<try>-<attempt>.json    what it wrote for one chunk
                                 discarded-<attempt>                 nobody may use what it wrote

Attempts at one run may be alive at once, and one that was stopped for an hour goes on where it
was. So until the commit nobody removes what another attempt has written, or may be using: who wants
to remove its own first says `discarded`, and then looks for other attempts; who wants to use what
it finds first says `attempt`, and then looks for what is discarded. One of the two sees the other,
and no store has to lock anything for that.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparkscore.errors import StagedFilesGoneError, TargetUnwritableError, shown
from sparkscore.files.filesystem import TablePath, store_errors
from sparkscore.files.writing import WrittenFile, new_file
from sparkscore.scoring.staged_names import LEDGER_FOLDER

_ATTEMPT, _CHUNK, _DISCARDED = "attempt-", "chunk-", "discarded-"
_MAX_AGE_S = 3 * 24 * 3600
"""Older files are not used again: VACUUM takes what is in no commit after seven days."""
_N_AT_ONCE = 16
"""A store answers in 20 to 50 ms, and a long run has thousands of chunks."""

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Record:
    """What one attempt wrote for one chunk of the run's input.

    Attributes:
        result: The worker's own words.
    """

    chunk: str
    run_id: str
    result: str


@dataclass(frozen=True)
class Earlier:
    """What a new attempt finds.

    Attributes:
        attempts: All others at this run, of whatever inputs.
        cuts: Into chunks of about how many bytes those of the same inputs may have cut it.
        records: Of chunks that these have finished, and that may be used.
    """

    attempts: frozenset[str]
    cuts: frozenset[int]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Ledger:
    """The ledger of a run, as one attempt at it writes it; travels to workers.

    Attributes:
        root: The table's folder.
        app_id: The run's application id.
        attempt: Which attempt writes.
        run_id: Under which name it is on record.
        inputs: Digest of all that decides what a chunk's files hold.
    """

    root: TablePath
    app_id: str
    attempt: str
    run_id: str
    inputs: str

    @property
    def folder(self) -> TablePath:
        """Where it lies."""
        return self.root / LEDGER_FOLDER / self.app_id

    def claim(self, chunk_bytes: int) -> Earlier:
        """Say that this attempt has begun, and learn what others have finished.

        Args:
            chunk_bytes: Into chunks of about how many bytes this attempt would cut the input.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            claim = {"run_id": self.run_id, "inputs": self.inputs, "chunk_bytes": chunk_bytes}
            _put(self.folder / f"{_ATTEMPT}{self.attempt}.json", json.dumps(claim))
            return self._earlier()

    def record(self, chunk: str, result: str) -> None:
        """Keep what this attempt has written for a chunk; said twice, any of them counts."""
        with store_errors(self.root, "target", TargetUnwritableError):
            facts = {"run_id": self.run_id, "inputs": self.inputs, "result": result}
            # A name of its own, since HDFS writes no file over another.
            name = f"{_CHUNK}{chunk}-{uuid.uuid4().hex[:8]}-{self.attempt}.json"
            _put(self.folder / name, json.dumps(facts))

    def check_claim(self) -> None:
        """See that nobody has removed what this attempt is about to commit.

        Raises:
            StagedFilesGoneError: `score clean` has, or another attempt has committed the run.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            if not (self.folder / f"{_ATTEMPT}{self.attempt}.json").is_file():
                raise StagedFilesGoneError(
                    f"what this job has written to {shown(str(self.root))} was removed meanwhile, "
                    "as by `sparkscore score clean`; nothing was committed; run the same command "
                    "again"
                )

    def discard(self) -> bool:
        """Let nobody use what this attempt has written.

        Returns:
            Whether its files may be removed: no other attempt can be using them.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            return discarded(self.folder, {self.attempt})

    def remove(self, earlier: Collection[str] = ()) -> None:
        """Remove what it tells of this and earlier attempts, whose files are committed or gone."""
        with store_errors(self.root, "target", TargetUnwritableError):
            remove_ledger(self.folder, {self.attempt, *earlier})

    def _earlier(self) -> Earlier:
        names = [path.name for path in self.folder.glob("*")]
        attempts = attempts_in(names) - {self.attempt}
        usable = attempts - {attempt_of(name) for name in names if name.startswith(_DISCARDED)}
        usable_names = [name for name in names if attempt_of(name) in usable]
        claims = together(self._read, [n for n in usable_names if n.startswith(_ATTEMPT)])
        records = together(self._record_in, [n for n in usable_names if n.startswith(_CHUNK)])
        return Earlier(
            attempts=frozenset(attempts),
            cuts=frozenset(int(str(claim["chunk_bytes"])) for claim in claims if claim is not None),
            records=tuple(record for record in records if record is not None),
        )

    def _record_in(self, name: str) -> Record | None:
        facts = self._read(name)
        if facts is None:
            return None
        chunk = name.removeprefix(_CHUNK).partition("-")[0]
        return Record(chunk, str(facts["run_id"]), str(facts["result"]))

    def _read(self, name: str) -> dict[str, object] | None:
        """A file's content; None where it is not whole, gone, or of other inputs."""
        try:
            facts = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # The writer was killed, or writes just now.
            return None
        return facts if facts["inputs"] == self.inputs else None


def are_there(folder: TablePath, files: Iterable[WrittenFile]) -> bool:
    """Whether files lie below a folder as they were written, and VACUUM leaves them alone."""
    youngest_ms = (time.time() - _MAX_AGE_S) * 1000
    for file in files:
        try:
            found = (folder / file.path).stat()
        except FileNotFoundError:
            return False
        if found.st_size != file.n_bytes or file.modified_ms < youngest_ms:
            return False
    return True


def attempts_in(names: Iterable[str]) -> frozenset[str]:
    """The attempts that files of a ledger tell of."""
    return frozenset(attempt_of(name) for name in names)


def attempt_of(name: str) -> str:
    """The attempt that a file of a ledger tells of."""
    return name.removesuffix(".json").rpartition("-")[2]


def discarded(folder: TablePath, attempts: Collection[str]) -> bool:
    """Let nobody use what attempts at a run have written.

    Args:
        folder: The run's ledger.
        attempts: Those that are over, as far as the caller knows.

    Returns:
        Whether their files may be removed: no other attempt may be using them.
    """
    for mark in (folder / f"{_DISCARDED}{attempt}" for attempt in attempts):
        if not mark.is_file():
            _put(mark, "")
    return attempts_in(path.name for path in folder.glob("*")) <= set(attempts)


def remove_ledger(folder: TablePath, attempts: Collection[str]) -> None:
    """Remove what a ledger tells of attempts; that they are discarded goes last."""
    paths: list[TablePath] = [p for p in folder.glob("*") if attempt_of(p.name) in attempts]
    for path in sorted(paths, key=lambda path: path.name.startswith(_DISCARDED)):
        path.unlink(missing_ok=True)
    if isinstance(folder, Path):
        with suppress(OSError):  # Another run's ledger is there, or a late worker's record.
            folder.rmdir()
            folder.parent.rmdir()


def together(ask: Callable[[_Item], _Answer], items: Sequence[_Item]) -> list[_Answer]:
    """The answers in the order of the items, several asked at once."""
    with ThreadPoolExecutor(_N_AT_ONCE) as pool:
        return list(pool.map(ask, items))


def _put(path: TablePath, text: str) -> None:
    with new_file(path) as file:
        file.write(text.encode())
