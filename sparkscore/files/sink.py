"""The score table as files that a driver commits: one Delta transaction through `deltalake`.

Both this sink and the one on Spark write the same user metadata under the same application id, so
that each finds the other's runs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from sparkscore.errors import (
    EngineUnfitError,
    RunKeyConflictError,
    TargetError,
    TargetUnwritableError,
    shown,
)
from sparkscore.files import rust_log
from sparkscore.files.change import LogWriter, LostRaceError, TableChange
from sparkscore.files.commit_probe import check_commits
from sparkscore.files.copying import Replaced, replaced_files
from sparkscore.files.demands import (
    WRITABLE,
    check_demands,
    check_new_table,
    features_of,
    mapped_columns,
)
from sparkscore.files.filesystem import (
    Store,
    StorePath,
    TablePath,
    below,
    check_place,
    local_folder,
    storage_options,
    store_errors,
    store_path,
)
from sparkscore.files.ledger import attempts_in, remove_ledger
from sparkscore.files.log import (
    FollowedTable,
    added_paths,
    check_folder,
    commits,
    is_delta_table,
)
from sparkscore.files.predicate import Predicate, columns_in
from sparkscore.files.schema import table_columns, type_name
from sparkscore.files.sql import parse_predicate
from sparkscore.files.target_folder import check_prefix, files_of, remove_empty
from sparkscore.files.writing import (
    PARTITION_TYPES,
    FileLayout,
    WrittenFile,
    can_partition_by,
    new_attempt,
)
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import RunIdentity, WriteMode
from sparkscore.scoring.staged_names import LEDGER_FOLDER
from sparkscore.scoring.table_write import TableWrite
from sparkscore.scoring.target import (
    N_TRIES,
    HistoryEntry,
    busy_error,
    check_columns,
    check_local_path,
    check_partitions,
    closed_error,
    commit_of,
    is_commit_of,
    skipped_error,
    user_metadata,
)

_ID_RETENTION = "delta.setTransactionRetentionDuration"


@dataclass(frozen=True)
class WrittenScores:
    """The files of a run; nobody sees them yet.

    Attributes:
        attempt: Which attempt commits them.
        resumed_from: Run ids of earlier attempts that wrote some of them.
    """

    files: tuple[WrittenFile, ...]
    attempt: str
    resumed_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilesSink:
    """A score table in a folder of this machine's file system, or below a prefix of a store.

    Attributes:
        uri: Its absolute path, file: URI or the store's URI.
        timezone: Spark's session time zone, in which a predicate's times are meant.
        log_writer: Commits to tables that ask more of a writer than `deltalake` gives.
        store: Where it lies; None: on this machine.
        followed: Keeps the table's log open; shared by sinks that look at one table in turn.
    """

    uri: str
    timezone: str = "UTC"
    log_writer: LogWriter | None = None
    store: Store | None = field(default=None, repr=False)
    followed: FollowedTable = field(default_factory=FollowedTable, compare=False, repr=False)

    @property
    def root(self) -> TablePath:
        """The table's folder."""
        return local_folder(self.uri) if self.store is None else store_path(self.store, self.uri)

    def find(self, identity: RunIdentity) -> Commit | None:
        """The commit that this logical run made before, or None.

        Raises:
            RunKeyConflictError: The key was committed with other inputs.
            EngineUnfitError: The log cannot be read without Spark.
            TargetUnwritableError: The store has no such bucket, or refuses the credentials.
            StoreUnavailableError: The store does not answer.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            table = self._table()
            return None if table is None else self._found_in(table, identity)

    def history(self) -> Iterator[HistoryEntry]:
        """The table's commits that say something, the newest first; none where it is not there.

        Raises:
            EngineUnfitError: The folder's name is not understood without Spark.
            TargetUnwritableError: The store has no such bucket, or refuses the credentials.
            StoreUnavailableError: The store does not answer.
        """
        check_folder(self.root)
        with store_errors(self.root, "target", TargetUnwritableError):
            for version, entry in commits(self.root):
                yield _entry(version, entry)

    def newest_batch(self, app_id: str) -> int | None:
        """The last version that the table has committed under an application id; None: none.

        Raises:
            EngineUnfitError: The log cannot be read without Spark.
            StoreUnavailableError: The store does not answer.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            table = self._table()
            return None if table is None else self.followed.transaction_version(table, app_id)

    def refuse_unfit(self, write: TableWrite) -> None:
        """Refuse what only Spark can do with this target.

        A store is asked by an object that is put and removed, once a process.

        Raises:
            EngineUnfitError: The mode, the predicate, the place, the store or the table is such.
            TargetUnwritableError: The store refuses the credentials, or to write there.
            StoreUnavailableError: The store does not answer.
        """
        check_place(self.uri, "target")
        if write.mode is WriteMode.MERGE:
            raise EngineUnfitError("it does not merge")
        with store_errors(self.root, "target", TargetUnwritableError):
            if isinstance(self.root, StorePath):
                check_commits(self.root)
            self._refuse_unfit_table(write)

    def _refuse_unfit_table(self, write: TableWrite) -> None:
        schema = write.schema
        predicate = self.predicate(write)
        table = self._table()
        partition_by = self._partition_by(table, write)
        for name in partition_by:
            if name in schema.names and not can_partition_by(schema.field(name).type):
                raise EngineUnfitError(
                    f"the target is partitioned by {name!r}, a {schema.field(name).type}; it "
                    f"knows {PARTITION_TYPES}"
                )
        if table is None:
            check_new_table(schema)
            return
        self._check_writable(table, write)
        known = {column.name for column in table.schema().fields}
        if predicate is not None and columns_in(predicate) <= known:
            has_row_ids = "rowTracking" in features_of(table)
            # Each file that gives way is looked at, and refused if it cannot be.
            for one in replaced_files(table, self.root, predicate):
                if one.is_cut and has_row_ids:
                    raise EngineUnfitError("the target tracks rows, and some that stay would move")

    def check(self, write: TableWrite) -> None:
        """Refuse, before any row is scored, what the target would refuse after.

        Raises:
            TargetSchemaError: The target's columns or partitions differ from those to be written.
            TargetUnwritableError: Its location refuses writes.
            TargetError: Something else than a Delta table is there.
        """
        if isinstance(self.root, Path):
            check_local_path(self.root)
        with store_errors(self.root, "target", TargetUnwritableError):
            if isinstance(self.root, StorePath):
                check_prefix(self.root)
            table = self._table()
        if table is not None:
            self._check_table(table, write)

    def predicate(self, write: TableWrite) -> Predicate | None:
        """Which rows give way; None where the job does not replace.

        Raises:
            EngineUnfitError: The predicate is not understood.
        """
        if write.replace_where is None:
            return None
        schema = _delta_schema(write.schema)
        columns = [column.column for column in table_columns(schema.to_json())]
        return parse_predicate(write.replace_where, columns, self.timezone)

    def layout(self, write: TableWrite) -> FileLayout:
        """How the run's files are to be written."""
        with store_errors(self.root, "target", TargetUnwritableError):
            return self._layout(self._table(), write)

    def _layout(self, table: DeltaTable | None, write: TableWrite) -> FileLayout:
        schema = write.schema
        keys = write.keys
        return FileLayout(
            folder=self.root,
            schema=schema,
            partition_by=self._partition_by(table, write),
            varied=frozenset(
                f.name for f in schema if f.name in keys or pa.types.is_floating(f.type)
            ),
            mapped={} if table is None else mapped_columns(table),
        )

    def write(self, scores: WrittenScores, write: TableWrite, facts: RunFacts) -> Commit:
        """Commit the files in one transaction, and prove from the history that it landed.

        Raises:
            RunKeyConflictError: The table knows the run's id with other inputs.
            TargetBusyError: Other commits won every try.
            TargetError: The table has changed in a way that does not admit these files.
            StoreUnavailableError: The store does not answer; the commit may have landed.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            return self._written(scores, write, facts)

    def _written(self, scores: WrittenScores, write: TableWrite, facts: RunFacts) -> Commit:
        metadata = user_metadata(write, facts, scores.attempt, scores.resumed_from)
        for _ in range(N_TRIES):
            table = self._table()
            version = None if table is None else table.version()
            if table is not None:
                landed = self._found_in(table, write.identity)
                if landed is not None:  # Another attempt at the same run was faster.
                    return landed
                if self._has_passed(table, write.identity):
                    raise skipped_error(write.identity, self.uri)
                closing = write.unless
                if closing and self.followed.transaction_version(table, closing.app_id) is not None:
                    raise closed_error(write.identity, self.uri)
                self._check_table(table, write)
                self._check_writable(table, write)
            try:
                self._commit(table, scores, write, metadata)
                break
            except LostRaceError:
                continue
            except DeltaError as exc:
                if not self._has_moved(version, exc):
                    raise TargetError(
                        f"target {shown(self.uri)} refused the commit; nothing was written: {exc}"
                    ) from exc
        else:
            raise busy_error(self.uri)
        commit = self.find(write.identity)
        if commit is None:
            raise skipped_error(write.identity, self.uri)
        return commit

    def remove(self, write: TableWrite, rows: str, facts: RunFacts) -> None:
        """Remove the rows that `write` replaces, once, and write none.

        Args:
            write: What is removed, and as which run.
            rows: A predicate; where it is true of no row, nothing is done.
            facts: Which attempt this is.

        Raises:
            TargetBusyError: Other commits won every try.
            StoreUnavailableError: The store does not answer; the commit may have landed.
        """
        predicate = self.predicate(replace(write, replace_where=rows))
        assert predicate is not None
        with store_errors(self.root, "target", TargetUnwritableError):
            table = self._table()
            if table is None or self._found_in(table, write.identity) is not None:
                return
            if next(replaced_files(table, self.root, predicate), None) is None:
                return
        self.write(WrittenScores((), new_attempt()), write, facts)

    def clean(self, identity: RunIdentity, attempts: Collection[str]) -> None:
        """Remove what attempts at a run wrote and its commit does not name; and empty folders.

        Nobody else may be about to commit these files: see `files.ledger`.

        Raises:
            StoreUnavailableError: The store does not answer; `score clean` finds them later.
        """
        with store_errors(self.root, "target", TargetUnwritableError):
            table = self._table()
            added = set() if table is None else self._added_by(table, identity)
            found = {below(self.root, path): path for path in files_of(self.root, attempts)}
            # Most often the run's own commit names all of them, and the table's need no look.
            left = {name: path for name, path in found.items() if name not in added}
            kept = _active_paths(table) if left and table is not None else set()
            for name in left.keys() - kept:
                left[name].unlink(missing_ok=True)
            if table is None and isinstance(self.root, Path) and self.root.is_dir():
                remove_empty(self.root)

    def clear(self, identity: RunIdentity) -> None:
        """Remove what attempts at a committed run have left, which were cut off right after it.

        Raises:
            StoreUnavailableError: The store does not answer; `score clean` finds them later.
        """
        folder = self.root / LEDGER_FOLDER / identity.app_id
        with store_errors(self.root, "target", TargetUnwritableError):
            attempts = attempts_in(path.name for path in folder.glob("*"))
            if attempts:
                self.clean(identity, attempts)
                remove_ledger(folder, attempts)

    def _added_by(self, table: DeltaTable, identity: RunIdentity) -> set[str]:
        """Paths below the table's folder of the files that the run's commit added, if any."""
        with suppress(RunKeyConflictError):  # Then the commit is of other inputs, and their files.
            commit = self._found_in(table, identity)
            if commit is not None:
                return added_paths(self.root, commit.version)
        return set()

    def _table(self) -> DeltaTable | None:
        check_folder(self.root)
        try:
            return self.followed.newest(self.root) if is_delta_table(self.root) else None
        except DeltaError as exc:
            raise EngineUnfitError(f"the log of the target cannot be read here: {exc}") from exc

    def _partition_by(self, table: DeltaTable | None, write: TableWrite) -> tuple[str, ...]:
        if table is None:
            return write.partition_by
        return tuple(table.metadata().partition_columns)

    def _found_in(self, table: DeltaTable, identity: RunIdentity) -> Commit | None:
        # A table may forget ids after a time; its history then still tells of the run.
        configuration = table.metadata().configuration
        if not self._has_passed(table, identity) and _ID_RETENTION not in configuration:
            return None
        entries = (_entry(*commit) for commit in commits(self.root, table.version()))
        entry = next((entry for entry in entries if is_commit_of(identity, entry)), None)
        return None if entry is None else commit_of(entry, identity, self.uri)

    def _has_passed(self, table: DeltaTable, identity: RunIdentity) -> bool:
        """Whether the table knows the run's id with its version, or one of a later run."""
        version = self.followed.transaction_version(table, identity.app_id)
        return version is not None and version >= identity.txn_version

    def _check_table(self, table: DeltaTable, write: TableWrite) -> None:
        have = _type_names(table.schema())
        check_columns(self.uri, have, _type_names(_delta_schema(write.schema)))
        check_partitions(self.uri, list(table.metadata().partition_columns), write)

    def _commit(
        self, table: DeltaTable | None, scores: WrittenScores, write: TableWrite, metadata: str
    ) -> None:
        schema = _delta_schema(write.schema)
        partition_by = self._partition_by(table, write)
        predicate = self.predicate(write)
        if table is None:
            if isinstance(self.root, Path):
                self.root.mkdir(parents=True, exist_ok=True)
            change = self._change(0, scores.files, Replaced(), write, metadata)
            options = storage_options(self.root)
            rust_log.create_table(str(self.root), change, schema, partition_by, options)
            return
        replaced = Replaced()
        if predicate is not None:
            layout = self._layout(table, write)
            for one in replaced_files(table, self.root, predicate):
                replaced = replaced.plus(one, layout, predicate, scores.attempt)
        change = self._change(table.version(), scores.files, replaced, write, metadata)
        log_writer = self._log_writer_for(table)
        if log_writer is None:
            rust_log.commit(table, change, schema, partition_by)
        else:
            log_writer.commit(str(self.root), change)

    def _change(
        self,
        version: int,
        written: Sequence[WrittenFile],
        replaced: Replaced,
        write: TableWrite,
        metadata: str,
    ) -> TableChange:
        files = [*written, *replaced.copies]
        return TableChange(
            version=version,
            app_id=write.identity.app_id,
            txn_version=write.identity.txn_version,
            user_metadata=metadata,
            added=tuple(files),
            removed=replaced.removals,
            predicate=write.replace_where,
            is_replace=write.mode is WriteMode.REPLACE,
            metrics=_metrics(write, files, replaced),
        )

    def _log_writer_for(self, table: DeltaTable) -> LogWriter | None:
        """What commits to the table; None: `deltalake`."""
        return None if features_of(table) <= WRITABLE else self.log_writer

    def _check_writable(self, table: DeltaTable, write: TableWrite) -> None:
        """Refuse a table that asks of its writers what is not done here.

        Raises:
            EngineUnfitError: It does; what it asks is named.
        """
        writable, log_writer = WRITABLE, self._log_writer_for(table)
        if log_writer is not None:
            log_writer.refuse_unfit()
            writable = WRITABLE | log_writer.features
        unknown = sorted(features_of(table) - writable)
        if unknown:
            raise EngineUnfitError(f"the target has table features that it cannot write: {unknown}")
        check_demands(table, write)

    def _has_moved(self, version: int | None, exc: DeltaError) -> bool:
        """Whether a commit that was made for a version failed since another one was faster."""
        if isinstance(exc, CommitFailedError):
            return True
        newest = self._table()
        return version != (None if newest is None else newest.version())


