"""The engine of Spark ML pipelines: Spark itself reads, applies the model and writes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import Observation
from pyspark.sql import functions as sf

from sparkscore.errors import (
    EngineUnfitError,
    InvalidRowsError,
    SignatureMismatchError,
    listed,
)
from sparkscore.scoring.engine import Crossing, RunFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.rejects import (
    REASON_COLUMNS,
    NanAnswers,
    ReasonCount,
    RejectBudget,
    RejectCounts,
    added_reasons,
    check_budgets,
)
from sparkscore.scoring.table_write import reject_write, score_write
from sparkscore.spark.cancellation import cancellable
from sparkscore.spark.engine import SparkEngine, check_unique_keys
from sparkscore.spark.file_scores import sweep_rejects
from sparkscore.spark.pipeline_files import read_stages
from sparkscore.spark.pipelines import (
    KEPT,
    answered,
    bound_columns,
    checked,
    load_pipeline,
    pipeline_folder,
    reason_columns,
)
from sparkscore.spark.score_rows import (
    carried_columns,
    count_of,
    counted_by,
    record_columns,
)
from sparkscore.spark.staged_scores import checked_frame_write, reject_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.ml import PipelineModel
    from pyspark.sql import Column, DataFrame

    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.source import OpenedSource


_NOTHING = RejectCounts(n_read=0, n_rejected=0, reasons=(), partitions={})


@dataclass(frozen=True)
class PipelineEngine(SparkEngine):
    """Scores in the JVM: no row crosses to Python, and no package to the workers."""

    name: str = "spark"

    def crossing(self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink) -> Crossing:  # noqa: ARG002 - the same for all
        """Nothing does."""
        return Crossing("none: Spark applies its own pipeline", "none: Spark writes the files")

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
        _check_policy(plan)
        sink.check(score_write(plan))
        if rejects is not None:
            rejects.check(reject_write(plan, facts.run_id))
        if plan.request.refuses_duplicates:
            check_unique_keys(source.frame, plan)
        started = time.perf_counter()
        pipeline = self._load(plan)
        loaded = time.perf_counter()
        run = partial(self._committed, plan, source, pipeline, sink, rejects, facts)
        outcome = cancellable(self.spark, lambda: self._translated(plan, sink, run))
        seconds = {
            "load_model": loaded - started,
            "score_and_commit": time.perf_counter() - loaded,
        }
        return replace(outcome, seconds=seconds, n_cores=self._n_cores())

    def _committed(
        self,
        plan: ScoringPlan,
        source: OpenedSource,
        pipeline: PipelineModel,
        sink: DeltaSink,
        rejects: DeltaSink | None,
        facts: RunFacts,
    ) -> Outcome:
        inputs, checks = bound_columns(plan.bindings)
        rows, found, rejects_commit = source.frame, _NOTHING, None
        if rejects is None:
            rows = checked(rows, checks, plan.model)
        elif checks:
            reasons = reason_columns(checks)
            code = reasons["reject_code"]
            found = _found(rows, reasons)
            check_budgets(found, plan.request.max_rejects, RejectBudget())
            if found.n_rejected:
                without = rows.where(code.isNotNull())
                without = without.select(*reject_columns(plan, facts, reasons.__getitem__))
                rejects_commit = rejects.write(without, reject_write(plan, facts.run_id), facts)
            rows = rows.where(code.isNull())
        read, scored = Observation(), Observation()
        frame = _scored_frame(plan, counted_by(read, rows), pipeline, inputs, facts)
        frame = counted_by(scored, frame)
        with _kept(frame, is_read_twice=plan.request.checks.are_there) as scores:
            write = checked_frame_write(plan, sink, scores)
            commit = sink.write(scores, write, facts, source.gone)
        if rejects is not None:
            sweep_rejects(plan, rejects, commit)
        if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
        outcome = Outcome(
            status=OutcomeStatus.SUCCEEDED,
            commit=commit,
            n_read=count_of(read) + found.n_rejected,
            n_scored=count_of(scored),
            n_rejected=found.n_rejected,
            rejects=rejects_commit,
            other_reasons=found.reasons,
        )
        return source.accounted(outcome)

    def _load(self, plan: ScoringPlan) -> PipelineModel:
        if plan.params:
            raise SignatureMismatchError(
                f"params {listed(plan.params)} are given, but models of this flavor take none"
            )
        folder = pipeline_folder(plan.model)
        skipping = [s.uid for s in read_stages(folder, self.trust) if s.leaves_rows_out]
        if skipping:
            raise InvalidRowsError(
                f"the stages {listed(skipping)} of model {plan.model.label} leave out rows that "
                "they cannot take, and do not say which; save the pipeline with "
                "handleInvalid='error' or 'keep'"
            )
        return load_pipeline(self.spark, folder)


@contextmanager
def _kept(frame: DataFrame, *, is_read_twice: bool) -> Iterator[DataFrame]:
    """A frame that is computed once, however often it is read within a block."""
    if not is_read_twice:
        yield frame
        return
    kept = frame.persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()


def _check_policy(plan: ScoringPlan) -> None:
    """Refuse what needs rows that fail in the model to be found, which Spark does not.

    Raises:
        EngineUnfitError: The plan asks for it.
    """
    request = plan.request
    asked = [
        (request.keeps_rejected, "rows without a prediction in the score table"),
        (request.on_nan is NanAnswers.REJECT, "on_nan=reject"),
        (request.max_partition_rejects != RejectBudget(), "max_partition_rejects"),
    ]
    unfit = [what for is_asked, what in asked if is_asked]
    if unfit:
        raise EngineUnfitError(
            f"Spark itself applies pipelines of Spark ML, without {listed(unfit)}",
            "spark",
            "take --on-invalid fail, or quarantine for rows that the model cannot be given",
        )


def _found(rows: DataFrame, reasons: Mapping[str, Column]) -> RejectCounts:
    """The rows that the model cannot be given; the model is not asked."""
    code, column, message = REASON_COLUMNS.names
    named = rows.select(*(reasons[name].alias(name) for name in REASON_COLUMNS.names))
    groups = named.groupBy(code, column).agg(
        sf.count(sf.lit(1)).alias("n_rows"), sf.first(message).alias("message")
    )
    counts = groups.collect()
    rejected = added_reasons([[ReasonCount(*row) for row in counts if row[code] is not None]])
    n_rejected = sum(one.n_rows for one in rejected)
    return RejectCounts(sum(row["n_rows"] for row in counts), n_rejected, rejected, {})


def _scored_frame(
    plan: ScoringPlan,
    rows: DataFrame,
    pipeline: PipelineModel,
    inputs: Sequence[tuple[str, Column]],
    facts: RunFacts,
) -> DataFrame:
    """The score table's rows, lazily."""
    kept = sf.struct(*carried_columns(plan), *record_columns(plan, facts))
    scored = answered(rows, pipeline, inputs, kept, plan.predictions)
    predictions = {name: f"p{i}" for i, name in enumerate(plan.predictions.names)}
    return scored.select(
        *(
            sf.col(predictions[name]).alias(name)
            if name in predictions
            else sf.col(KEPT)[name].alias(name)
            for name in plan.score_columns
        )
    )
