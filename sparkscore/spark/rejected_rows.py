"""Rejected rows as a source: what their table holds as JSON becomes columns again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import Observation
from pyspark.sql import functions as sf

from sparkscore.errors import SourceError, listed, shown
from sparkscore.spark.source import OpenedSource, columns_of, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_REJECTED_AT = "__sparkscore_rejected_at"
_SCORED_AT = "__sparkscore_scored_at"


class RunRows(NamedTuple):
    """The rows of one commit of a run in a rejects table, and the job that it was as JSON.

    A batch job has one such commit; a stream has one a batch.
    """

    run_id: str
    job: str
    n_rows: int


def rows_by_run(rejects: OpenedSource) -> list[RunRows]:
    """The runs, and batches of streams, that have rows, in the order in which these came.

    Raises:
        SourceError: The table is none of rejected rows.
    """
    if not {"app_id", "reject_job"}.issubset(rejects.frame.columns):
        raise SourceError(
            f"{shown(rejects.table.uri)} is no table of rejected rows; its columns are "
            f"{listed(rejects.frame.columns)}; name the table that `score batch` called so in its "
            "message, or TARGET_rejects"
        )
    groups = rejects.frame.groupBy("run_id", "app_id").agg(
        sf.first("reject_job").alias("job"),
        sf.count(sf.lit(1)).alias("n_rows"),
        sf.min("rejected_at").alias("at"),
    )
    rows = groups.orderBy("at", "run_id", "app_id").select("run_id", "job", "n_rows").collect()
    return [RunRows(*row) for row in rows]


def as_source(
    rejects: OpenedSource,
    inputs: Mapping[str, str],
    scores: DataFrame | None = None,
    keys: Sequence[str] = (),
) -> OpenedSource:
    """The rows as their source had them.

    Args:
        rejects: Rows of a rejects table.
        inputs: Name and Spark type of what `reject_inputs` holds.
        scores: Rows of the score table, in whose place they come. Rows whose keys were scored by a
            later run are left out, and counted. None: all rows count.
        keys: What tells rows apart.
    """
    schema = ", ".join(f"{quoted(name)} {kind}" for name, kind in inputs.items())
    row = sf.from_json("reject_inputs", schema, {"mode": "FAILFAST", "timeZone": "UTC"})
    rows = rejects.frame.select(row.alias("row"), sf.col("rejected_at").alias(_REJECTED_AT))
    columns = [sf.col("row")[name].alias(name) for name in inputs]
    frame, given = rows.select(*columns, _REJECTED_AT), None
    if scores is not None:
        given = Observation()
        counted = frame.observe(given, sf.count(sf.lit(1)).alias("n_rows"))
        frame = _not_outdone(counted, scores, keys)
    frame = frame.drop(_REJECTED_AT)
    table = replace(rejects.table, columns=columns_of(frame.schema))
    return OpenedSource(frame, table, given=given)


def _not_outdone(rows: DataFrame, scores: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Rejected rows whose keys no later run has scored."""
    names = {name: f"__sparkscore_key_{i}" for i, name in enumerate(keys)}
    later = scores.select(
        *(sf.col(quoted(name)).alias(alias) for name, alias in names.items()),
        sf.col("scored_at").alias(_SCORED_AT),
    )
    is_same = [sf.col(quoted(name)) == sf.col(alias) for name, alias in names.items()]
    is_later = sf.col(_SCORED_AT) > sf.col(_REJECTED_AT)
    return rows.join(later, reduce(and_, is_same, is_later), "left_anti")
