"""A sample of a source, kept as a table of its own, and tables as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as sf

from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.source import OpenedSource, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def write_sample(
    source: OpenedSource, columns: Sequence[str], row_column: str, n_rows: int, uri: str
) -> None:
    """Write rows of `source` as a new Delta table of one file, each with a number of its own.

    Args:
        source: Where they come from; which rows is Spark's choice.
        columns: What is kept of them.
        row_column: Name of the number (long).
        n_rows: At most so many.
        uri: Path of the table.

    Raises:
        SparkscoreError: Spark cannot read or write them.
    """
    kept = source.frame.limit(n_rows).select(
        sf.monotonically_increasing_id().alias(row_column), *map(_column, columns)
    )
    _write(kept.coalesce(1), uri)


def write_scattered(source: OpenedSource, n_files: int, uri: str) -> None:
    """Write all rows of `source` as a new Delta table of `n_files` files, in another order.

    Raises:
        SparkscoreError: Spark cannot read or write them.
    """
    _write(source.frame.repartition(n_files), uri)


def rows_of(source: OpenedSource, columns: Sequence[str]) -> pa.Table:
    """Columns of all rows of `source`, on the driver.

    Raises:
        SparkscoreError: Spark cannot read them.
    """
    try:
        return source.frame.select(*map(_column, columns)).toArrow()
    except (*SPARK_FAILURES, ConnectionError) as exc:
        raise translated(exc, f"reading {source.table.uri!r}") from exc


def _write(frame: DataFrame, uri: str) -> None:
    # By name, since a plain Delta table refuses blanks and brackets in a column's name.
    writer = frame.write.format("delta").option("delta.columnMapping.mode", "name")
    try:
        writer.save(uri)
    except (*SPARK_FAILURES, ConnectionError) as exc:
        raise translated(exc, f"writing a sample to {uri!r}") from exc


def _column(name: str) -> Column:
    return sf.col(quoted(name))
