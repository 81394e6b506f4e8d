"""Scores and rejected rows where Spark writes them: computed once, kept on disk, then committed.

Both tables are written from the same answers, and no score may be committed before the rows
without one are counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_type

from sparkscore.scoring.outcome import BatchReport, Outcome, OutcomeStatus
from sparkscore.scoring.plan import model_record
from sparkscore.scoring.rejects import (
    REASON_COLUMNS,
    InvalidRows,
    RejectBudget,
    RejectCounts,
    added_reasons,
    check_budgets,
)
from sparkscore.scoring.table_write import (
    TableWrite,
    checked_write,
    recipe,
    reject_run,
    reject_schema,
    reject_write,
    score_write,
)
from sparkscore.spark.file_scores import sweep_rejects
from sparkscore.spark.profiles import profile_of
from sparkscore.spark.source import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from sparkscore.scoring.engine import RunFacts
    from sparkscore.scoring.outcome import Commit
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.spark.delta import DeltaSink

_JSON_OPTIONS = {
    "ignoreNullFields": "false",
    "timeZone": "UTC",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
"""So that values come back as they were; Spark would leave out nulls and write milliseconds."""

_HELD = (
    "Nothing was published. Spark writes this table in one piece, so that no score is left to look "
    "at; score into a folder of your own to see them. Mend the source or the model, or publish by "
    "the same command with --accept-checks"
)


@dataclass(frozen=True)
class Answered:
    """Rows beside a model's answers.

    Attributes:
        frame: The columns of the source that are needed, and the answers.
        answer: How a field of `ScoringTask.answer_type` is called in it.
        scores: The score table's rows, made of those of the frame.
        partitions: By name, the columns that the score table is partitioned by.
    """

    frame: DataFrame
    answer: Callable[[str], Column]
    scores: Callable[[DataFrame], DataFrame]
    partitions: Mapping[str, Column]


def staged_and_committed(
    plan: ScoringPlan,
    answered: Answered,
    sink: DeltaSink,
    rejects: DeltaSink | None,
    facts: RunFacts,
    gone: DataFrame | None = None,
) -> Outcome:
    """Compute all answers, and commit first the rejected rows and then the scores.

    Args:
        plan: The run.
        answered: Its rows.
        sink: Where the scores go.
        rejects: Where rejected rows are kept, if in a table of their own.
        facts: Which run this is.
        gone: Keys of rows whose scores go; None: none do.

    Raises:
        RejectBudgetError: More rows were rejected than the run may have.
        CheckFailedError: The scores are not what the job's checks ask for.
        SparkscoreError: What the sinks refuse; no score was committed.
    """
    staged = answered.frame.persist(StorageLevel.DISK_ONLY)
    try:
        found, reports = _counts(plan, staged, answered)
        check_budgets(found, plan.request.max_rejects, plan.request.max_partition_rejects)
        rejects_commit: Commit | None = None
        if rejects is not None and found.n_rejected:
            rows = staged.where(~answered.answer("valid"))
            rows = rows.select(*reject_columns(plan, facts, answered.answer))
            rejects_commit = rejects.write(rows, reject_write(plan, facts.run_id), facts)
        # In the long form, challengers may answer for rows that the champion rejects.
        keeps_all = plan.request.keeps_rejected or bool(plan.model_column.names)
        kept = staged if keeps_all else staged.where(answered.answer("valid"))
        scores = answered.scores(kept)
        write = checked_frame_write(plan, sink, scores)
        commit = sink.write(scores, write, facts, gone)
        if rejects is not None:
            sweep_rejects(plan, rejects, commit)
    finally:
        staged.unpersist()
    if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
        return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
    is_nulled = plan.request.on_invalid is InvalidRows.NULL
    return Outcome(
        status=OutcomeStatus.SUCCEEDED,
        commit=commit,
        n_read=found.n_read,
        n_scored=found.n_read - found.n_rejected,
        n_beside=0 if plan.panel is None else plan.panel.n_beside(reports),
        n_rejected=0 if is_nulled else found.n_rejected,
        n_nulled=found.n_rejected if is_nulled else 0,
        is_inline=plan.request.is_inline,
        rejects=rejects_commit,
        batches=reports,
    )


def checked_frame_write(plan: ScoringPlan, sink: DeltaSink, scores: DataFrame) -> TableWrite:
    """How scores enter their table once they have passed the checks.

    Args:
        plan: The run.
        sink: The table.
        scores: Its rows, kept where a second pass over them does not score them again.

    Raises:
        CheckFailedError: They have not passed, and the job does not accept that.
    """
    checks = plan.request.checks
    if not checks.are_there:
        return score_write(plan)
    return checked_write(plan, sink, profile_of(scores, checks.columns), _HELD)


def needed_columns(plan: ScoringPlan) -> list[Column]:
    """Columns of the source that a row of either table is made of."""
    return [sf.col(quoted(name)) for name in _needed(plan)]


def _needed(plan: ScoringPlan) -> list[str]:
    names = [b.source.name for b in plan.bindings if b.source is not None]
    return list(dict.fromkeys([*names, *(column.name for column in plan.carried)]))


def _input_columns(plan: ScoringPlan) -> list[Column]:
    """The needed columns as JSON is to have them: decimals as texts, which no reader rounds."""
    return [
        column.cast("string").alias(name) if _is_decimal(plan, name) else column
        for name, column in zip(_needed(plan), needed_columns(plan), strict=True)
    ]


def _is_decimal(plan: ScoringPlan, name: str) -> bool:
    column = plan.source.column(name)
    return column is not None and column.type is not None and pa.types.is_decimal(column.type)


def reject_columns(
    plan: ScoringPlan, facts: RunFacts, answer: Callable[[str], Column]
) -> list[Column]:
    """The rejects table's columns over rows that have those of `needed_columns`.

    Args:
        plan: The run.
        facts: Which attempt at it this is.
        answer: The reason's columns, by name.
    """
    constants: dict[str, object] = {
        **model_record(plan.model),
        "reject_job": recipe(plan),
        "rejected_at": facts.scored_at,
        "app_id": reject_run(plan.identity),
        "run_id": facts.run_id,
    }
    inputs = _input_columns(plan) or [sf.lit(None).alias("_")]
    columns = {name: sf.col(quoted(name)) for name in plan.request.keys}
    columns |= {name: answer(name) for name in REASON_COLUMNS.names}
    columns["reject_inputs"] = sf.to_json(sf.struct(*inputs), _JSON_OPTIONS)
    schema = reject_schema(plan)
    for name, value in constants.items():
        kind = from_arrow_type(schema.field(name).type, False).simpleString()
        columns[name] = sf.lit(value).cast(kind)
    return [columns[name].alias(name) for name in schema.names]


def _counts(
    plan: ScoringPlan, staged: DataFrame, answered: Answered
) -> tuple[RejectCounts, list[BatchReport]]:
    is_rejected = ~answered.answer("valid")
    totals = staged.agg(
        sf.count(sf.lit(1)).alias("n_read"),
        sf.count_if(is_rejected).alias("n_rejected"),
        sf.collect_list(answered.answer("report")).alias("reports"),
    ).collect()[0]
    reports = [BatchReport(**json.loads(report)) for report in totals["reports"]]
    found = RejectCounts(
        n_read=totals["n_read"],
        n_rejected=totals["n_rejected"],
        reasons=added_reasons(report.reasons for report in reports),
        partitions={},
    )
    names = list(answered.partitions)
    if plan.request.max_partition_rejects == RejectBudget() or not names:
        return found, reports
    columns = [column.alias(f"p{i}") for i, column in enumerate(answered.partitions.values())]
    rows = staged.select(*columns, is_rejected.alias("__rejected"))
    groups = rows.groupBy(*(f"p{i}" for i in range(len(names)))).agg(
        sf.count(sf.lit(1)).alias("__n_read"), sf.count_if("__rejected").alias("__n_rejected")
    )
    partitions = {
        json.dumps(dict(zip(names, map(_text, values), strict=True))): (
            n,
            n_without,
        )
        for *values, n, n_without in groups.where("__n_rejected > 0").collect()
    }
    return RejectCounts(found.n_read, found.n_rejected, found.reasons, partitions), reports


def _text(value: object) -> str | None:
    return None if value is None else str(value)