def _entry(version: int, info: Mapping[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        version=version,
        operation=str(info.get("operation", "")),
        user_metadata=str(info.get("userMetadata") or ""),
        metrics=info.get("operationMetrics") or {},
    )


def _metrics(write: TableWrite, files: Sequence[WrittenFile], replaced: Replaced) -> dict[str, int]:
    """What DESCRIBE HISTORY shows of a commit."""
    metrics = {
        "numFiles": len(files),
        "numOutputRows": sum(file.n_rows for file in files),
        "numOutputBytes": sum(file.n_bytes for file in files),
    }
    if write.mode is not WriteMode.REPLACE:
        return metrics
    n_copied = sum(file.n_rows for file in replaced.copies)
    return metrics | {
        "numRemovedFiles": len(replaced.removals),
        "numRemovedBytes": replaced.n_removed_bytes,
        "numCopiedRows": n_copied,
        "numDeletedRows": replaced.n_removed_rows - n_copied,
    }


def _delta_schema(schema: pa.Schema) -> Schema:
    try:
        return Schema.from_arrow(schema)
    except DeltaError as exc:
        raise EngineUnfitError(f"the target would have types that Delta lacks: {exc}") from exc


def _type_names(schema: Schema) -> dict[str, str]:
    fields = json.loads(schema.to_json())["fields"]
    return {field["name"]: type_name(field["type"]) for field in fields}


def _active_paths(table: DeltaTable) -> set[str]:
    """Paths of the table's files below its folder."""
    return {unquote(path) for path in pa.table(table.get_add_actions())["path"].to_pylist()}
