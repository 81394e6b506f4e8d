"""Keeping Delta tables fit for years of nightly jobs: Delta's own commands, within safe limits.

Delta's OPTIMIZE, VACUUM and checkpoints do the work. What is decided here is what may be asked of
them: no file younger than a table's own retention goes, since a reader of an earlier version, a
job that still writes, or one that is to go on after a kill may need it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pyspark.errors import AnalysisException

from sparkscore.errors import (
    ConfigError,
    SparkscoreError,
    TargetBusyError,
    TargetError,
    shown,
)
from sparkscore.spark.delta import session_conf
from sparkscore.spark.delta_log import write_checkpoint
from sparkscore.spark.failures import (
    SPARK_FAILURES,
    first_line,
    is_conflict,
    of_ended_driver,
    translated,
)
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import detail_of, located, quoted, table_identifier

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import Row, SparkSession

MIN_RETENTION_HOURS = 168.0
"""Delta's default of a week: longer than any job runs, and than a weekend takes to notice one."""

_N_TRIES = 3
_N_LOOKED_AT = 20
"""Commits in which the end of a VACUUM is looked for, since other jobs may have committed since."""
_RETENTION_KEY = "delta.deletedFileRetentionDuration"
_SAFE_SCHEMES = ("", "file", "hdfs")
"""Where Delta's commits never overwrite another's."""
_HOURS = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0, "week": 168.0}
_AMOUNT = re.compile(r"(\d+)\s*(second|minute|hour|day|week)")


class StepStatus(StrEnum):
    """What became of a step."""

    DONE = "done"
    PLANNED = "planned"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Upkeep:
    """What is to be done with each table.

    Attributes:
        optimize: Whether small files are joined.
        where: A predicate over partition columns; only these partitions are optimized.
        zorder: Columns that rows are laid out by; empty: as they come.
        vacuum_hours: Age from which files that no version names any more are removed; None: none.
        checkpoint: Whether the log is written as a checkpoint, and expired entries are removed.
        is_dry: Whether it is only said what would be done.
    """

    optimize: bool = True
    where: str | None = None
    zorder: tuple[str, ...] = ()
    vacuum_hours: float | None = MIN_RETENTION_HOURS
    checkpoint: bool = True
    is_dry: bool = False


@dataclass(frozen=True)
class Step:
    """One step of the upkeep of one table.

    Attributes:
        detail: What was done, in one line; of a failure, the error.
        n_files: Files that went.
        n_bytes: Their size; None where Delta does not say.
        code: Of a failure: the error's code.
        exit_code: What a command ends with because of it.
    """

    table: str
    name: str
    status: StepStatus
    detail: str
    n_files: int = 0
    n_bytes: int | None = None
    seconds: float = 0.0
    code: str | None = None
    exit_code: int = 0


def maintain(spark: SparkSession, tables: Sequence[str], upkeep: Upkeep) -> list[Step]:
    """Do the upkeep of each table; one that fails does not keep the others from theirs.

    Args:
        spark: A session with Delta.
        tables: Paths or catalog names.
        upkeep: What is to be done.

    Raises:
        ConfigError: The request does not hold together; nothing was done.
    """
    hours = upkeep.vacuum_hours
    if hours is not None and not MIN_RETENTION_HOURS <= hours < math.inf:
        raise ConfigError(
            f"vacuum after {hours:g} hours would remove files that a reader, or a "
            f"job that still runs, may need; take {MIN_RETENTION_HOURS:g} or more"
        )
    if (upkeep.where or upkeep.zorder) and not upkeep.optimize:
        raise ConfigError("where and zorder say how to optimize, which is not asked for")
    return [step for table in tables for step in _steps(spark, table, upkeep)]


def _steps(spark: SparkSession, table: str, upkeep: Upkeep) -> list[Step]:
    steps: list[tuple[str, Callable[[], Step]]] = []
    try:
        uri = located(spark, table)
        detail = detail_of(spark, uri)
    except SPARK_FAILURES as exc:
        what = f"table {shown(table)} cannot be opened: {first_line(exc)}"
        text = f"{what}; mend its log, or the way to it"
        return [_failed(table, "open", of_ended_driver(exc, what) or TargetError(text), 0.0)]
    except SparkscoreError as exc:
        return [_failed(table, "open", exc, 0.0)]
    if detail is None or detail["format"] != "delta":
        kind = "no table" if detail is None else f"{detail['format']} files and no Delta table"
        text = f"at {shown(table)} is {kind}; name a Delta table"
        error = TargetError(text)
        return [_failed(uri, "open", error, 0.0)]
    if upkeep.optimize:
        steps.append(("optimize", lambda: _optimize(spark, uri, detail, upkeep)))
    if upkeep.vacuum_hours is not None:
        steps.append(("vacuum", lambda: _vacuum(spark, uri, detail, upkeep)))
    if upkeep.checkpoint:
        steps.append(("checkpoint", lambda: _checkpoint(spark, uri, detail, upkeep)))
    return [_timed(uri, name, step) for name, step in steps]


def _timed(uri: str, name: str, step: Callable[[], Step]) -> Step:
    started = time.perf_counter()
    for _ in range(_N_TRIES):
        try:
            done = step()
        except SPARK_FAILURES as exc:
            if is_conflict(exc):
                continue
            error = translated(exc, f"{name} of {uri!r}")
            return _failed(uri, name, error, time.perf_counter() - started)
        except SparkscoreError as exc:
            return _failed(uri, name, exc, time.perf_counter() - started)
        return replace(done, seconds=time.perf_counter() - started)
    busy = TargetBusyError(
        f"jobs that write {shown(uri)} won {_N_TRIES} times in a row; nothing was lost; run it "
        "again when they are done"
    )
    return _failed(uri, name, busy, time.perf_counter() - started)


