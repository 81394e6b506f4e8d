"""Opening what a stream reads: rows added to a Delta table, files in a folder, messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from sparkscore.errors import SourceError, nearest, shown
from sparkscore.names import kafka_topic, mqtt_source, python_class
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import MALFORMED_COLUMN, SourceTable
from sparkscore.spark.failures import SPARK_FAILURES, reason_of
from sparkscore.spark.features import check_streams, computed, joined, pinned_joins
from sparkscore.spark.kafka_source import open_topic
from sparkscore.spark.messages import stopped_at_malformed
from sparkscore.spark.other_formats import OTHER_FORMATS, parsed_schema, spark_options
from sparkscore.spark.python_source import open_python_source
from sparkscore.spark.source import (
    OpenedSource,
    columns_of,
    detail_of,
    is_path,
    located,
    open_source,
)
from sparkscore.spark.spool_source import open_spool

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CHANGES = "readChangeFeed"
_KINDS_OF_NEW_ROWS = ("insert", "update_postimage")
_PACE = frozenset({"maxFilesPerTrigger", "maxBytesPerTrigger"})
_DELTA_OPTIONS = _PACE | {
    "startingVersion",
    "startingTimestamp",
    "skipChangeCommits",
    "withEventTimeOrder",
    _CHANGES,
}
_FILE_OPTIONS = _PACE | {
    "latestFirst",
    "maxFileAge",
    "fileNameOnly",
    "cleanSource",
    "sourceArchiveDir",
}


@dataclass(frozen=True)
class _Options:
    """Those of a source that are for the stream, and those that say how its text is written."""

    streaming: dict[str, str]
    spec: SourceSpec


@dataclass(frozen=True)
class _Coming:
    """What comes to a source, before any filter.

    Attributes:
        name: Of the source's kind.
        table_id: What tells it from another of its URI; empty: nothing does.
    """

    frame: DataFrame
    uri: str
    name: str
    table_id: str = ""


def open_stream(spark: SparkSession, spec: SourceSpec) -> OpenedSource:
    """The rows that come to a source, filtered and with features; none is read yet.

    Joined tables are not in the frame, which is that of a query, but among the columns: each batch
    is joined by itself, so that it has their newest version.

    Args:
        spark: A classic session.
        spec: A Delta table, a folder of Parquet, CSV, JSON or ORC, or `kafka:TOPIC`, for which the
            session has the connector; or an MQTT broker, whose messages something else puts into
            a spool; or `python:MODULE:CLASS`. Options of the stream, such as maxFilesPerTrigger,
            skipChangeCommits or readChangeFeed, stand among its options.

    Raises:
        SourceError: There is no such source, an option is unknown, or its columns are not known.
        SourceAwayError: The brokers of a topic do not answer.
        ConfigError: Its features cannot be computed.
    """
    if spec.version is not None:
        raise SourceError(
            f"source {shown(spec.uri)} is read as a stream, which has no version "
            f"({spec.version}); a Delta table's stream begins at --source-option startingVersion=N"
        )
    try:
        coming = _coming(spark, spec)
        frame = coming.frame
        if spec.where is not None:
            frame = _filtered(frame, spec.where)
        if MALFORMED_COLUMN in frame.columns and spec.features.are_there:
            frame = stopped_at_malformed(frame)
        frame = computed(frame, spec.features)
        check_streams(frame)
        pinned = pinned_joins(spark, spec.features, {})
        as_table = spark.createDataFrame([], frame.schema)  # What a batch of it is.
        columns = columns_of(joined(as_table, pinned).frame.schema)
    except SPARK_FAILURES as exc:
        raise SourceError(
            f"source {shown(spec.uri)} cannot be read as a stream with filter "
            f"{shown(spec.where)}: {reason_of(exc)}; check --source, --source-option and --where"
        ) from exc
    features = spec.features if spec.features.are_there else None
    table = SourceTable(
        coming.uri, coming.name, "", columns, coming.table_id, spec.where, features=features
    )
    return OpenedSource(frame, table)


def _coming(spark: SparkSession, spec: SourceSpec) -> _Coming:
    """The rows of a source, whatever kind it is of."""
    topic = kafka_topic(spec.uri)
    if topic is not None:
        frame, identity = open_topic(spark, topic, spec)
        return _Coming(frame, spec.uri, "kafka", identity)
    if mqtt_source(spec.uri) is not None:
        return _Coming(open_spool(spark, spec), spec.uri, "mqtt")
    if python_class(spec.uri) is not None:
        return _Coming(open_python_source(spark, spec), spec.uri, "python")
    uri = located(spark, spec.uri)
    is_files = spec.format in ("parquet", *OTHER_FORMATS)
    detail = None if is_files else detail_of(spark, uri)
    if detail is not None and detail["format"] == "delta":
        return _Coming(_delta(spark, uri, spec), uri, "delta", str(detail["id"]))
    frame, name = _files(spark, uri, spec)
    return _Coming(frame, uri, name)


def _filtered(frame: DataFrame, where: str) -> DataFrame:
    condition = sf.expr(where)
    if MALFORMED_COLUMN in frame.columns:
        # Such a message has no values to filter by, and must not get lost.
        condition |= sf.col(MALFORMED_COLUMN).isNotNull()
    return frame.where(condition)


def _delta(spark: SparkSession, uri: str, spec: SourceSpec) -> DataFrame:
    options = _parted(spec, _DELTA_OPTIONS)
    if options.spec.options or spec.schema is not None:
        unknown = next(iter(options.spec.options), None)
        found = "a schema" if unknown is None else f"option {shown(unknown)}"
        near = "" if unknown is None else nearest(unknown, _DELTA_OPTIONS)
        raise SourceError(
            f"source {shown(spec.uri)} is Delta, whose stream does not take {found}{near}; its "
            f"options are {', '.join(sorted(_DELTA_OPTIONS))}"
        )
    reader = spark.readStream.format("delta").options(**options.streaming)
    frame = reader.load(uri) if is_path(uri) else reader.table(uri)
    if options.streaming.get(_CHANGES, "").lower() != "true":
        return frame
    # What was deleted, and what a row was before, is nothing to score.
    new = frame.where(sf.col("_change_type").isin(*_KINDS_OF_NEW_ROWS))
    return new.drop("_change_type", "_commit_version", "_commit_timestamp")


def _files(spark: SparkSession, uri: str, spec: SourceSpec) -> tuple[DataFrame, str]:
    options = _parted(spec, _FILE_OPTIONS)
    name = spec.format
    if spec.schema is not None and name in ("parquet", *OTHER_FORMATS):
        schema = parsed_schema(spec.schema)  # Files that are still to come: nothing to ask.
    else:
        now = open_source(spark, options.spec)
        name, schema = now.table.format, now.frame.schema
    reader = spark.readStream.format(name).schema(schema).options(**options.streaming)
    if name in OTHER_FORMATS:
        reader = reader.options(**spark_options(name, options.spec))
    return reader.load(uri), name


def _parted(spec: SourceSpec, streaming: frozenset[str]) -> _Options:
    mine = {name: value for name, value in spec.options.items() if name in streaming}
    rest = {name: value for name, value in spec.options.items() if name not in streaming}
    return _Options(mine, replace(spec, options=rest, where=None))
