"""Files that a killed job wrote into a score table and that no commit ever named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.errors import EngineUnfitError, TargetError, TargetUnwritableError, shown
from sparkscore.files.log import is_delta_table, local_path
from sparkscore.scoring.target import SCORE_FILE

_ACTIONS = ("add", "remove")
_SPARK_FILE = re.compile(r"part-\d{5,}-[0-9a-f-]{36}[-.]c\d{3,}\.\w+\.parquet")
"""Names of data files that Spark's own writer makes."""


@dataclass(frozen=True)
class Leftover:
    """A data file below a table's folder that no commit names; age since its last write."""

    path: Path
    n_bytes: int
    age_s: float


def leftovers(root: Path) -> list[Leftover]:
    """The data files that a job wrote below a table's folder and never committed.

    A file of an earlier version is none of them: the log still names it.

    Raises:
        TargetError: The folder is not there, or its log cannot be read.
    """
    if not root.is_dir():
        raise TargetError(f"target {shown(str(root))} is no folder of this machine")
    root = root.resolve()
    try:
        known = set(_logged(root)) if is_delta_table(root) else set()
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise TargetError(
            f"the log of target {shown(str(root))} cannot be read: {exc}; nothing was removed"
        ) from exc
    now = time.time()
    found = []
    for path in sorted(root.rglob("*.parquet")):
        is_data = SCORE_FILE.fullmatch(path.name) or _SPARK_FILE.fullmatch(path.name)
        if is_data and path.resolve() not in known:
            facts = path.stat()
            found.append(Leftover(path, facts.st_size, now - facts.st_mtime))
    return found


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
            raise TargetUnwritableError(
                f"{shown(str(leftover.path))} cannot be removed: {exc}; change the owner or "
                "mode of its folder and run the same command again"
            ) from exc


def _logged(root: Path) -> Iterator[Path]:
    """Every file of this machine that any commit or checkpoint of the table names."""
    log = root / "_delta_log"
    for path in log.glob("*.json"):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield from _named_by(json.loads(line), root)
    checkpoints = [*log.glob("*.checkpoint*.parquet"), *log.glob("_sidecars/*.parquet")]
    for path in checkpoints:
        file = pq.ParquetFile(path)
        columns = [f"{action}.path" for action in _ACTIONS if action in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                yield from _named_by(row, root)


def _named_by(action: dict[str, dict[str, str] | None], root: Path) -> Iterator[Path]:
    for kind in _ACTIONS:
        named = action.get(kind)
        if named is not None:
            with suppress(EngineUnfitError):  # It lies elsewhere, and so is none of the folder's.
                yield Path(local_path(root, named["path"])).resolve()
