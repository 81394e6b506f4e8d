"""Features by Spark: the same calls on a table, on a stream, and on a batch of one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as sf

from sparkscore.errors import ConfigError, KeyColumnError, SparkscoreError, listed, nearest, shown
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.features import (
    ROWS_IN,
    WINDOW_END,
    WINDOW_START,
    Features,
    Join,
    Missing,
    Watermark,
    Window,
    check_unique,
    joined_text,
)
from sparkscore.spark.failures import SPARK_FAILURES, UNMATCHED_SIGN, reason_of
from sparkscore.spark.histories import with_histories
from sparkscore.spark.source import OpenedSource, columns_of, open_source, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

_MATCHED = "__sparkscore_matched"


@dataclass(frozen=True)
class PinnedJoin:
    """A join whose table is open at one version."""

    join: Join
    version: int
    frame: DataFrame


def with_features(opened: OpenedSource, features: Features, spark: SparkSession) -> OpenedSource:
    """A source for a batch job, with its features instead of its rows; lazily.

    Raises:
        SparkscoreError: See `computed` and `pinned_joins`.
    """
    pinned = pinned_joins(spark, features, {})
    for each in pinned:
        check_one_match(each)
    made = joined(computed(opened.frame, features), pinned)
    versions = {each.join.table: each.version for each in pinned}
    table = replace(
        opened.table,
        columns=columns_of(made.frame.schema),
        features=features,
        joined=joined_text(versions),
    )
    return replace(opened, frame=made.frame, table=table, given=made.given)


def computed(frame: DataFrame, features: Features) -> DataFrame:
    """Rows with all features but joined ones, lazily.

    Args:
        frame: Rows of a table, or a stream's.
        features: What to compute; rows without the watermark's time are left out by a window or a
            state, and are counted in a stream (`ROWS_IN`).

    Raises:
        ConfigError: A column is missing or of a wrong type, an aggregate is none, the function
            fails, or Spark cannot do this with a stream.
    """
    if features.function is not None:
        frame = _by_function(frame, features.function)
    if features.watermark is None:
        return frame
    time = features.watermark.column
    _check_time(frame, features.watermark)
    frame = frame.withWatermark(time, features.watermark.delay)
    if frame.isStreaming:
        n_timeless = sf.count_if(sf.col(quoted(time)).isNull())
        frame = frame.observe(
            ROWS_IN, sf.count(sf.lit(1)).alias("n_rows"), n_timeless.alias("n_timeless")
        )
    frame = frame.where(sf.col(quoted(time)).isNotNull())
    if features.window is not None:
        frame = _windowed(frame, features.window, time)
    if features.state is not None:
        frame = with_histories(frame, features.state, time)
    return frame


def pinned_joins(
    spark: SparkSession, features: Features, versions: Mapping[str, int]
) -> tuple[PinnedJoin, ...]:
    """The tables of the joins, each at one version.

    Args:
        spark: The session.
        features: Whose joins.
        versions: Table to version, where that is decided; others are at the newest one.

    Raises:
        SourceError: There is no such Delta table or version.
    """
    pinned = []
    for join in features.joins:
        version = versions.get(join.table, join.version)
        opened = open_source(spark, SourceSpec(join.table, "delta", version))
        pinned.append(PinnedJoin(join, int(opened.table.version), opened.frame))
    return tuple(pinned)


def check_one_match(pinned: PinnedJoin) -> None:
    """Refuse a table in which several rows could match one: the row would be scored twice.

    Raises:
        KeyColumnError: There are such.
    """
    keys = [sf.col(quoted(name)).alias(f"k{i}") for i, name in enumerate(pinned.join.by)]
    known = pinned.frame.select(*keys).dropna()
    doubled = known.groupBy(*known.columns).count().where("count > 1").limit(1).collect()
    if doubled:
        *values, n_rows = doubled[0]
        key = dict(zip(pinned.join.by, values, strict=True))
        raise KeyColumnError(
            f"{n_rows} rows of feature table {shown(pinned.join.table)} version {pinned.version} "
            f"have {shown(key)}, so a row would be scored {n_rows} times; keep one of them, or "
            "name further columns in `by`"
        )


@dataclass(frozen=True)
class JoinedRows:
    """Rows with the columns of joined tables.

    Attributes:
        observed: Tells, once `frame` was read, of `n_rows` before and `n_unmatched` of them without
            a match in some table; None: nothing is joined.
        drops: Whether rows without a match may be left out.
    """

    frame: DataFrame
    observed: Observation | None = None
    drops: bool = False

    @property
    def given(self) -> Observation | None:
        """Counts rows before some were left out; None: none are."""
        return self.observed if self.drops else None

    def n_unmatched(self) -> int:
        """Rows without a match, of a frame that was read."""
        return 0 if self.observed is None else int(self.observed.get["n_unmatched"])


def joined(frame: DataFrame, pinned: tuple[PinnedJoin, ...]) -> JoinedRows:
    """Rows with what was found of them in the tables, lazily.

    Raises:
        ConfigError: A column is missing, of another type, or in both.
    """
    if not pinned:
        return JoinedRows(frame)
    for i, each in enumerate(pinned):
        taken = _taken(frame, each)
        other = each.frame.select(*map(_column, (*each.join.by, *taken)))
        other = other.withColumn(f"{_MATCHED}{i}", sf.lit(True))
        order = [*frame.columns, *taken, f"{_MATCHED}{i}"]
        frame = frame.join(other, list(each.join.by), "left").select(*map(_column, order))
    is_unmatched = [sf.col(f"{_MATCHED}{i}").isNull() for i in range(len(pinned))]
    observed = Observation()
    any_unmatched = sf.array_max(sf.array(*is_unmatched))
    frame = frame.observe(
        observed,
        sf.count(sf.lit(1)).alias("n_rows"),
        sf.count_if(any_unmatched).alias("n_unmatched"),
    )
    for unmatched, each in zip(is_unmatched, pinned, strict=True):
        if each.join.missing is Missing.DROP:
            frame = frame.where(~unmatched)
        elif each.join.missing is Missing.FAIL:
            keys = sf.to_json(sf.struct(*map(_column, each.join.by)))
            message = sf.concat(
                sf.lit(f"{UNMATCHED_SIGN} {each.join.table!r} has no row for "),
                keys,
                sf.lit("; add it, or say missing: keep or drop"),
            )
            frame = frame.where(sf.when(unmatched, sf.raise_error(message)).otherwise(True))
    drops = any(each.join.missing is Missing.DROP for each in pinned)
    frame = frame.drop(*(f"{_MATCHED}{i}" for i in range(len(pinned))))
    return JoinedRows(frame, observed, drops)


def _taken(frame: DataFrame, pinned: PinnedJoin) -> list[str]:
    """The columns that a table adds."""
    join, known = pinned.join, pinned.frame.columns
    for name in (*join.by, *join.columns):
        if name not in known:
            raise ConfigError(
                f"features.joins: {shown(join.table)} has no column {name!r}"
                f"{nearest(name, known)}; its columns are {listed(known)}"
            )
    for name in join.by:
        _check_column(frame, name, "features.joins")
        mine, other = frame.schema[name].dataType, pinned.frame.schema[name].dataType
        if mine != other:
            raise ConfigError(
                f"features.joins: {name!r} is {mine.simpleString()} in the rows and "
                f"{other.simpleString()} in {shown(join.table)}; cast one of them"
            )
    taken = list(join.columns) or [name for name in known if name not in join.by]
    check_unique([*frame.columns, *taken], "features.joins")
    return taken


def _by_function(frame: DataFrame, name: str) -> DataFrame:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        made = function(frame)
    except SparkscoreError:
        raise
    except Exception as exc:  # The edge to a user's code, which may raise anything.
        raise ConfigError(
            f"features.function {shown(name)} cannot be called: {type(exc).__name__}: "
            f"{reason_of(exc)}; write MODULE:NAME of a function that takes and returns a "
            "DataFrame, in a module that Python finds (PYTHONPATH)"
        ) from exc
    if not isinstance(made, DataFrame) or made.isStreaming != frame.isStreaming:
        kind = "streaming DataFrame" if frame.isStreaming else "DataFrame"
        raise ConfigError(
            f"features.function {shown(name)} must return a {kind}, and returned {shown(made)}"
        )
    return made


def _windowed(frame: DataFrame, window: Window, time: str) -> DataFrame:
    for name in window.by:
        _check_column(frame, name, "features.window.by")
    span = sf.window(sf.col(quoted(time)), window.length, window.slide)
    keys = [sf.col(quoted(name)) for name in window.by]
    with _refused("features.window.columns"):
        values = [sf.expr(text).alias(name) for name, text in window.columns.items()]
        grouped = frame.groupBy(*keys, span.alias("__sparkscore_window")).agg(*values)
        made = grouped.select(
            *keys,
            sf.col("__sparkscore_window.start").alias(WINDOW_START),
            sf.col("__sparkscore_window.end").alias(WINDOW_END),
            *(_column(name) for name in window.columns),
        )
        made.schema  # noqa: B018 - Connect looks at the aggregates only when it is asked
    return made


def check_streams(frame: DataFrame) -> None:
    """Refuse what Spark can do with a table, and not with a stream that only appends.

    Raises:
        ConfigError: There is such a thing, as an aggregate of distinct values.
    """
    jvm = frame.sparkSession._jvm
    assert jvm is not None
    with _refused("features"):
        jvm.org.apache.spark.sql.catalyst.analysis.UnsupportedOperationChecker.checkForStreaming(
            frame._jdf.queryExecution().analyzed(),
            jvm.org.apache.spark.sql.streaming.OutputMode.Append(),
        )


def _check_time(frame: DataFrame, watermark: Watermark) -> None:
    _check_column(frame, watermark.column, "features.watermark.column")
    kind = frame.schema[watermark.column].dataType.simpleString()
    if kind != "timestamp":
        raise ConfigError(
            f"features.watermark.column {watermark.column!r} is {kind}, and no timestamp; cast it "
            "in a view or by a features.function"
        )


def _check_column(frame: DataFrame, name: str, what: str) -> None:
    if name not in frame.columns:
        raise ConfigError(
            f"{what} names {name!r}, which is no column of the rows"
            f"{nearest(name, frame.columns)}; they have {listed(frame.columns)}"
        )


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except SPARK_FAILURES as exc:
        reason = exc.getMessage() if isinstance(exc, PySparkException) else None
        raise ConfigError(
            f"{what} cannot be computed: {(reason or reason_of(exc)).splitlines()[0]}"
        ) from exc


def _column(name: str) -> Column:
    return sf.col(quoted(name))
