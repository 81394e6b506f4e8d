"""Rejected rows as a source: what their table holds as JSON becomes columns again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from pyspark.sql import functions as sf

from sparkscore.spark.source import OpenedSource, columns_of, quoted


class RunRows(NamedTuple):
    """The rows of one commit of a run in a rejects table, and the job that it was as JSON.

    A batch job has one such commit; a stream has one a batch.
    """

    run_id: str
    job: str
    n_rows: int


def rows_by_run(rejects: OpenedSource) -> list[RunRows]:
    """The runs, and batches of streams, that have rows, in the order in which these came."""
    groups = rejects.frame.groupBy("run_id", "app_id").agg(
        sf.first("reject_job").alias("job"),
        sf.count(sf.lit(1)).alias("n_rows"),
        sf.min("rejected_at").alias("at"),
    )
    rows = groups.orderBy("at", "run_id", "app_id").select("run_id", "job", "n_rows").collect()
    return [RunRows(*row) for row in rows]


def as_source(rejects: OpenedSource, inputs: Mapping[str, str]) -> OpenedSource:
    """The rows as their source had them.

    Args:
        rejects: Rows of a rejects table.
        inputs: Name and Spark type of what `reject_inputs` holds.
    """
    schema = ", ".join(f"{quoted(name)} {kind}" for name, kind in inputs.items())
    row = sf.from_json("reject_inputs", schema, {"mode": "FAILFAST", "timeZone": "UTC"})
    frame = rejects.frame.select(row.alias("row")).select(
        *(sf.col("row")[name].alias(name) for name in inputs)
    )
    return OpenedSource(frame, replace(rejects.table, columns=columns_of(frame.schema)))
