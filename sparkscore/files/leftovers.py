"""Files that a killed job wrote into a score table and that no commit ever named.

Some of them are finished chunks that a next attempt at the same run would go on with; the run's
ledger names them (see `files.ledger`), and they are as old as the youngest sign of life in it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.errors import EngineUnfitError, TargetError, TargetUnwritableError, shown
from sparkscore.files.commit_probe import PROBE_FILE
from sparkscore.files.filesystem import (
    StoreFacts,
    StorePath,
    TablePath,
    open_input,
    store_error,
    store_errors,
)
from sparkscore.files.ledger import attempt_of, discarded, remove_ledger
from sparkscore.files.log import DRAFT, file_path, is_delta_table
from sparkscore.scoring.staged_names import LEDGER_FILE, SCORE_FILE

_ACTIONS = ("add", "remove")
_SPARK_FILE = re.compile(r"part-\d{5,}-[0-9a-f-]{36}[-.]c\d{3,}\.\w+\.parquet")
"""Names of data files that Spark's own writer makes."""
_CHECKSUM = re.compile(r"\.(.+)\.crc")
"""Names of Hadoop's checksum files, with the file's in it; on disks of a machine only."""


@dataclass(frozen=True)
class Leftover:
    """A file below a table's folder that no commit names.

    Attributes:
        age_s: Since its last write, or since the last sign of life of the run that it belongs to.
        run: The application id of that run, where its ledger is there.
    """

    path: TablePath
    n_bytes: int
    age_s: float
    run: str | None = None


def leftovers(root: TablePath) -> list[Leftover]:
    """The files that a job wrote below a table's folder and never committed.

    A file of an earlier version is none of them: the log still names it. Hadoop's checksum of a
    file is one where the file itself is gone, and goes with it else.

    Raises:
        TargetError: The folder is not there, or its log cannot be read.
        StoreUnavailableError: The store that it lies in does not answer.
    """
    with store_errors(root, "target", TargetError):
        if not root.is_dir():
            place = "folder of this machine" if isinstance(root, Path) else "folder of the store"
            raise TargetError(f"target {shown(str(root))} is no {place}")
        return _leftovers(root.resolve() if isinstance(root, Path) else root)


def _leftovers(root: TablePath) -> list[Leftover]:
    try:
        known = set(_logged(root)) if is_delta_table(root) else set()
    except (OSError, ValueError, pa.ArrowException) as exc:
        if isinstance(root, StorePath) and isinstance(exc, OSError):
            raise  # The store's answer, and not what the log holds.
        raise TargetError(
            f"the log of target {shown(str(root))} cannot be read: {exc}; nothing was removed"
        ) from exc
    now = time.time()
    paths: list[TablePath] = [p for p in root.rglob("*") if _is_ours(p.name) or _is_orphan(p)]
    found = [
        Leftover(path, facts.st_size, now - facts.st_mtime)
        for path in sorted(paths, key=str)
        if _resolved(path) not in known and (facts := _facts(path)) is not None
    ]
    return _by_run(found)


def _facts(path: TablePath) -> os.stat_result | StoreFacts | None:
    try:
        return path.stat()
    except FileNotFoundError:  # Its job has just removed it.
        return None


def _by_run(found: Sequence[Leftover]) -> list[Leftover]:
    """The same, with the run of those that a ledger tells of, and its last sign of life."""
    ages: dict[str, float] = {}
    runs: dict[str, str] = {}
    for one in found:
        if LEDGER_FILE.fullmatch(one.path.name):
            run = one.path.parent.name
            ages[run] = min(one.age_s, ages.get(run, one.age_s))
            runs[attempt_of(one.path.name)] = run
    marked = []
    for one in found:
        match = SCORE_FILE.fullmatch(one.path.name)
        its_run = runs.get(match[1] if match else attempt_of(one.path.name))
        if its_run is None:
            marked.append(one)
        else:
            marked.append(replace(one, run=its_run, age_s=min(one.age_s, ages[its_run])))
    return marked


