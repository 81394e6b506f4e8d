"""The Delta score table: one commit per logical run, proven from the table's own history.

Delta skips a write whose application id and version it has seen, and says nothing. So the history
is asked before (was this run committed, and with the same inputs?) and after (did our commit
land?). The commit's user metadata is what makes both answers possible. Everything goes through
SQL and the DataFrame writer, which classic sessions and Spark Connect share.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema

from sparkscore.errors import EngineUnfitError, TargetError, TargetUnwritableError, shown
from sparkscore.files.hdfs_store import HdfsStore
from sparkscore.files.log import FollowedTable
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import RunIdentity, WriteMode
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
from sparkscore.spark.delta_log import JvmLogWriter
from sparkscore.spark.failures import (
    OUTSIDE_PREDICATE_SIGN,
    SPARK_FAILURES,
    first_line,
    is_conflict,
    is_damaged,
    is_unwritable,
)
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import detail_of, is_path, located, quoted, table_identifier
from sparkscore.spark.store_settings import refuse_other_committers, store_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession

_MERGE_CONF = "spark.databricks.delta.write.txn"
_ODD_CHARACTERS = frozenset(" ,;{}()\n\t=")
_GONE = "__sparkscore_gone"
_USER_METADATA_CONF = "spark.databricks.delta.commitInfo.userMetadata"


_locks: weakref.WeakKeyDictionary[SparkSession, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()
"""One lock a session, for the settings that a write needs of it."""


@dataclass(frozen=True)
class DeltaSink:
    """A score table at a path or in the catalog of `spark`.

    Attributes:
        followed: Keeps the log of a table on this machine open, for all who look at it in turn.
    """

    spark: SparkSession
    target: str
    followed: FollowedTable = field(default_factory=FollowedTable, compare=False, repr=False)

    @cached_property
    def uri(self) -> str:
        """The target's catalog name or absolute path."""
        return located(self.spark, self.target)

    @property
    def _is_here(self) -> bool:
        """Whether the table, or its place, is a folder of this process's own file system."""
        is_local = is_path(self.uri) and urlsplit(self.uri).scheme in ("", "file")
        return is_local and not is_connect(self.spark)

    @property
    def _by_log(self) -> FilesSink:
        """The table as its log alone shows it."""
        return FilesSink(self.uri, followed=self.followed)

    def find(self, identity: RunIdentity) -> Commit | None:
        """The commit that this logical run made before, or None.

        Raises:
            RunKeyConflictError: The key was committed with other inputs.
        """
        if self._is_here:
            # The log alone, without a Spark job for each of the three times that a run asks.
            with suppress(EngineUnfitError):
                return self._by_log.find(identity)
        entry = self._entry_of(identity)
        return None if entry is None else commit_of(entry, identity, self.uri)

    def check(self, write: TableWrite) -> None:
        """Refuse, before any row is scored, what the target would refuse after.

        Raises:
            TargetSchemaError: The target's columns or partitions differ from those to be written.
            TargetUnwritableError: Its location refuses writes.
            TargetError: Something else than a Delta table is there.
        """
        if is_path(self.uri) and not urlsplit(self.uri).scheme:
            check_local_path(Path(self.uri))
        detail = self._detail()
        if detail is None:
            return
        if detail["format"] != "delta":
            raise TargetError(
                f"target {shown(self.uri)} holds {detail['format']} files and no Delta table; "
                "name another target, or convert it first (CONVERT TO DELTA)"
            )
        self._check_columns(write)
        check_partitions(self.uri, list(detail["partitionColumns"]), write)

    def clear(self, identity: RunIdentity) -> None:
        """Remove what attempts at a committed run have left in files, if it can be told."""
        with suppress(EngineUnfitError):
            if not is_connect(self.spark):
                files_sink(self.spark, self.uri).clear(identity)

    def as_files(self, write: TableWrite) -> FilesSink:
        """The same table for a job whose workers write its files themselves.

        Raises:
            EngineUnfitError: Only Spark can write what the plan asks, or only where it is asked.
        """
        if is_connect(self.spark):
            raise EngineUnfitError("the workers of a Connect session may not see the target")
        sink = replace(files_sink(self.spark, self.uri), followed=self.followed)
        sink.refuse_unfit(write)
        return sink

    def history(self) -> Iterator[HistoryEntry]:
        """The table's commits that say something, the newest first; none where it is not there."""
        if self._is_here:
            with suppress(EngineUnfitError):
                yield from self._by_log.history()
                return
        if self._detail() is None:
            return
        found = self.spark.sql(f"DESCRIBE HISTORY {table_identifier(self.uri)}")
        for row in found.orderBy(sf.desc("version")).collect():
            yield _entry(row)

    def write(
        self,
        scores: DataFrame,
        write: TableWrite,
        facts: RunFacts,
        gone: DataFrame | None = None,
        resumed_from: Sequence[str] = (),
    ) -> Commit:
        """Write the scores in one commit and prove from the table's history that it landed.

        Args:
            scores: The rows of the score table.
            write: How they enter it.
            facts: Which run this is.
            gone: Keys of rows that a merge takes away in the same commit; None: of none.
            resumed_from: Run ids of earlier attempts, some of whose rows are among them.

        Raises:
            RunKeyConflictError: The table skipped the commit, or another attempt with other
                inputs won.
            TargetBusyError: Other commits won every try.
        """
        if write.unless is not None and self._entry_of(write.unless) is not None:
            raise closed_error(write.identity, self.uri)
        metadata = user_metadata(write, facts, uuid.uuid4().hex, resumed_from)
        with _write_errors(self.uri):
            for _ in range(N_TRIES):
                try:
                    self._write_once(scores, write, metadata, gone)
                    break
                except SPARK_FAILURES as exc:
                    if not is_conflict(exc):
                        raise
                    landed = self.find(write.identity)
                    if landed is not None:  # Another attempt at the same run was faster.
                        return landed
            else:
                raise busy_error(self.uri)
        return self._proven(write.identity)

    def partition_by(self, write: TableWrite) -> tuple[str, ...]:
        """The table's partition columns; those of a new one are what `write` asks for."""
        detail = self._detail()
        return write.partition_by if detail is None else tuple(detail["partitionColumns"])

    def remove(self, write: TableWrite, rows: str, facts: RunFacts) -> None:
        """Remove the rows that `write` replaces, once, and write none.

        Args:
            write: What is removed, and as which run.
            rows: A predicate; where it is true of no row, nothing is done.
            facts: Which attempt this is.

        Raises:
            TargetBusyError: Other commits won every try.
        """
        if self._detail() is None or self.find(write.identity) is not None:
            return
        if self._frame().where(rows).limit(1).isEmpty():
            return
        schema = from_arrow_schema(write.schema)
        self.write(self.spark.createDataFrame([], schema), write, facts)

    def _proven(self, identity: RunIdentity) -> Commit:
        commit = self.find(identity)
        if commit is None:
            raise skipped_error(identity, self.uri)
        return commit

    def _write_once(
        self, scores: DataFrame, write: TableWrite, metadata: str, gone: DataFrame | None
    ) -> None:
        detail = self._detail()
        if detail is None and not is_path(self.uri):
            self._create(scores, write.partition_by)
            detail = self._detail()
        if write.mode is WriteMode.MERGE and detail is not None:
            self._merge(scores, write, metadata, gone)
            return
        if write.replace_where and detail is None:
            scores = _inside(scores, write.replace_where)
        writer = (
            self._new_table(scores, write.partition_by if detail is None else ())
            .mode("overwrite" if write.mode is WriteMode.REPLACE else "append")
            .option("txnAppId", write.identity.app_id)
            .option("txnVersion", write.identity.txn_version)
            .option("userMetadata", metadata)
        )
        if write.replace_where and detail is not None:
            writer = writer.option("replaceWhere", write.replace_where)
        # By its path, a table of the catalog too: saveAsTable loses the observed row counts.
        writer.save(self.uri if detail is None else str(detail["location"]))

    def _create(self, scores: DataFrame, partition_by: Sequence[str]) -> None:
        writer = self._new_table(self.spark.createDataFrame([], scores.schema), partition_by)
        writer.mode("ignore").saveAsTable(self.uri)

    def _new_table(self, scores: DataFrame, partition_by: Sequence[str]) -> DataFrameWriter:
        writer = scores.write.format("delta")
        if partition_by:
            writer = writer.partitionBy(*partition_by)
        if any(_ODD_CHARACTERS.intersection(name) for name in scores.columns):
            # Delta keeps such names only where files have names of their own for columns.
            writer = writer.option("delta.columnMapping.mode", "name")
        return writer

    def _merge(
        self, scores: DataFrame, write: TableWrite, metadata: str, gone: DataFrame | None
    ) -> None:
        view = f"sparkscore_{uuid.uuid4().hex}"
        clauses = _clauses(scores.columns, has_gone=gone is not None)
        if gone is not None:
            flagged = gone.withColumn(_GONE, sf.lit(True))
            scores = scores.withColumn(_GONE, sf.lit(False))
            scores = scores.unionByName(flagged, allowMissingColumns=True)
        scores.createOrReplaceTempView(view)
        # Of several models a row each, all of those of a key are gone.
        of_model = set() if gone is None else set(write.keys).difference(gone.columns)
        matches = " AND ".join(
            f"(s.{_GONE} OR t.{quoted(k)} = s.{quoted(k)})"
            if k in of_model
            else f"t.{quoted(k)} = s.{quoted(k)}"
            for k in write.keys
        )
        conf = {
            f"{_MERGE_CONF}AppId": write.identity.app_id,
            f"{_MERGE_CONF}Version": str(write.identity.txn_version),
            _USER_METADATA_CONF: metadata,
            # The flag of those that are gone is no column of the target.
            "spark.databricks.delta.schema.autoMerge.enabled": "false",
            # Scores are computed once, not once for finding matches and once for writing.
            "spark.databricks.delta.merge.materializeSource": "all",
        }
        try:
            with session_conf(self.spark, conf):
                self.spark.sql(
                    f"MERGE INTO {table_identifier(self.uri)} t USING {view} s ON {matches} "
                    f"{clauses}"
                ).collect()
        finally:
            self.spark.catalog.dropTempView(view)

    def _entry_of(self, identity: RunIdentity) -> HistoryEntry | None:
        if self._detail() is None:
            return None
        history = self.spark.sql(f"DESCRIBE HISTORY {table_identifier(self.uri)}")
        rows = history.where(
            sf.get_json_object("userMetadata", "$.app_id") == sf.lit(identity.app_id)
        ).collect()
        found = (entry for entry in map(_entry, rows) if is_commit_of(identity, entry))
        return next(found, None)

    def _detail(self) -> Row | None:
        """What DESCRIBE DETAIL says of the table, or None where there is no table.

        Raises:
            TargetError: Its log cannot be read.
        """
        try:
            return detail_of(self.spark, self.uri)
        except SPARK_FAILURES as exc:
            if not is_damaged(exc):
                raise
            raise TargetError(
                f"the log of target {shown(self.uri)} cannot be read; nothing was written: "
                f"{first_line(exc)}; restore its _delta_log, or name another target"
            ) from exc

    def _check_columns(self, write: TableWrite) -> None:
        have = {f.name: f.dataType.simpleString() for f in self._frame().schema.fields}
        want = {f.name: f.dataType.simpleString() for f in from_arrow_schema(write.schema).fields}
        check_columns(self.uri, have, want)

    def _frame(self) -> DataFrame:
        if is_path(self.uri):
            return self.spark.read.format("delta").load(self.uri)
        return self.spark.read.table(self.uri)


