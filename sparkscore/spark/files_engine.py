"""The engine in which Spark distributes lists of files and Python reads, scores and writes them."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from sparkscore.errors import EngineUnfitError
from sparkscore.files.planning import plan_tasks
from sparkscore.files.predicate import columns_in
from sparkscore.files.reading import TableReading
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import new_attempt
from sparkscore.flavors.base import TreeRuntime
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outcome import BatchReport, Commit, Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, score_schema
from sparkscore.spark.cancellation import cancellable, is_ending
from sparkscore.spark.engine import scoring_task
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.files_worker import FilesJob, TaskResult, score_files
from sparkscore.spark.node_cache import NodeLimits
from sparkscore.spark.preloading import ask_for_preload
from sparkscore.spark.shipping import BROADCAST_MAX_BYTES, is_connect, ship
from sparkscore.spark.source import is_path, located

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import SparkSession

_MAX_REPORTS = 20_000
"""Reports of batches that a driver keeps, about; 10**11 rows have a million and a half batches."""


@dataclass(frozen=True)
class FilesEngine:
    """Scores files in Python workers; only lists of files and reports cross to and from the JVM.

    Attributes:
        spark: A classic session.
        trust: What loading the model may run on the nodes.
        limits: Bounds of one batch.
        broadcast_max_bytes: A larger package travels as a file instead of in a broadcast.
        tree_runtime: Whether compiled trees may score in the place of a model's library.
        node_limits: What workers and nodes may keep for later tasks.
    """

    spark: SparkSession
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    limits: BatchLimits = field(default_factory=BatchLimits)
    broadcast_max_bytes: int = BROADCAST_MAX_BYTES
    tree_runtime: TreeRuntime = TreeRuntime.AUTO
    node_limits: NodeLimits = field(default_factory=NodeLimits)

    name: ClassVar[str] = "files"

    @property
    def application_id(self) -> str | None:
        """Spark's id of the application; None for a Connect session, which does not know it."""
        return None if is_connect(self.spark) else self.spark.sparkContext.applicationId

    def open(self, spec: SourceSpec) -> FilesSource:
        """The source with its version pinned and its filter understood; no data file is read.

        Raises:
            SourceError: There is no such table or version.
            EngineUnfitError: Only Spark can read it, or only Spark understands the filter.
        """
        return open_files(self.spark, spec)

    def crossing(self, plan: ScoringPlan, source: FilesSource) -> str:  # noqa: ARG002 - the seam
        """In one line, how the columns cross from the JVM to Python."""
        return "nothing: Python reads the files, and the JVM sees their names and reports"

    def refuse_unfit(self, plan: ScoringPlan, source: FilesSource, sink: FilesSink) -> None:
        """Refuse, before anything is done, what another engine can do and this one cannot.

        Raises:
            EngineUnfitError: A column, the mode or the target is such.
        """
        for name in _names_read(plan, source):
            source.column(name)
        sink.refuse_unfit(plan)

    def run(
        self, plan: ScoringPlan, source: FilesSource, sink: FilesSink, facts: RunFacts
    ) -> Outcome:
        """Score and commit, or find that it was done before.

        Files that are in no commit when it ends are removed, whatever happened; what an attempt
        writes that Spark still runs then is left to VACUUM, and no reader sees it.

        Raises:
            EngineUnfitError: See `refuse_unfit`.
            SparkscoreError: What the sink, the model or the rows refuse; nothing was committed,
                unless the error is a BooksError.
        """
        done = sink.find(plan.identity)
        if done is not None:
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        self.refuse_unfit(plan, source, sink)
        sink.check(plan, score_schema(plan))
        started = time.perf_counter()
        packed = ship(self.spark, plan.model.folder, plan.model.digest, self.broadcast_max_bytes)
        task = scoring_task(
            plan, packed, self.trust, self.limits, self.tree_runtime, self.node_limits
        )
        ask_for_preload(self.spark, task)
        attempt = new_attempt()
        job = FilesJob(
            scoring=task,
            reading=_reading(plan, source, self.limits.max_bytes),
            layout=sink.layout(plan),
            carried=tuple(column.name for column in plan.carried),
            keys=plan.request.keys,
            constants=_constants(plan, facts),
            replace_where=sink.predicate(plan),
            attempt=attempt,
        )
        shipped = time.perf_counter()
        try:
            results = self._score(job, source, sink)
            scored = time.perf_counter()
            files = tuple(file for result in results for file in result.files)
            commit = sink.write(WrittenScores(files, attempt), plan, facts)
            ended = time.perf_counter()
        finally:
            sink.clean(attempt)
        if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
        seconds = {
            "ship": shipped - started,
            "score_and_commit": ended - shipped,
            "commit": ended - scored,
            "in_workers_read": sum(result.read_s for result in results),
            "in_workers_write": sum(result.write_s for result in results),
            "in_workers_tasks": sum(result.task_s for result in results),
        }
        return _outcome(results, commit, seconds, self.spark.sparkContext.defaultParallelism)

    def _score(self, job: FilesJob, source: FilesSource, sink: FilesSink) -> Sequence[TaskResult]:
        context = self.spark.sparkContext
        n_cpus = int(context.getConf().get("spark.task.cpus", "1") or "1")
        tasks = plan_tasks(source.files, max(1, context.defaultParallelism // n_cpus))
        if not tasks:
            return []
        job = replace(job, max_reports=max(1, _MAX_REPORTS // len(tasks)))
        planned = context.parallelize(list(enumerate(tasks)), len(tasks))
        try:
            return cancellable(self.spark, planned.mapPartitions(partial(score_files, job)).collect)
        except (*SPARK_FAILURES, ConnectionError) as exc:
            what = f"scoring {source.table.uri!r} into {sink.uri!r}"
            raise translated(exc, what, is_ending=is_ending(self.spark)) from exc


def files_sink(spark: SparkSession, target: str) -> FilesSink:
    """The score table at a path, as this session understands it.

    Raises:
        EngineUnfitError: It is a table of the catalog.
    """
    uri = located(spark, target)
    if not is_path(uri):
        raise EngineUnfitError(f"the target {target!r} is a table of the catalog")
    return FilesSink(uri, spark.conf.get("spark.sql.session.timeZone") or "UTC")


def _names_read(plan: ScoringPlan, source: FilesSource) -> list[str]:
    """The source columns that are needed, and then those that only the filter reads."""
    bound = [binding.source.name for binding in plan.bindings if binding.source is not None]
    carried = [column.name for column in plan.carried]
    filtered = [] if source.where is None else sorted(columns_in(source.where))
    return list(dict.fromkeys([*bound, *carried, *filtered]))


def _reading(plan: ScoringPlan, source: FilesSource, max_bytes: int) -> TableReading:
    columns = [source.column(name) for name in _names_read(plan, source)]
    return TableReading(
        schema=pa.schema([pa.field(c.column.name, c.column.type) for c in columns]),
        outputs=tuple(c.column.name for c in columns),
        physical={c.column.name: c.in_files for c in columns},
        where=source.where,
        max_bytes=max_bytes,
        format=source.format,
    )


def _constants(
    plan: ScoringPlan, facts: RunFacts
) -> dict[str, str | int | dt.date | dt.datetime | None]:
    """What stands in each row: columns that the predicate pins, and where the row comes from."""
    constants: dict[str, str | int | dt.date | dt.datetime | None] = {}
    for pinned in plan.constants:
        if pinned.type == "date":
            constants[pinned.column] = dt.date.fromisoformat(pinned.value)
        else:
            is_text = pinned.type == "string"
            constants[pinned.column] = pinned.value if is_text else int(pinned.value)
    version = plan.model.version
    return constants | {
        "model_name": plan.model.name,
        "model_version": None if version is None else str(version),
        "model_digest": plan.model.digest,
        "run_id": facts.run_id,
        "scored_at": facts.scored_at,
    }


def _outcome(
    results: Sequence[TaskResult], commit: Commit, seconds: Mapping[str, float], n_cores: int
) -> Outcome:
    reports = [BatchReport(**report) for result in results for report in result.reports]
    n_read = sum(report.n_rows for report in reports)
    return Outcome(
        status=OutcomeStatus.SUCCEEDED,
        commit=commit,
        n_read=n_read,
        n_scored=sum(file.n_rows for result in results for file in result.files),
        n_rejected=sum(report.n_rejected for report in reports),
        seconds=seconds,
        n_cores=n_cores,
        batches=reports,
    )
