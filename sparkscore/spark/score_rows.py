"""The rows of a score table as a frame: carried columns, a model's answers, and their origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_type

from sparkscore.scoring.plan import RECORD_COLUMNS, ScoringPlan, model_record
from sparkscore.spark.columns import answer_column, source_columns
from sparkscore.spark.failures import NULL_KEY_SIGN
from sparkscore.spark.packing import Packing, crossing_of, with_answers
from sparkscore.spark.source import quoted
from sparkscore.spark.staged_scores import needed_columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame

    from sparkscore.scoring.engine import RunFacts
    from sparkscore.scoring.panel import Panel
    from sparkscore.spark.worker import ScoringTask

_ANSWER = "__sparkscore_answer"


def scored_frame(
    plan: ScoringPlan,
    source: DataFrame,
    task: ScoringTask,
    facts: RunFacts,
    engine: str,
    observations: tuple[Observation, Observation],
) -> DataFrame:
    """The score table's rows, lazily, with counts of rows before and after the model.

    Packed, all of their columns cross to Python and back; else only the model's do. The second
    observation carries the workers' reports.
    """
    read, scored = observations
    answered, answer = answered_frame(plan, counted_by(read, source), task, engine)
    observed = answered.observe(
        scored,
        sf.count_if(answer("valid")).alias("n_scored"),
        sf.count_if(~answer("valid")).alias("n_rejected"),
        sf.collect_list(answer("report")).alias("reports"),
    )
    # Rows without a route may be left out, though others would end the job.
    is_single = plan.panel is None or plan.panel.is_long
    valid = observed if is_single else observed.where(answer("valid"))
    return table_rows(plan, valid, facts, answer)


def table_rows(
    plan: ScoringPlan, frame: DataFrame, facts: RunFacts, answer: Callable[[str], Column]
) -> DataFrame:
    """The score table's rows, of rows beside a model's answers."""
    if plan.panel is not None and plan.panel.is_long:
        return _long_rows(plan, plan.panel, frame, facts, answer)
    return frame.select(*_score_columns(plan, facts, answer))


def counted_by(read: Observation, frame: DataFrame) -> DataFrame:
    """`frame`, whose rows are counted on their way; see `count_of`."""
    return frame.observe(read, sf.expr("count(1) AS n_rows"))


def count_of(observation: Observation) -> int:
    """Rows that `counted_by` has counted."""
    n_rows = observation.get["n_rows"]
    assert isinstance(n_rows, int)
    return n_rows


def answered_frame(
    plan: ScoringPlan,
    frame: DataFrame,
    task: ScoringTask,
    engine: str,
    *,
    keeps_inputs: bool = False,
) -> tuple[DataFrame, Callable[[str], Column]]:
    """Columns beside the model's answers, and how a field of an answer is called.

    The columns are those of the score table, and with `keeps_inputs` those of the model as well.
    """
    carried = [column.name for column in plan.carried]
    packing, _ = frame_crossing(plan, frame, engine)
    if packing is not None and not keeps_inputs:
        answered = with_answers(frame, task, packing, carried, prefix=_ANSWER)
        return answered, lambda name: sf.col(_ANSWER + name)
    model = answer_column(task, source_columns(plan.bindings), engine)
    answered = frame.select(*needed_columns(plan), model.alias(_ANSWER))
    return answered, lambda name: sf.col(_ANSWER)[name]


def frame_crossing(plan: ScoringPlan, frame: DataFrame, engine: str) -> tuple[Packing | None, str]:
    """How rows of a frame cross to Python, and why so."""
    if engine == "pandas":
        return None, "one by one: into a pandas frame"
    return crossing_of(plan.bindings, frame, [column.name for column in plan.carried])


def _score_columns(
    plan: ScoringPlan, facts: RunFacts, answer: Callable[[str], Column]
) -> list[Column]:
    told = {name: answer(f"p{i}").alias(name) for i, name in enumerate(plan.answers.names)}
    predictions = (told[name] for name in plan.predictions.names)
    reasons = (answer(name).alias(name) for name in plan.reason_columns.names)
    record = (
        told.get(name, column)  # Of a route, who answered is told row by row.
        for name, column in zip(RECORD_COLUMNS.names, record_columns(plan, facts), strict=True)
    )
    return [*carried_columns(plan), *predictions, *reasons, *record]


def _long_rows(
    plan: ScoringPlan,
    panel: Panel,
    frame: DataFrame,
    facts: RunFacts,
    answer: Callable[[str], Column],
) -> DataFrame:
    """A row for each model that answers, of each row of `frame`."""
    (model_column,) = plan.model_column.names
    record = dict(zip(RECORD_COLUMNS.names, record_columns(plan, facts), strict=True))
    told = {name: answer(f"p{i}") for i, name in enumerate(panel.head_answers.names)}
    each = [(answer("valid"), {model_column: sf.lit(panel.label), **record, **told})]
    for place, one in enumerate(panel.challengers, start=len(told)):
        own = answer(f"p{place}")
        cells = {name: own[name] for name in plan.predictions.names}
        texts = {name: sf.lit(v).cast("string") for name, v in model_record(one.model).items()}
        cells |= {model_column: sf.lit(one.label), **record, **texts}
        each.append((own.isNotNull(), cells))
    carried = carried_columns(plan)
    own_names = [model_column, *plan.predictions.names, *RECORD_COLUMNS.names]
    # By number, since names may hold anything.
    structs = [
        sf.struct(valid.alias("valid"), *(cells[n].alias(f"c{i}") for i, n in enumerate(own_names)))
        for valid, cells in each
    ]
    kept = [column.alias(f"k{i}") for i, column in enumerate(carried)]
    rows = frame.select(*kept, sf.inline(sf.array(*structs))).where("valid")
    n_kept = len(kept)
    names = plan.score_columns
    return rows.select(
        *(sf.col(f"k{i}").alias(name) for i, name in enumerate(names[:n_kept])),
        *(sf.col(f"c{i}").alias(name) for i, name in enumerate(names[n_kept:])),
    )


def carried_columns(plan: ScoringPlan) -> list[Column]:
    """Keys, which are never null, kept columns and constants of the score table."""
    columns = [
        _never_null(column.name)
        if column.name in plan.request.keys
        else sf.col(quoted(column.name))
        for column in plan.carried
    ]
    columns += [sf.lit(v.value).cast(v.type).alias(v.column) for v in plan.constants]
    return columns


def placing_columns(plan: ScoringPlan) -> dict[str, Column]:
    """The columns by which rows of the score table may lie in partitions."""
    columns = {column.name: sf.col(quoted(column.name)) for column in plan.carried}
    return columns | {v.column: sf.lit(v.value).cast(v.type) for v in plan.constants}


def record_columns(plan: ScoringPlan, facts: RunFacts) -> list[Column]:
    """What each row of the score table says of its origin."""
    record: dict[str, object] = {
        **model_record(plan.model),
        "run_id": facts.run_id,
        "scored_at": facts.scored_at,
    }
    # By the type's name: a Connect client spells out a string's collation, which Delta then keeps.
    return [
        sf.lit(record[f.name]).cast(from_arrow_type(f.type, False).simpleString()).alias(f.name)
        for f in RECORD_COLUMNS
    ]


def _never_null(name: str) -> Column:
    column = sf.col(quoted(name))
    message = (
        f"{NULL_KEY_SIGN} {name!r} holds a null, so that row could not be found again; "
        "filter such rows (--where) or name other key columns"
    )
    return sf.when(column.isNull(), sf.raise_error(message)).otherwise(column).alias(name)
