"""The engine of Spark ML pipelines: Spark itself reads, applies the model and writes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as sf

from sparkscore.errors import InvalidRowsError, SignatureMismatchError, listed
from sparkscore.scoring.comparison import InvalidRows
from sparkscore.scoring.engine import Crossing, RunFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.scoring.table_write import score_write
from sparkscore.spark.cancellation import cancellable
from sparkscore.spark.engine import (
    SparkEngine,
    carried_columns,
    check_unique_keys,
    count_of,
    counted_by,
    record_columns,
    refuse_checks,
)
from sparkscore.spark.pipeline_files import read_stages
from sparkscore.spark.pipelines import (
    KEPT,
    answered,
    bound_columns,
    checked,
    load_pipeline,
    pipeline_folder,
)

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame

    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.source import OpenedSource


_WRITER = "it applies its own pipeline"


@dataclass(frozen=True)
class PipelineEngine(SparkEngine):
    """Scores in the JVM: no row crosses to Python, and no package to the workers."""

    name: str = "spark"

    def crossing(self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink) -> Crossing:  # noqa: ARG002 - the same for all
        """Nothing does.

        Raises:
            EngineUnfitError: See `refuse_checks`.
        """
        refuse_checks(plan, self.name, _WRITER)
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
        if done is not None:
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        refuse_checks(plan, self.name, _WRITER)
        sink.check(score_write(plan))
        if plan.request.refuses_duplicates:
            check_unique_keys(source.frame, plan)
        started = time.perf_counter()
        pipeline = self._load(plan)
        loaded = time.perf_counter()
        read, scored = Observation(), Observation()
        frame = _scored_frame(plan, counted_by(read, source.frame), pipeline, facts)
        counted = counted_by(scored, frame)
        commit = cancellable(self.spark, lambda: self._write(counted, plan, source, sink, facts))
        if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
        n_read, n_scored = count_of(read), count_of(scored)
        # Left out by a check of ours, or by a stage that is told to skip.
        rejects = plan.request.on_invalid is InvalidRows.REJECT
        outcome = Outcome(
            status=OutcomeStatus.SUCCEEDED,
            commit=commit,
            n_read=n_read,
            n_scored=n_scored,
            n_rejected=max(0, n_read - n_scored) if rejects else 0,
            seconds={
                "load_model": loaded - started,
                "score_and_commit": time.perf_counter() - loaded,
            },
            n_cores=self._n_cores(),
        )
        return source.accounted(outcome)

    def _load(self, plan: ScoringPlan) -> PipelineModel:
        if plan.params:
            raise SignatureMismatchError(
                f"params {listed(plan.params)} are given, but models of this flavor take none"
            )
        folder = pipeline_folder(plan.model)
        skipping = [s.uid for s in read_stages(folder, self.trust) if s.leaves_rows_out]
        if skipping and plan.request.on_invalid is InvalidRows.FAIL:
            raise InvalidRowsError(
                f"the stages {listed(skipping)} of model {plan.model.label} leave out rows that "
                "they cannot take, which the settings do not admit; set scoring.on_invalid=reject "
                "(--on-invalid reject), which counts them, or save the pipeline with "
                "handleInvalid='error' or 'keep'"
            )
        return load_pipeline(self.spark, folder)


def _scored_frame(
    plan: ScoringPlan, source: DataFrame, pipeline: PipelineModel, facts: RunFacts
) -> DataFrame:
    """The score table's rows, lazily."""
    inputs, checks = bound_columns(plan.bindings)
    kept = sf.struct(*carried_columns(plan), *record_columns(plan, facts))
    fails = plan.request.on_invalid is InvalidRows.FAIL
    rows = checked(source, checks, plan.model, fails=fails)
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