def _entry(row: Row) -> HistoryEntry:
    return HistoryEntry(
        version=int(row["version"]),
        operation=str(row["operation"]),
        user_metadata=str(row["userMetadata"] or ""),
        metrics=row["operationMetrics"] or {},
    )


def files_sink(spark: SparkSession, target: str) -> FilesSink:
    """The score table at a path, as this session understands it.

    Raises:
        EngineUnfitError: It is a table of the catalog, or lies where only Spark can write.
    """
    uri = located(spark, target)
    if not is_path(uri):
        raise EngineUnfitError(f"the target {target!r} is a table of the catalog")
    timezone = spark.conf.get("spark.sql.session.timeZone") or "UTC"
    store = store_of(spark, uri, "target")
    if store is None:
        return FilesSink(uri, timezone, JvmLogWriter(spark))
    refuse_other_committers(spark, store)
    if isinstance(store, HdfsStore):
        return FilesSink(uri, timezone, JvmLogWriter(spark), store)
    # The JVM may lack a client for S3, and its commits there are not put conditionally.
    return FilesSink(uri, timezone, store=store)


@contextmanager
def session_conf(spark: SparkSession, conf: Mapping[str, str]) -> Iterator[None]:
    """Settings of the session for the duration of a block; the former ones come back after it.

    One block a session at a time: a thread waits for another's, since a merge that ran under
    another merge's application id would be committed as that one.
    """
    with _lock_of(spark):
        former = {key: spark.conf.get(key, None) for key in conf}
        for key, value in conf.items():
            spark.conf.set(key, value)
        try:
            yield
        finally:
            for key, old in former.items():
                if old is None:
                    spark.conf.unset(key)
                else:
                    spark.conf.set(key, old)