def _is_ours(name: str) -> bool:
    patterns = (SCORE_FILE, LEDGER_FILE, _SPARK_FILE, PROBE_FILE, DRAFT)
    return any(pattern.fullmatch(name) for pattern in patterns)


def _is_orphan(path: TablePath) -> bool:
    """Whether it is the checksum of a data file that is gone, as deltalake's VACUUM leaves it."""
    match = _CHECKSUM.fullmatch(path.name)
    if match is None or not (SCORE_FILE.fullmatch(match[1]) or _SPARK_FILE.fullmatch(match[1])):
        return False
    return not path.with_name(match[1]).is_file()


def _resolved(path: TablePath) -> str:
    return str(path.resolve() if isinstance(path, Path) else path)


def remove_leftovers(root: TablePath, found: Sequence[Leftover]) -> list[Leftover]:
    """Remove the files, with Hadoop's checksums of them; one that is gone already is no error.

    A run of which an attempt has begun since they were found keeps its files.

    Args:
        root: The table's folder.
        found: Some of its leftovers.

    Returns:
        Those that are not there any more.

    Raises:
        TargetUnwritableError: One cannot be removed; those before it are.
        StoreUnavailableError: The store that it lies in does not answer.
    """
    with store_errors(root, "target", TargetError):
        left = _unclaimed(root.resolve() if isinstance(root, Path) else root, found)
    # A ledger goes after the files that it names, and its marks last of all.
    for leftover in left:
        if not LEDGER_FILE.fullmatch(leftover.path.name):
            _remove(leftover.path)
    for folder, attempts in _ledgers(left).items():
        with _removal_errors(folder):
            remove_ledger(folder, attempts)
    return left


def _unclaimed(root: TablePath, found: Sequence[Leftover]) -> list[Leftover]:
    """Those that nobody can commit any more, nor has committed since they were found."""
    busy = set()
    for folder, attempts in _ledgers(found).items():
        with _removal_errors(folder):
            if not discarded(folder, attempts):
                busy.add(folder.name)
    logged = set(_logged(root)) if is_delta_table(root) else set()
    return [one for one in found if one.run not in busy and _resolved(one.path) not in logged]


def _ledgers(found: Sequence[Leftover]) -> dict[TablePath, set[str]]:
    """The ledgers among leftovers, and the attempts that each tells of."""
    ledgers: dict[TablePath, set[str]] = {}
    for one in found:
        if LEDGER_FILE.fullmatch(one.path.name):
            ledgers.setdefault(one.path.parent, set()).add(attempt_of(one.path.name))
    return ledgers


def _remove(path: TablePath) -> None:
    with _removal_errors(path):
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


@contextmanager
def _removal_errors(path: TablePath) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if isinstance(path, StorePath):
            raise store_error(path, "file", TargetUnwritableError, exc) from exc
        raise TargetUnwritableError(
            f"{shown(str(path))} cannot be removed: {exc}; change the owner or "
            "mode of its folder and run the same command again"
        ) from exc


def _logged(root: TablePath) -> Iterator[str]:
    """Every file of this machine or store that any commit or checkpoint of the table names."""
    log = root / "_delta_log"
    for path in log.glob("*.json"):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield from _named_by(json.loads(line), root)
    sidecars = (log / "_sidecars").glob("*.parquet")
    for path in [*log.glob("*.checkpoint*.parquet"), *sidecars]:
        with _parquet_file(path) as file:
            names = file.schema_arrow.names
            columns = [f"{action}.path" for action in _ACTIONS if action in names]
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    yield from _named_by(row, root)


@contextmanager
def _parquet_file(path: TablePath) -> Iterator[pq.ParquetFile]:
    with open_input(path) as source:
        yield pq.ParquetFile(source)


def _named_by(action: dict[str, dict[str, str] | None], root: TablePath) -> Iterator[str]:
    for kind in _ACTIONS:
        named = action.get(kind)
        if named is not None:
            with suppress(EngineUnfitError):  # It lies elsewhere, and so is none of the folder's.
                path = file_path(root, named["path"])
                yield path if isinstance(root, StorePath) else str(Path(path).resolve())
