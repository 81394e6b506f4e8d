"""Files that a killed job wrote into a score table and that no commit ever named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.errors import EngineUnfitError, TargetError, TargetUnwritableError, shown
from sparkscore.files.commit_probe import PROBE_FILE
from sparkscore.files.filesystem import StorePath, TablePath, store_error, store_errors
from sparkscore.files.log import DRAFT, file_path, is_delta_table
from sparkscore.scoring.target import SCORE_FILE

_ACTIONS = ("add", "remove")
_SPARK_FILE = re.compile(r"part-\d{5,}-[0-9a-f-]{36}[-.]c\d{3,}\.\w+\.parquet")
"""Names of data files that Spark's own writer makes."""


@dataclass(frozen=True)
class Leftover:
    """A data file below a table's folder that no commit names; age since its last write."""

    path: TablePath
    n_bytes: int
    age_s: float


def leftovers(root: TablePath) -> list[Leftover]:
    """The data files that a job wrote below a table's folder and never committed.

    A file of an earlier version is none of them: the log still names it.

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
    found = []
    files: list[TablePath] = [path for path in root.rglob("*") if _is_ours(path)]
    for path in sorted(files, key=str):
        if _resolved(path) not in known:
            facts = path.stat()
            found.append(Leftover(path, facts.st_size, now - facts.st_mtime))
    return found


def _is_ours(path: TablePath) -> bool:
    patterns = (SCORE_FILE, _SPARK_FILE, PROBE_FILE, DRAFT)
    return any(pattern.fullmatch(path.name) for pattern in patterns)


def _resolved(path: TablePath) -> str:
    return str(path.resolve() if isinstance(path, Path) else path)


def remove_leftovers(found: list[Leftover]) -> None:
    """Remove the files, with Hadoop's checksums of them; one that is gone already is no error.

    Raises:
        TargetUnwritableError: One cannot be removed; those before it are.
    """
    for leftover in found:
        try:
            leftover.path.unlink(missing_ok=True)
            leftover.path.with_name(f".{leftover.path.name}.crc").unlink(missing_ok=True)
        except OSError as exc:
            if isinstance(leftover.path, StorePath):
                raise store_error(leftover.path, "file", TargetUnwritableError, exc) from exc
            raise TargetUnwritableError(
                f"{shown(str(leftover.path))} cannot be removed: {exc}; change the owner or "
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
    with _opened(path) as source:
        yield pq.ParquetFile(source)


def _opened(path: TablePath) -> pa.NativeFile:
    if isinstance(path, StorePath):
        return path.store.open_input(path.path)
    return pa.OSFile(str(path))


def _named_by(action: dict[str, dict[str, str] | None], root: TablePath) -> Iterator[str]:
    for kind in _ACTIONS:
        named = action.get(kind)
        if named is not None:
            with suppress(EngineUnfitError):  # It lies elsewhere, and so is none of the folder's.
                path = file_path(root, named["path"])
                yield path if isinstance(root, StorePath) else str(Path(path).resolve())