def _lock_of(spark: SparkSession) -> threading.RLock:
    with _locks_guard:
        return _locks.setdefault(spark, threading.RLock())


def _clauses(columns: Sequence[str], *, has_gone: bool) -> str:
    """What a merge does with rows that are there, and with those that are not.

    Columns are named one by one: Spark's `*` does not find a name with a backtick.
    """
    names = [quoted(name) for name in columns]
    sets = ", ".join(f"{name} = s.{name}" for name in names)
    values = ", ".join(f"s.{name}" for name in names)
    update = f"WHEN MATCHED THEN UPDATE SET {sets}"
    insert = f"THEN INSERT ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - quoted
    if not has_gone:
        return f"{update} WHEN NOT MATCHED {insert}"
    gone = f"s.{_GONE}"
    return f"WHEN MATCHED AND {gone} THEN DELETE {update} WHEN NOT MATCHED AND NOT {gone} {insert}"


def _inside(scores: DataFrame, predicate: str) -> DataFrame:
    """`scores`, failing at a row outside of `predicate`: Delta looks in a known table only."""
    first = scores.columns[0]
    column = sf.col(quoted(first))
    is_inside = sf.coalesce(sf.expr(predicate), sf.lit(False))
    checked = sf.when(is_inside, column).otherwise(sf.raise_error(OUTSIDE_PREDICATE_SIGN))
    return scores.withColumn(first, checked)


@contextmanager
def _write_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except SPARK_FAILURES as exc:
        if is_unwritable(exc):
            raise TargetUnwritableError(
                f"target {shown(uri)} cannot be written; nothing was committed: {first_line(exc)}"
            ) from exc
        raise
