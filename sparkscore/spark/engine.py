"""The engines that feed a model from Spark: Arrow batches or pandas frames, the same worker."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypedDict, TypeVar

from pyspark.sql import Observation
from pyspark.sql import functions as sf

from sparkscore.environments.build import BuiltEnvironment
from sparkscore.errors import EngineUnfitError, KeyColumnError, SparkscoreError, shown
from sparkscore.files.planning import MAX_TASK_BYTES, fair_task_bytes
from sparkscore.flavors.base import TreeRuntime
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import Crossing, RunFacts, SourceSpec
from sparkscore.scoring.facts import MALFORMED_COLUMN
from sparkscore.scoring.outcome import BatchReport, Commit, Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.rejects import InvalidRows, RejectBudget
from sparkscore.scoring.table_write import reject_write, score_write
from sparkscore.spark.cancellation import cancellable, is_ending
from sparkscore.spark.changes import open_changes
from sparkscore.spark.columns import EXACT_INTEGERS_KEY
from sparkscore.spark.delta import DeltaSink, session_conf
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.features import with_features
from sparkscore.spark.file_scores import score_files_job, scored_and_committed, sweep_rejects
from sparkscore.spark.frame_files import CrossingColumns, crossing_columns
from sparkscore.spark.frame_scoring import FrameScoring
from sparkscore.spark.node_cache import NodeLimits
from sparkscore.spark.one_a_key import one_a_key
from sparkscore.spark.preloading import ask_for_preload
from sparkscore.spark.resuming import Resumption, n_resumed, resumption
from sparkscore.spark.scan_cut import n_slots
from sparkscore.spark.score_rows import (
    answered_frame,
    frame_crossing,
    placing_columns,
    scored_frame,
    table_rows,
)
from sparkscore.spark.shipped_task import WorkerRules, shipped_task
from sparkscore.spark.shipping import BROADCAST_MAX_BYTES, is_connect, ship
from sparkscore.spark.source import OpenedSource, open_source, quoted
from sparkscore.spark.staged_files import StagedSink, staged_sink
from sparkscore.spark.staged_scores import Answered, staged_and_committed
from sparkscore.spark.worker import PackedPackage, ScoringTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame, SparkSession

    from sparkscore.files.sink import FilesSink
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.scoring.table_write import TableWrite

_Result = TypeVar("_Result")

_MAX_REPORTS_A_TASK = 16
"""Reports of batches that a task of a DataFrame sends; nobody knows how many tasks there are."""


@dataclass(frozen=True)
class SparkEngine:
    """Scores with Spark in one job: read, predict, count and write in one pass.

    Attributes:
        spark: The session; classic or Connect.
        name: `arrow` (Arrow arrays all the way) or `pandas` (through Spark's pandas UDF).
        trust: What loading the model may run on the nodes.
        limits: Bounds of one batch.
        broadcast_max_bytes: A larger package travels as a file instead of in a broadcast.
        tree_runtime: Whether compiled trees may score in the place of a model's library.
        node_limits: What workers and nodes may keep for later tasks.
        environment: Where the model lives; None: in the workers.
        packed: Packages that were sent before, by digest; others are sent with each run.
        max_chunk_bytes: Most bytes of the source that a task reads, and a killed job reads again,
            where its rows come straight from files.
    """

    spark: SparkSession
    name: str = "arrow"
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    limits: BatchLimits = field(default_factory=BatchLimits)
    broadcast_max_bytes: int = BROADCAST_MAX_BYTES
    tree_runtime: TreeRuntime = TreeRuntime.AUTO
    node_limits: NodeLimits = field(default_factory=NodeLimits)
    environment: BuiltEnvironment | None = None
    packed: Mapping[str, PackedPackage] = field(default_factory=dict)
    max_chunk_bytes: int = MAX_TASK_BYTES

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
            self.packed,
        )

    def open(self, spec: SourceSpec) -> OpenedSource:
        """The source with its version pinned and its filter applied; no row is read.

        Raises:
            SourceError: There is no such table or version, or the filter does not fit.
            ConfigError: Its features cannot be computed.
        """
        if spec.since is None:
            opened = open_source(self.spark, spec)
        else:
            opened = open_changes(self.spark, spec, spec.since)
        if spec.features.are_there:
            opened = with_features(opened, spec.features, self.spark)
        return opened if spec.key_rule is None else one_a_key(opened, spec.key_rule)

    def ship(self, model: ModelFacts) -> PackedPackage:
        """Send a model's package to the nodes, for `packed` of later runs."""
        return ship(self.spark, model.folder, model.digest, self.broadcast_max_bytes)

    def crossing(self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink) -> Crossing:
        """What would pass between the JVM and Python, and why so."""
        try:
            target, columns = self._by_python(plan, source, sink)
        except EngineUnfitError as exc:
            _, reason = frame_crossing(plan, source.frame, self.name)
            return Crossing(reason, f"they cross back, and Spark writes the files: {exc.reason}")
        if isinstance(target, StagedSink):
            how = "Python writes files, and Spark takes them into the table"
            return Crossing(columns.reason, how)
        return Crossing(columns.reason, "Python writes the files, and no score crosses back")

    def run(
        self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink, facts: RunFacts
    ) -> Outcome:
        """Score and commit, or find that it was done before.

        Raises:
            SparkscoreError: What the sink, the model or the rows refuse; nothing was committed,
                unless the error is a BooksError or a SparkStoppedError.
        """
        done = sink.find(plan.identity)
        rejects = self._rejects(plan)
        if done is not None:
            self.sweep(plan, done)
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        run: Callable[[ScoringTask], Outcome]
        try:
            files, crossing = self._by_python(plan, source, sink)
        except EngineUnfitError:
            sink.check(score_write(plan))
            by_spark = self._written_by_spark if _is_one_pass(plan) else self._staged_by_spark
            run = partial(by_spark, plan, source, sink, facts)
        else:
            files.check(score_write(plan))
            run = partial(self._written_by_python, plan, source, files, crossing, facts)
        if rejects is not None:
            rejects.check(reject_write(plan, facts.run_id))
        if plan.request.refuses_duplicates:
            check_unique_keys(source.frame, plan)
        started = time.perf_counter()
        task = shipped_task(self.spark, plan, self.rules)
        if not is_connect(self.spark):
            ask_for_preload(self.spark, task)
        ship_s = time.perf_counter() - started
        outcome = source.accounted(run(task))
        return replace(outcome, seconds={"ship": ship_s, **outcome.seconds})

    def sweep(self, plan: ScoringPlan, commit: Commit) -> None:
        """Remove what attempts at a committed run that were cut off left in its rejects table."""
        rejects = self._rejects(plan)
        if rejects is not None:
            sweep_rejects(plan, rejects, commit)

    def _by_python(
        self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink
    ) -> tuple[FilesSink | StagedSink, CrossingColumns]:
        """The target as files, and what crosses to those who write them.

        Raises:
            EngineUnfitError: Spark has to write them.
        """
        if self.name == "pandas":
            raise EngineUnfitError("the model is a column of Spark's, by its pandas UDF")
        rejects = self._rejects(plan)
        if rejects is not None:
            rejects.as_files(reject_write(plan, ""))
        crossing = crossing_columns(plan, source.frame)
        write = score_write(plan)
        try:
            return sink.as_files(write), crossing
        except EngineUnfitError:
            if not plan.source.version and _is_one_pass(plan):
                raise  # A batch of a stream is never resumed, and Spark alone has less to do.
            by_partition = plan.request.max_partition_rejects != RejectBudget()
            commit = partial(self._taken, plan, sink, source.gone)
            return staged_sink(sink, write, by_partition=by_partition, commit=commit), crossing

    def _rejects(self, plan: ScoringPlan) -> DeltaSink | None:
        """The table of rejected rows, if the plan has one."""
        uri = plan.request.rejects_uri
        return None if uri is None else DeltaSink(self.spark, uri)

    def _written_by_python(
        self,
        plan: ScoringPlan,
        source: OpenedSource,
        sink: FilesSink | StagedSink,
        crossing: CrossingColumns,
        facts: RunFacts,
        task: ScoringTask,
    ) -> Outcome:
        table = self._rejects(plan)
        rejects = None if table is None else table.as_files(reject_write(plan, facts.run_id))
        packed = () if crossing.packing is None else crossing.packing.packed
        shadow, failure = self._shadow(plan)
        job = score_files_job(plan, sink, task, facts, _MAX_REPORTS_A_TASK, rejects, packed, shadow)
        scoring = FrameScoring(source.frame, crossing, job, self._conf())
        resumed = self._resumption(plan, scoring, facts)
        score = partial(scoring.run, resumed)
        outcome = scored_and_committed(
            self.spark, score, job, plan, sink, facts, rejects, resumed, shadow
        )
        if outcome.status is OutcomeStatus.ALREADY_SCORED:
            return outcome
        told = outcome.shadow_failure or failure
        return replace(outcome, n_read=scoring.n_read + n_resumed(resumed), shadow_failure=told)

    def _shadow(self, plan: ScoringPlan) -> tuple[FilesSink | None, str | None]:
        """The table of the model in the shadow, if there is one; or why it takes no rows."""
        if plan.shadow is None:
            return None, None
        write = score_write(plan.shadow.plan)
        try:
            sink = DeltaSink(self.spark, plan.shadow.uri).as_files(write)
            sink.check(write)
        except SparkscoreError as exc:
            return None, str(exc)
        return sink, None

    def _resumption(
        self, plan: ScoringPlan, scoring: FrameScoring, facts: RunFacts
    ) -> Resumption | None:
        """What is left of a run; None where Spark may not cut its rows the same way twice."""
        n_bytes = scoring.n_bytes() if plan.source.version else None
        if n_bytes is None:
            return None
        chunk_bytes = fair_task_bytes(n_bytes, n_slots(self.spark), self.max_chunk_bytes)
        return resumption(plan, scoring.job, facts, scoring.chunks, chunk_bytes)

    def _taken(
        self,
        plan: ScoringPlan,
        sink: DeltaSink,
        gone: DataFrame | None,
        rows: DataFrame,
        write: TableWrite,
        facts: RunFacts,
        resumed_from: tuple[str, ...],
    ) -> Commit:
        """Rows that Python has written, taken by Spark into their table."""
        action = partial(sink.write, rows, write, facts, gone, resumed_from)
        return cancellable(self.spark, lambda: self._translated(plan, sink, action))

    def _written_by_spark(
        self,
        plan: ScoringPlan,
        source: OpenedSource,
        sink: DeltaSink,
        facts: RunFacts,
        task: ScoringTask,
    ) -> Outcome:
        read, scored = Observation(), Observation()
        started = time.perf_counter()
        frame = scored_frame(plan, source.frame, task, facts, self.name, (read, scored))
        commit = cancellable(self.spark, lambda: self._write(frame, plan, source, sink, facts))
        ended = time.perf_counter()
        if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
        return Outcome(
            status=OutcomeStatus.SUCCEEDED,
            commit=commit,
            **_counted(_observed(read) | _observed(scored), plan, source, commit),
            seconds={"score_and_commit": ended - started},
            n_cores=self._n_cores(),
        )

    def _staged_by_spark(
        self,
        plan: ScoringPlan,
        source: OpenedSource,
        sink: DeltaSink,
        facts: RunFacts,
        task: ScoringTask,
    ) -> Outcome:
        started = time.perf_counter()
        has_table = plan.request.rejects_uri is not None
        frame, answer = answered_frame(plan, source.frame, task, self.name, keeps_inputs=has_table)
        names = sink.partition_by(score_write(plan))
        partitions = {n: c for n, c in placing_columns(plan).items() if n in names}
        scores = partial(table_rows, plan, facts=facts, answer=answer)
        answered = Answered(frame, answer, scores, partitions)
        rejects = self._rejects(plan)
        staged = partial(staged_and_committed, plan, answered, sink, rejects, facts, source.gone)
        # The settings of the session are one thread's at a time, and a merge asks for some too.
        outcome = cancellable(self.spark, lambda: self._translated(plan, sink, staged))
        seconds = {"score_and_commit": time.perf_counter() - started}
        return replace(outcome, seconds=seconds, n_cores=self._n_cores())

    def _write(
        self,
        frame: DataFrame,
        plan: ScoringPlan,
        source: OpenedSource,
        sink: DeltaSink,
        facts: RunFacts,
    ) -> Commit:
        write = partial(sink.write, frame, score_write(plan), facts, source.gone)
        return self._translated(plan, sink, write)

    def _translated(
        self, plan: ScoringPlan, sink: DeltaSink, action: Callable[[], _Result]
    ) -> _Result:
        """What an action gives under the settings of a job; its failures are errors of ours."""
        try:
            with session_conf(self.spark, self._conf()):
                return action()
        except (*SPARK_FAILURES, ConnectionError) as exc:
            what = f"scoring {plan.source.uri!r} into {sink.uri!r}"
            source = plan.source.uri
            raise translated(exc, what, source=source, is_ending=is_ending(self.spark)) from exc

    def _conf(self) -> dict[str, str]:
        """Settings of the session that a job needs."""
        return {
            "spark.sql.execution.arrow.maxRecordsPerBatch": str(self.limits.max_rows),
            "spark.sql.execution.arrow.maxBytesPerBatch": str(self.limits.max_bytes),
            EXACT_INTEGERS_KEY: "true",
            # Spark's default, INT96, is read elsewhere as nanoseconds, which end in 1677 and 2262.
            "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        }

    def _n_cores(self) -> int | None:
        return None if is_connect(self.spark) else self.spark.sparkContext.defaultParallelism


def check_unique_keys(frame: DataFrame, plan: ScoringPlan) -> None:
    """Refuse doubled keys before they are scored.

    Delta's MERGE refuses them only where the target has the key; new ones it would insert twice.

    Raises:
        KeyColumnError: Several rows of the source share a key.
    """
    keys = [sf.col(quoted(name)).alias(f"k{i}") for i, name in enumerate(plan.request.keys)]
    if MALFORMED_COLUMN in frame.columns:  # Such rows are rejected, and their keys are null.
        frame = frame.where(sf.col(MALFORMED_COLUMN).isNull())
    groups = frame.groupBy(*keys).agg(sf.count(sf.lit(1)).alias("n_rows"))
    doubled = groups.where("n_rows > 1").limit(1).collect()
    if doubled:
        *values, n_rows = doubled[0]
        key = dict(zip(plan.request.keys, values, strict=True))
        raise KeyColumnError(
            f"{n_rows} rows of {plan.source.uri!r} have the key {shown(key)}, so only one of them "
            "could be found by it; name further key columns (--key), filter the source to one row "
            "a key (--where), or say which one counts (--duplicates last --order-by COLUMN)"
        )


def _is_one_pass(plan: ScoringPlan) -> bool:
    """Whether nothing but the scores is written, and nothing has to be known before."""
    return plan.request.on_invalid is InvalidRows.FAIL and not plan.request.checks.are_there


class _Counts(TypedDict):
    n_read: int
    n_scored: int
    n_rejected: int
    n_beside: int
    batches: tuple[BatchReport, ...]


def _counted(
    observed: Mapping[str, object], plan: ScoringPlan, source: OpenedSource, commit: Commit
) -> _Counts:
    """The rows of a run as Spark observed them, with the workers' reports.

    A Connect server does not send what it observed below some commands, MERGE among them. Then
    the source is counted again, the commit says what was scored, and there are no reports.
    """
    reports = observed.get("reports")
    if isinstance(reports, list):
        batches = tuple(BatchReport(**json.loads(report)) for report in reports)
        return _Counts(
            n_read=_count(observed["n_rows"]),
            n_scored=_count(observed["n_scored"]),
            n_rejected=_count(observed["n_rejected"]),
            n_beside=0 if plan.panel is None else plan.panel.n_beside(batches),
            batches=batches,
        )
    n_read, n_written = source.frame.count(), commit.n_rows or 0
    n_scored = min(n_read, n_written)  # In the long form there are rows of other models too.
    return _Counts(
        n_read=n_read,
        n_scored=n_scored,
        n_rejected=n_read - n_scored if plan.panel is not None else 0,
        n_beside=n_written - n_scored,
        batches=(),
    )


def _observed(observation: Observation) -> dict[str, object]:
    try:
        return dict(observation.get)
    except AssertionError:  # Connect's way to say that nothing came.
        return {}


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value