def _failed(uri: str, name: str, error: SparkscoreError, seconds: float) -> Step:
    return Step(
        uri,
        name,
        StepStatus.FAILED,
        str(error),
        seconds=seconds,
        code=error.code,
        exit_code=error.exit_code,
    )


def _optimize(spark: SparkSession, uri: str, detail: Row, upkeep: Upkeep) -> Step:
    if upkeep.is_dry:
        n_files, n_bytes = detail["numFiles"], detail["sizeInBytes"]
        text = f"{n_files} files of {n_bytes} bytes would be looked at"
        return Step(uri, "optimize", StepStatus.PLANNED, text)
    where = f" WHERE {upkeep.where}" if upkeep.where else ""
    zorder = f" ZORDER BY ({', '.join(map(quoted, upkeep.zorder))})" if upkeep.zorder else ""
    try:
        row = spark.sql(f"OPTIMIZE {table_identifier(uri)}{where}{zorder}").collect()[0]
    except AnalysisException as exc:
        raise ConfigError(
            f"table {shown(uri)} cannot be optimized so: {first_line(exc)}; where names partition "
            "columns, and zorder others"
        ) from exc
    metrics = row["metrics"]
    n_removed, n_added = metrics["numFilesRemoved"], metrics["numFilesAdded"]
    return Step(
        uri,
        "optimize",
        StepStatus.DONE,
        f"{n_removed} files became {n_added}",
        n_files=n_removed,
        n_bytes=metrics["filesRemoved"]["totalSize"],
    )


def _vacuum(spark: SparkSession, uri: str, detail: Row, upkeep: Upkeep) -> Step:
    assert upkeep.vacuum_hours is not None
    own = _hours_of(detail["properties"].get(_RETENTION_KEY, ""))
    hours = max(upkeep.vacuum_hours, own)
    about = "" if hours == upkeep.vacuum_hours else ", as the table's own retention has it"
    command = f"VACUUM {table_identifier(uri)} RETAIN {hours:g} HOURS"
    with session_conf(spark, _vacuum_conf(spark, detail["location"])), _own_stdout(spark):
        if upkeep.is_dry:
            going = spark.sql(f"{command} DRY RUN").count()
            text = f"{going} files older than {hours:g} hours would be removed{about}"
            return Step(uri, "vacuum", StepStatus.PLANNED, text)
        spark.sql(command).collect()
    gone = _n_vacuumed(spark, uri)
    n_files = "" if gone is None else f"{gone} "
    text = f"{n_files}files older than {hours:g} hours removed{about}"
    return Step(uri, "vacuum", StepStatus.DONE, text, n_files=gone or 0)


def _n_vacuumed(spark: SparkSession, uri: str) -> int | None:
    """Files that the newest VACUUM removed; None where other commits have covered it."""
    history = spark.sql(f"DESCRIBE HISTORY {table_identifier(uri)} LIMIT {_N_LOOKED_AT}")
    ends = history.where("operation = 'VACUUM END'").orderBy("version", ascending=False).take(1)
    return int(ends[0]["operationMetrics"]["numDeletedFiles"]) if ends else None


def _vacuum_conf(spark: SparkSession, location: str) -> dict[str, str]:
    """Tasks as the cluster has cores, where Delta would take 10,000 to list, and one to delete."""
    n_cores = 16 if is_connect(spark) else spark.sparkContext.defaultParallelism
    n_tasks = str(4 * n_cores)
    return {
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": n_tasks,
        "spark.databricks.delta.vacuum.parallelDelete.enabled": "true",
        "spark.databricks.delta.vacuum.parallelDelete.parallelism": n_tasks,
        # By default Delta takes the table's own retention, whatever RETAIN says.
        "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
        # The history then says when a table was vacuumed, and how many files went. Spark's commits
        # in other stores may overwrite those of other writers, and this one can be spared.
        "spark.databricks.delta.vacuum.logging.enabled": str(
            urlsplit(location).scheme in _SAFE_SCHEMES
        ).lower(),
    }


@contextmanager
def _own_stdout(spark: SparkSession) -> Iterator[None]:
    """Keep what Delta prints out of stdout, where our answer is awaited; it goes to stderr."""
    if is_connect(spark):
        yield
        return
    jvm: JavaObject = spark.sparkContext._jvm
    console = getattr(getattr(jvm.scala, "Console$"), "MODULE$")
    before = console.out()
    console.setOutDirect(jvm.java.lang.System.err)
    try:
        yield
    finally:
        console.setOutDirect(before)


def _checkpoint(spark: SparkSession, uri: str, detail: Row, upkeep: Upkeep) -> Step:
    if is_connect(spark):
        text = "a Connect session has no call for it; the next writers make checkpoints"
        return Step(uri, "checkpoint", StepStatus.SKIPPED, text)
    if upkeep.is_dry:
        text = "the log would be written as a checkpoint, and its expired entries removed"
        return Step(uri, "checkpoint", StepStatus.PLANNED, text)
    version = write_checkpoint(spark, detail["location"])
    text = f"version {version} is a checkpoint"
    return Step(uri, "checkpoint", StepStatus.DONE, text)


def _hours_of(interval: str) -> float:
    """Hours of an interval as tables declare it, such as `interval 30 days`; 0 for none."""
    return sum(float(n) * _HOURS[unit] for n, unit in _AMOUNT.findall(interval.lower()))
