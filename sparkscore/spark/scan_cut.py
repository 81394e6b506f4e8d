"""How Spark cuts the files of a plain scan into tasks, and running some of these tasks only.

A DataFrame's partitions need not be the same twice. Those of a plan without a shuffle are: each is
what Spark reads of some files, as the physical plan says. These classes are Spark's own and no
public interface: a plan that is not understood has no pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.util import _load_from_socket

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import DataFrame, Row, SparkSession

_SCAN = "FileSourceScanExec"
_SCORING = "MapInArrowExec"
_ROW_BY_ROW = frozenset(
    {
        "CollectMetricsExec",
        "ColumnarToRowExec",
        "FilterExec",
        "InputAdapter",
        "ProjectExec",
        "WholeStageCodegenExec",
    }
)
"""Steps of a plan that leave rows in the partition and in the order in which they came."""


def cut_conf(chunk_bytes: int) -> dict[str, str]:
    """Settings of the session under which scans are cut into tasks of about so many bytes.

    The cut then depends on the files alone, and not on the number of slots.
    """
    return {
        "spark.sql.files.maxPartitionBytes": str(chunk_bytes),
        "spark.sql.files.minPartitionNum": "1",
        "spark.sql.files.maxPartitionNum": str(2**31 - 1),
    }


def scan_bytes(frame: DataFrame) -> int | None:
    """Bytes of the files that a frame reads; None where it is no plain scan of files."""
    scan = _scan(frame)
    return None if scan is None else int(scan.selectedPartitions().totalFileSize())


def scan_pieces(frame: DataFrame) -> list[str]:
    """What each partition of a plain scan reads: paths, ranges and values of partition columns.

    Args:
        frame: Not asked this yet, so that the session's settings of now decide on the cut.
    """
    scan = _scan(frame)
    assert scan is not None
    as_text = _jvm(frame.sparkSession).scala.runtime.ScalaRunTime.stringOf
    return [as_text(partition.files()) for partition in scan.inputRDD().partitions()]


def rows_of(frame: DataFrame, partitions: Sequence[int]) -> list[Row]:
    """The rows of some of a frame's partitions; those of others are not computed.

    What the frame observes by a name is told by `observed` afterwards.
    """
    rdd, context = frame.rdd, frame.sparkSession.sparkContext
    # As SparkContext.runJob does, which would start a second Python worker for each task.
    found = _jvm(frame.sparkSession).PythonRDD.runJob(
        context._jsc.sc(), rdd._jrdd, list(partitions)
    )
    with _load_from_socket(found, rdd._jrdd_deserializer) as rows:
        return list(rows)


def observed(frame: DataFrame, name: str) -> int:
    """The one number that a frame has observed by a name while its rows were computed."""
    metrics = frame._jdf.queryExecution().observedMetrics()
    return int(metrics.apply(name).getLong(0))


def n_slots(spark: SparkSession) -> int:
    """Tasks that a classic session runs at once."""
    n_cpus = int(spark.conf.get("spark.task.cpus", "1") or "1")
    return max(1, spark.sparkContext.defaultParallelism // n_cpus)


def _scan(frame: DataFrame) -> JavaObject | None:
    """The scan at the end of a plan that has nothing else but steps of `_ROW_BY_ROW`.

    What scores the rows may be its last step; one that lies within is a function of the user's.
    """
    node = frame._jdf.queryExecution().executedPlan()
    if node.getClass().getSimpleName() == _SCORING:
        node = node.children().apply(0)
    while (name := node.getClass().getSimpleName()) != _SCAN:
        if name not in _ROW_BY_ROW:
            return None
        node = node.children().apply(0)
    return node


def _jvm(spark: SparkSession) -> JavaObject:
    return spark.sparkContext._jvm
