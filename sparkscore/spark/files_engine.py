"""The engine in which Spark distributes lists of files and Python reads, scores and writes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from sparkscore.environments.build import BuiltEnvironment
from sparkscore.errors import EngineUnfitError
from sparkscore.files.planning import MAX_TASK_BYTES, cut_tasks, fair_task_bytes, input_bytes
from sparkscore.files.predicate import columns_in
from sparkscore.files.reading import TableReading
from sparkscore.files.sink import FilesSink
from sparkscore.flavors.base import TreeRuntime
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import Crossing, RunFacts, SourceSpec
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.table_write import reject_write, score_write
from sparkscore.spark.delta import files_sink
from sparkscore.spark.file_scores import score_files_job, scored_and_committed, sweep_rejects
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.files_worker import FilesJob, PlannedTask, chunk_of, score_files
from sparkscore.spark.node_cache import NodeLimits
from sparkscore.spark.preloading import ask_for_preload
from sparkscore.spark.resuming import resumption
from sparkscore.spark.scan_cut import n_slots
from sparkscore.spark.shipped_task import WorkerRules, shipped_task
from sparkscore.spark.shipping import BROADCAST_MAX_BYTES, is_connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from sparkscore.files.facts import DataFile
    from sparkscore.scoring.outcome import Commit
    from sparkscore.spark.score_files import TaskResult

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
        environment: Where the model lives; None: in the workers.
        max_chunk_bytes: Most bytes of the source that a task reads, and a killed job reads again.
    """

    spark: SparkSession
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    limits: BatchLimits = field(default_factory=BatchLimits)
    broadcast_max_bytes: int = BROADCAST_MAX_BYTES
    tree_runtime: TreeRuntime = TreeRuntime.AUTO
    node_limits: NodeLimits = field(default_factory=NodeLimits)
    environment: BuiltEnvironment | None = None
    max_chunk_bytes: int = MAX_TASK_BYTES

    name: ClassVar[str] = "files"

    @property
    def application_id(self) -> str | None:
        """Spark's id of the application; None for a Connect session, which does not know it."""
        return None if is_connect(self.spark) else self.spark.sparkContext.applicationId

    @property
    def rules(self) -> WorkerRules:
        """How this engine's workers load and ask models."""
        return WorkerRules(
            self.trust,
            self.limits,
            self.tree_runtime,
            self.node_limits,
            self.broadcast_max_bytes,
            self.environment,
        )

    def open(self, spec: SourceSpec) -> FilesSource:
        """The source with its version pinned and its filter understood; no data file is read.

        Raises:
            SourceError: There is no such table or version.
            EngineUnfitError: Only Spark can read it, or only Spark understands the filter.
        """
        if spec.features.are_there:
            raise EngineUnfitError("Spark computes features")
        if spec.key_rule is not None:
            raise EngineUnfitError(
                f"--duplicates {spec.key_rule.rule} brings rows of a key together"
            )
        return open_files(self.spark, spec)

    def crossing(self, plan: ScoringPlan, source: FilesSource, sink: FilesSink) -> Crossing:  # noqa: ARG002 - the seam
        """What would pass between the JVM and Python, which is the same for all jobs."""
        return Crossing(
            columns="nothing crosses: Python reads the files",
            scores="Python writes the files, and the JVM sees their names and reports",
        )

    def refuse_unfit(self, plan: ScoringPlan, source: FilesSource, sink: FilesSink) -> None:
        """Refuse, before anything is done, what another engine can do and this one cannot.

        Raises:
            EngineUnfitError: A column, the mode or the target is such.
        """
        for name in _names_read(plan, source):
            source.column(name)
        sink.refuse_unfit(score_write(plan))
        if plan.request.refuses_duplicates:
            raise EngineUnfitError("--duplicates fail compares the keys of all rows")
        rejects = self._rejects(plan)
        if rejects is not None:
            rejects.refuse_unfit(reject_write(plan, ""))

    def run(
        self, plan: ScoringPlan, source: FilesSource, sink: FilesSink, facts: RunFacts
    ) -> Outcome:
        """Score and commit, or find that it was done before.

        Raises:
            EngineUnfitError: See `refuse_unfit`.
            SparkscoreError: What the sink, the model or the rows refuse; nothing was committed,
                unless the error is a BooksError.
        """
        done = sink.find(plan.identity)
        rejects = self._rejects(plan)
        if done is not None:
            self.sweep(plan, done)
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        self.refuse_unfit(plan, source, sink)
        sink.check(score_write(plan))
        if rejects is not None:
            rejects.check(reject_write(plan, facts.run_id))
        started = time.perf_counter()
        task = shipped_task(self.spark, plan, self.rules)
        ask_for_preload(self.spark, task)
        n_bytes = input_bytes(source.files)
        chunk_bytes = fair_task_bytes(n_bytes, n_slots(self.spark), self.max_chunk_bytes)
        tasks = cut_tasks(source.files, chunk_bytes)
        max_reports = max(1, _MAX_REPORTS // max(1, len(tasks)))
        writing = score_files_job(plan, sink, task, facts, max_reports, rejects)
        resumed = resumption(plan, writing, facts, partial(_chunks, source.files), chunk_bytes)
        ledger = None if resumed is None else resumed.ledger
        job = FilesJob(writing, _reading(plan, source, self.limits.max_bytes), ledger)
        left = list(enumerate(tasks))
        if resumed is not None:
            tasks = cut_tasks(source.files, resumed.chunk_bytes)
            left = [(place, tasks[place]) for place in resumed.left]
        score = partial(self._score, job, left)
        ship_s = time.perf_counter() - started
        outcome = scored_and_committed(
            self.spark, score, writing, plan, sink, facts, rejects, resumed
        )
        return replace(outcome, seconds={"ship": ship_s, **outcome.seconds})

    def sweep(self, plan: ScoringPlan, commit: Commit) -> None:
        """Remove what attempts at a committed run that were cut off left in its rejects table."""
        rejects = self._rejects(plan)
        if rejects is not None:
            sweep_rejects(plan, rejects, commit)

    def _rejects(self, plan: ScoringPlan) -> FilesSink | None:
        """The table of rejected rows, if the plan has one.

        Raises:
            EngineUnfitError: It is a table of the catalog, or lies where only Spark can write.
        """
        uri = plan.request.rejects_uri
        return None if uri is None else files_sink(self.spark, uri)

    def _score(self, job: FilesJob, tasks: Sequence[PlannedTask]) -> list[TaskResult]:
        if not tasks:
            return []
        planned = self.spark.sparkContext.parallelize(tasks, len(tasks))
        return planned.mapPartitions(partial(score_files, job)).collect()


def _chunks(files: Sequence[DataFile], chunk_bytes: int) -> list[str]:
    return [chunk_of(pieces) for pieces in cut_tasks(files, chunk_bytes)]


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
        store=source.store,
        format=source.format,
    )
