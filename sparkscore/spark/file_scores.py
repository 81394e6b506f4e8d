"""The driver's part where Python writes the score table: what tasks are told, and the commit."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sparkscore.errors import StoreUnavailableError
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import new_attempt
from sparkscore.scoring.outcome import BatchReport, Outcome, OutcomeStatus
from sparkscore.scoring.panel import ROUTE_RECORD
from sparkscore.scoring.plan import model_record
from sparkscore.scoring.table_write import score_write
from sparkscore.spark.cancellation import cancellable, is_ending
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.score_files import ModelRows, ScoreFilesJob, TaskResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.scoring.engine import RunFacts
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.spark.worker import ScoringTask


def score_files_job(
    plan: ScoringPlan, sink: FilesSink, task: ScoringTask, facts: RunFacts, max_reports: int
) -> ScoreFilesJob:
    """What the tasks of a new attempt at a run share.

    Args:
        plan: The run.
        sink: Where it writes.
        task: How a batch is scored.
        facts: What stands in each row.
        max_reports: Reports of one task.
    """
    return ScoreFilesJob(
        scoring=task,
        layout=sink.layout(score_write(plan)),
        carried=tuple(column.name for column in plan.carried),
        keys=plan.request.keys,
        constants=_constants(plan, facts),
        replace_where=sink.predicate(score_write(plan)),
        attempt=new_attempt(),
        max_reports=max_reports,
        models=_model_rows(plan),
    )


def scored_and_committed(
    spark: SparkSession,
    score: Callable[[], Sequence[TaskResult]],
    job: ScoreFilesJob,
    plan: ScoringPlan,
    sink: FilesSink,
    facts: RunFacts,
) -> Outcome:
    """Run the tasks and commit their files, all in one transaction.

    Files that are in no commit when it ends are removed, unless a store does not answer to the
    commit; what an attempt writes that Spark still runs then is left to VACUUM, and no reader
    sees it.

    Args:
        spark: The session whose tasks these are.
        score: Runs them.
        job: What they share.
        plan: The run.
        sink: Where it writes.
        facts: Which run this is.

    Raises:
        SparkscoreError: What the sink, the model or the rows refuse; nothing was committed, unless
            a store did not answer.
    """
    started = time.perf_counter()
    may_land = False
    try:
        try:
            results = cancellable(spark, score)
        except (*SPARK_FAILURES, ConnectionError) as exc:
            what = f"scoring {plan.source.uri!r} into {sink.uri!r}"
            raise translated(exc, what, is_ending=is_ending(spark)) from exc
        scored = time.perf_counter()
        files = tuple(file for result in results for file in result.files)
        try:
            commit = sink.write(WrittenScores(files, job.attempt), score_write(plan), facts)
        except StoreUnavailableError:
            may_land = True  # A commit that was sent and not answered needs its files.
            raise
        ended = time.perf_counter()
    finally:
        if not may_land:
            sink.clean(job.attempt)
    if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
        return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
    reports = [BatchReport(**report) for result in results for report in result.reports]
    n_beside = 0 if plan.panel is None else plan.panel.n_beside(reports)
    return Outcome(
        status=OutcomeStatus.SUCCEEDED,
        commit=commit,
        n_read=sum(report.n_rows for report in reports),
        n_scored=sum(file.n_rows for file in files) - n_beside,
        n_beside=n_beside,
        n_rejected=sum(report.n_rejected for report in reports),
        seconds={
            "score_and_commit": ended - started,
            "commit": ended - scored,
            "in_workers_read": sum(result.read_s for result in results),
            "in_workers_write": sum(result.write_s for result in results),
            "in_workers_tasks": sum(result.task_s for result in results),
        },
        n_cores=spark.sparkContext.defaultParallelism,
        batches=reports,
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
    told = {} if ROUTE_RECORD.names[0] in plan.answers.names else model_record(plan.model)
    return constants | told | {"run_id": facts.run_id, "scored_at": facts.scored_at}


def _model_rows(plan: ScoringPlan) -> tuple[ModelRows, ...]:
    panel = plan.panel
    if panel is None or not panel.is_long:
        return (ModelRows(tuple(plan.answers.names)),)
    head_columns = tuple(panel.head_answers.names)
    (model_column,) = plan.model_column.names
    head = ModelRows(head_columns, None, {model_column: panel.label})
    beside = (
        ModelRows(
            tuple(one.model.predictions.names),
            place,
            {model_column: one.label, **model_record(one.model)},
        )
        for place, one in enumerate(panel.challengers, start=len(head_columns))
    )
    return (head, *beside)
