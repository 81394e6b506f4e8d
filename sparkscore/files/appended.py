"""What commits after a version did to a Delta table's rows, and the files that they appended."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkscore.errors import DataError, SourceChangesError, SourceError, shown
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import TablePath, store_path
from sparkscore.files.log import TableSnapshot, data_files, file_path, read_snapshot
from sparkscore.files.predicate import Predicate, possible
from sparkscore.scoring.incremental import Deletes

FEED = "delta.enableChangeDataFeed"
"""The table property that has each commit say which rows it changed."""
WAYS_OUT = (
    f"score all rows once (without --since-last), or turn the change data feed on ({FEED}=true on "
    "the source), which tells of later changes"
)


@dataclass(frozen=True)
class AppendedFile:
    """A file whose rows are new: the version that brought it, and its line of the log."""

    version: int
    line: str


@dataclass(frozen=True)
class LoggedChanges:
    """What the commits of a range of versions did, leaving out those that only move rows.

    Attributes:
        added: Files of new rows by their path in the log; those that were taken away again are
            left out.
        rewriting: The first commit that put rows into the place of others; None: there is none.
        deleting: The first commit that took rows away and brought none; None: there is none.
        moved: Paths of those of the files whose rows a later commit has moved into others.
    """

    added: Mapping[str, AppendedFile]
    rewriting: str | None = None
    deleting: str | None = None
    moved: frozenset[str] = frozenset()

    def refused(self, deletes: Deletes) -> str | None:
        """Why the appended files are not all that there is to score; None: they are."""
        if self.rewriting is not None:
            return f"{self.rewriting} changed rows that were there before"
        if self.deleting is not None and deletes is not Deletes.IGNORE:
            return f"{self.deleting} deleted rows"
        return None

    def check(self, uri: str, deletes: Deletes) -> None:
        """Refuse changes that only a change data feed would tell, of a table that has none.

        Raises:
            SourceChangesError: There are such.
            DataError: Rows were deleted, which the job does not admit.
        """
        reason = self.refused(deletes)
        if reason is None:
            return
        if self.rewriting is None and deletes is Deletes.FAIL:
            raise deleted_error(uri, reason)
        raise SourceChangesError(
            f"{reason} of source {shown(uri)}, and which ones cannot be told, since its change "
            f"data feed was off; {WAYS_OUT}"
        )

    def check_kept(self, root: TablePath) -> None:
        """Refuse files that are gone, of those that the table itself does not need any more.

        Raises:
            SourceChangesError: There are such.
        """
        for logged in sorted(self.moved):
            path = file_path(root, logged)
            if not _path(root, path).is_file():
                raise vacuumed_error(path)


def deleted_error(uri: str, reason: str) -> DataError:
    """Rows were deleted from a source whose job does not admit that."""
    return DataError(
        f"{reason} of source {shown(uri)}, and this job fails on deletes; nothing was written; "
        "take --deletes ignore to keep their scores, or --deletes tombstone to remove them"
    )


def logged_changes(root: TablePath, after: int, until: int) -> LoggedChanges:
    """What the commits did that came after a version, up to and including another one.

    Raises:
        SourceChangesError: The log has no more of one of them.
    """
    found = _Found()
    for version in range(after + 1, until + 1):
        found.add(version, list(_actions(root, version)))
    moved = found.moved.intersection(found.added)
    return LoggedChanges(found.added, found.rewriting, found.deleting, moved)


def appended_files(
    snapshot: TableSnapshot, changes: LoggedChanges, where: Predicate | None
) -> tuple[DataFile, ...]:
    """The appended files that can hold a row which the predicate selects.

    Args:
        snapshot: The table at the last of the versions.
        changes: What was appended up to it.
        where: The filter; None: all rows.

    Raises:
        SourceChangesError: A file was moved into another one, and is gone since.
        EngineUnfitError: See `files.log.data_files`.
    """
    root = snapshot.root
    paths = {file_path(root, logged): one.version for logged, one in changes.added.items()}
    changes.check_kept(root)
    found = {f.path: f for f in _files(snapshot, where) if f.path in paths}
    for version in sorted({version for path, version in paths.items() if path not in found}):
        wanted = {path for path, at in paths.items() if at == version and path not in found}
        found |= {file.path: file for file in _moved_files(root, version, wanted, where)}
    return tuple(
        file for file in found.values() if where is None or True in possible(where, file.bounds)
    )


@dataclass
class _Found:
    added: dict[str, AppendedFile] = field(default_factory=dict)
    rewriting: str | None = None
    deleting: str | None = None
    moved: frozenset[str] = frozenset()

    def add(self, version: int, actions: list[tuple[str, dict[str, Any]]]) -> None:
        """Note what one commit did."""
        came = {a["add"]["path"]: line for line, a in actions if _changes_rows(a.get("add"))}
        gone = {a["remove"]["path"] for _, a in actions if _changes_rows(a.get("remove"))}
        name = f"version {version} ({_operation(actions)})"
        if gone and came:
            self.rewriting = self.rewriting or name
        elif gone:
            self.deleting = self.deleting or name
        for path in gone:
            self.added.pop(path, None)
        self.moved |= {a["remove"]["path"] for _, a in actions if "remove" in a}
        self.added |= {path: AppendedFile(version, line) for path, line in came.items()}


def _changes_rows(action: Mapping[str, Any] | None) -> bool:
    return action is not None and bool(action["dataChange"])


def _operation(actions: list[tuple[str, dict[str, Any]]]) -> str:
    operations = (
        action["commitInfo"].get("operation") for _, action in actions if "commitInfo" in action
    )
    return str(next(operations, None) or "of no name")


def _actions(root: TablePath, version: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a commit, and what it says."""
    path = root / "_delta_log" / f"{version:020}.json"
    if not path.is_file():
        raise SourceChangesError(
            f"version {version} of source {shown(str(root))} is no more in its log, so what it "
            "changed cannot be told; score all rows once (without --since-last), and run the job "
            "more often than the log is cleaned up (delta.logRetentionDuration)"
        )
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield line, json.loads(line)


def _files(snapshot: TableSnapshot, where: Predicate | None) -> Iterator[DataFile]:
    found = data_files(snapshot.table, snapshot.root, snapshot.columns, where)
    return (file for _, file in found)


def _moved_files(
    root: TablePath, version: int, paths: Collection[str], where: Predicate | None
) -> Iterator[DataFile]:
    """Files of a version whose rows a later one has moved into others."""
    try:
        snapshot = read_snapshot(root, version)
    except SourceError as exc:
        raise SourceChangesError(f"{exc}; {WAYS_OUT}") from exc
    for file in _files(snapshot, where):
        if file.path in paths:
            yield file


def vacuumed_error(path: str) -> SourceChangesError:
    """A file of what is new is no more there."""
    return SourceChangesError(
        f"a file of what is new in the source was removed by VACUUM: {shown(path)}; nothing was "
        "written; score all rows once (without --since-last), and run the job more often than the "
        "source is vacuumed (delta.deletedFileRetentionDuration)"
    )


def _path(root: TablePath, path: str) -> TablePath:
    return Path(path) if isinstance(root, Path) else store_path(root.store, path)
