"""Commits of files that Python wrote, through Delta's own transaction in the JVM.

For tables that ask more of a writer than `deltalake` gives: clustering, mapped columns, row ids,
times in commits. These classes are Delta's own and no public interface, so that a release that has
other ones is found out before a row is scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError
from pyspark.sql import DataFrame

from sparkscore.errors import EngineUnfitError, TargetError, shown
from sparkscore.files.change import LostRaceError, TableChange
from sparkscore.spark.failures import SPARK_FAILURES, first_line, is_conflict

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_WRITE = "DeltaOperations$Write"
_FEATURES = frozenset(
    {
        "clustering",
        "columnMapping",
        "domainMetadata",
        "inCommitTimestamp",
        "rowTracking",
        "typeWidening",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)


@dataclass(frozen=True)
class JvmLogWriter:
    """Delta's own writer of logs, in the JVM of a classic session."""

    spark: SparkSession

    @property
    def features(self) -> frozenset[str]:
        """Table features whose demands the transaction meets, or the files that it is given."""
        return _FEATURES

    def refuse_unfit(self) -> None:
        """Refuse a release of Delta whose classes are not those that are known here.

        Raises:
            EngineUnfitError: It is such a one.
        """
        try:
            self._operation(TableChange(0, "", 0, ""))
        except (Py4JError, TypeError, AttributeError) as exc:
            raise EngineUnfitError(
                f"this release of Delta takes no files from here: {first_line(exc)}"
            ) from exc

    def commit(self, folder: str, change: TableChange) -> None:
        """Commit a change of the table in a folder.

        Raises:
            LostRaceError: Another commit was faster, and this one was not made.
            TargetError: The table refuses it.
        """
        delta = self._delta
        try:
            log = delta.DeltaLog.forTable(self.spark._jsparkSession, folder)
            transaction = log.startTransaction()
            if transaction.readVersion() != change.version:
                raise LostRaceError
            # What was asked for is guarded: Delta refuses the commit if the answer changes.
            if transaction.txnVersion(change.app_id) >= change.txn_version:
                raise LostRaceError
            if change.is_replace:
                transaction.readWholeTable()
            self._tell_metrics(transaction, change)
            transaction.commit(self._actions(change), self._operation(change))
        except SPARK_FAILURES as exc:
            if is_conflict(exc):
                raise LostRaceError from exc
            raise TargetError(
                f"target {shown(folder)} refused the commit; nothing was written: {first_line(exc)}"
            ) from exc

    @property
    def _delta(self) -> JavaObject:
        return self._jvm.org.apache.spark.sql.delta

    @property
    def _jvm(self) -> JavaObject:
        return self.spark.sparkContext._jvm

    def _actions(self, change: TableChange) -> JavaObject:
        from_json = self._delta.actions.Action.fromJson
        actions = self._jvm.java.util.ArrayList()
        for action in change.actions():
            actions.add(from_json(json.dumps(action)))
        return self._jvm.org.apache.spark.api.python.PythonUtils.toSeq(actions)

    def _operation(self, change: TableChange) -> JavaObject:
        option, modes = self._jvm.scala.Option, self._jvm.org.apache.spark.sql.SaveMode
        write = getattr(self._delta, _WRITE)
        return write(
            modes.Overwrite if change.is_replace else modes.Append,
            option.empty(),
            option.apply(change.predicate),
            option.apply(change.user_metadata),
            *[option.empty()] * 5,
        )

    def _tell_metrics(self, transaction: JavaObject, change: TableChange) -> None:
        """Hand over what DESCRIBE HISTORY shows; Delta takes it from Spark's metrics."""
        context = self.spark.sparkContext._jsc.sc()
        create = self._jvm.org.apache.spark.sql.execution.metric.SQLMetrics.createMetric
        metrics = self._jvm.java.util.HashMap()
        for name, value in change.metrics.items():
            metric = create(context, name)
            metric.set(value)
            metrics.put(name, metric)
        scala_map = self._jvm.org.apache.spark.api.python.PythonUtils.toScalaMap(metrics)
        transaction.registerSQLMetrics(self.spark._jsparkSession, scala_map)


def appended_frame(spark: SparkSession, folder: str, lines: Iterable[str]) -> DataFrame:
    """The rows of files that the log of a table once named, whether or not it still does.

    Args:
        spark: A classic session.
        folder: The table's path or URI.
        lines: What the log says of each file.
    """
    jvm: JavaObject = spark.sparkContext._jvm
    delta = jvm.org.apache.spark.sql.delta
    log = delta.DeltaLog.forTable(spark._jsparkSession, folder)
    files = jvm.java.util.ArrayList()
    for line in lines:
        files.add(delta.actions.Action.fromJson(line))
    adds = jvm.org.apache.spark.api.python.PythonUtils.toSeq(files)
    snapshot = log.unsafeVolatileSnapshot()
    frame = log.createDataFrame(snapshot, adds, False, jvm.scala.Option.empty())
    return DataFrame(frame, spark)


def write_checkpoint(spark: SparkSession, folder: str) -> int:
    """Write the newest version of a table as a checkpoint; expired entries of its log go.

    Args:
        spark: A classic session.
        folder: The table's path or URI.

    Returns:
        The version.
    """
    jvm: JavaObject = spark.sparkContext._jvm
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, folder)
    log.checkpoint()
    return int(log.unsafeVolatileSnapshot().version())
