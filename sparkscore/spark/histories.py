"""Each row with what its key has seen before: by a sort, or in a stream by Spark's state."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf
from pyspark.sql import types as st

from sparkscore.errors import ConfigError, MissingExtraError, listed, nearest
from sparkscore.scoring.features import OUT_OF_ORDER, State, check_unique
from sparkscore.scoring.history import HistoryColumn, HistoryRule
from sparkscore.spark.history_worker import AT, IS_OLD, TIE, Follower, by_order
from sparkscore.spark.one_a_key import row_digest
from sparkscore.spark.source import columns_of, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PROVIDER_KEY = "spark.sql.streaming.stateStore.providerClass"
ROCKS_DB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"

_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double")


def with_histories(frame: DataFrame, state: State, time: str) -> DataFrame:
    """Rows with columns of their keys' histories, lazily.

    Args:
        frame: Rows of a table, or a stream's with a watermark on `time`; none without a time.
        state: What a row is told.
        time: The timestamp by which rows of a key are ordered; where it is the same, a digest of
            the row decides.

    Raises:
        ConfigError: A column is missing or of a wrong type, or the session keeps states elsewhere
            than in RocksDB.
        MissingExtraError: A library is not installed that Spark needs for states.
    """
    made = _made_fields(frame, state)
    rule = HistoryRule(tuple(state.columns.values()), state.forget_after_s)
    schema = st.StructType([*frame.schema.fields, *made])
    names = frame.columns
    marked = frame.select(
        "*", sf.unix_micros(sf.col(quoted(time))).alias(AT), row_digest(frame).alias(TIE)
    )
    keys = [sf.col(quoted(name)) for name in state.by]
    if not frame.isStreaming:
        ordered = marked.repartition(*keys).sortWithinPartitions(*keys, AT, TIE)
        return ordered.mapInArrow(by_order(rule, state.by, names, made), schema)
    _check_session(frame)
    schema = schema.add(IS_OLD, st.BooleanType())
    followed = marked.groupBy(*keys).transformWithState(
        Follower(rule, names, schema.names), schema, "append", "EventTime"
    )
    n_old = sf.count_if(sf.col(IS_OLD)).alias("n_rows")
    return followed.observe(OUT_OF_ORDER, n_old).drop(IS_OLD)


def _made_fields(frame: DataFrame, state: State) -> list[st.StructField]:
    """The new columns, each with its type.

    Raises:
        ConfigError: A column is missing or of a wrong type.
    """
    known = frame.columns
    check_unique([*known, *state.columns], "features.state")
    named = [c.column for c in state.columns.values() if c.column is not None]
    for name in (*state.by, *named):
        if name not in known:
            raise ConfigError(
                f"features.state names {name!r}, which is no column of the rows"
                f"{nearest(name, known)}; they have {listed(known)}"
            )
    strange = [column.name for column in columns_of(frame.schema) if column.type is None]
    if strange:
        raise ConfigError(
            f"features.state hands rows to Python, which knows no such values as those of "
            f"{listed(strange)}; leave these columns out by a features.function"
        )
    return [
        st.StructField(name, _type_of(each, frame, name)) for name, each in state.columns.items()
    ]


def _type_of(each: HistoryColumn, frame: DataFrame, name: str) -> st.DataType:
    if each.column is not None:
        kind = frame.schema[each.column].dataType.simpleString()
        wanted: Sequence[str] = (*_NUMBERS, "boolean", "string")
        if each.is_since_true:
            wanted = ("boolean",)
        elif each.needs_numbers:
            wanted = _NUMBERS
        if kind not in wanted:
            raise ConfigError(
                f"features.state.columns.{name}: {each.kind} takes a column of {listed(wanted)}, "
                f"but {each.column!r} is {kind}"
            )
    if each.keeps_type and each.column is not None:
        return frame.schema[each.column].dataType
    return st.LongType() if each.is_whole else st.DoubleType()


def _check_session(frame: DataFrame) -> None:
    if find_spec("google.protobuf") is None:  # Workers ask Spark for states by it.
        raise MissingExtraError(
            "features.state needs 'protobuf', which is not installed; run: "
            "pip install 'sparkscore[state]'"
        )
    provider = frame.sparkSession.conf.get(PROVIDER_KEY, "") or ""
    if provider != ROCKS_DB:
        raise ConfigError(
            f"features.state needs a session that keeps states in RocksDB, and this one has "
            f"{provider!r}; set spark.conf {PROVIDER_KEY}={ROCKS_DB}"
        )
