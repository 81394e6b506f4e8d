"""The folder of a score table: what may lie there, and the empty folders that runs leave."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from sparkscore.errors import TargetError, TargetUnwritableError, shown
from sparkscore.files.commit_probe import PROBE_FILE
from sparkscore.files.filesystem import StorePath, TablePath
from sparkscore.files.log import DRAFT, is_delta_table
from sparkscore.scoring.staged_names import LEDGER_FILE, SCORE_FILE


def check_prefix(root: StorePath) -> None:
    """Refuse a prefix of a store that is a file, or holds other files than a Delta table's.

    Raises:
        TargetUnwritableError: It is a file.
        TargetError: It holds files.
    """
    if root.is_file():
        raise TargetUnwritableError(
            f"target {shown(str(root))} cannot be a table: it is a file and no folder"
        )
    if is_delta_table(root):
        return
    found = (path.name for path in root.rglob("*"))
    ours = (SCORE_FILE, LEDGER_FILE, PROBE_FILE, DRAFT)
    if any(not any(pattern.fullmatch(name) for pattern in ours) for name in found):
        raise TargetError(
            f"target {shown(str(root))} holds files and no Delta table; name another folder"
        )


def files_of(root: TablePath, attempts: Collection[str]) -> Iterator[TablePath]:
    """Data files that attempts have written, whether a commit names them or not."""
    if not isinstance(root, Path):
        yield from (path for path in root.rglob("*.parquet") if _is_of(path.name, attempts))
        return
    # A stream asks after each batch: no object for each file, and none of the log is looked at.
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name != "_delta_log"]
        found = (name for name in names if name.endswith(".parquet") and _is_of(name, attempts))
        yield from (Path(folder) / name for name in found)


def _is_of(name: str, attempts: Collection[str]) -> bool:
    return any(attempt in name for attempt in attempts)


def remove_empty(folder: Path) -> None:
    """Remove the folders in a folder, and itself, in which there is nothing."""
    for path in sorted(_folders(folder), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _folders(folder: Path) -> Iterator[Path]:
    yield folder
    yield from (path for path in folder.rglob("*") if path.is_dir())
