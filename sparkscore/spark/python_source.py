"""Opening feeds that Python reads, through Spark's Python Data Source API."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pyspark.sql.datasource import DataSource

from sparkscore.errors import SourceError, shown
from sparkscore.names import python_class
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.other_formats import parsed_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession


def open_python_source(spark: SparkSession, spec: SourceSpec) -> DataFrame:
    """The rows that come from a data source of the user's, which the source's URI names.

    All options are the source's. Its offsets are what makes rows come once: it must give the same
    rows between the same two offsets, also to a process that was started later.

    Raises:
        SourceError: There is no such class, or it is no `pyspark.sql.datasource.DataSource`.
    """
    named = python_class(spec.uri)
    assert named is not None
    return stream_of(spark, _imported(spec.uri, *named), spec.options, spec.schema)


def stream_of(
    spark: SparkSession,
    source: type[DataSource],
    options: Mapping[str, str],
    schema: str | None = None,
) -> DataFrame:
    """The rows that come from a data source.

    Args:
        spark: A classic session.
        source: Its class, which workers can import too.
        options: What the source is told.
        schema: Its columns, as Spark SQL lists them; None: as the source says.
    """
    spark.dataSource.register(source)
    reader = spark.readStream.format(source.name()).options(**options)
    if schema is not None:
        reader = reader.schema(parsed_schema(schema))
    return reader.load()


def _imported(uri: str, module: str, name: str) -> type[DataSource]:
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise SourceError(
            f"source {shown(uri)} cannot be imported: {exc}; put its module where the driver and "
            "the workers find it (PYTHONPATH, --py-files)"
        ) from exc
    if not (isinstance(found, type) and issubclass(found, DataSource)):
        raise SourceError(
            f"source {shown(uri)} is no class that inherits pyspark.sql.datasource.DataSource"
        )
    return found
