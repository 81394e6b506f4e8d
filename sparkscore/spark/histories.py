"""Each row with what its key has seen before: by a sort, or in a stream by Spark's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql import functions as sf
from pyspark.sql import types as st
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.streaming.stateful_processor import (
    StatefulProcessor,
    StatefulProcessorHandle,
    TimerValues,
)

from sparkscore.errors import ConfigError, MissingExtraError, listed, nearest
from sparkscore.scoring.features import OUT_OF_ORDER, State, check_unique
from sparkscore.scoring.history import History, HistoryColumn, HistoryRule, Value
from sparkscore.spark.one_a_key import row_digest
from sparkscore.spark.source import columns_of, quoted

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

PROVIDER_KEY = "spark.sql.streaming.stateStore.providerClass"
ROCKS_DB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"

_AT, _TIE, _IS_OLD = "__sparkscore_at", "__sparkscore_tie", "__sparkscore_is_old"
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
        "*", sf.unix_micros(sf.col(quoted(time))).alias(_AT), row_digest(frame).alias(_TIE)
    )
    keys = [sf.col(quoted(name)) for name in state.by]
    if not frame.isStreaming:
        ordered = marked.repartition(*keys).sortWithinPartitions(*keys, _AT, _TIE)
        return ordered.mapInArrow(_by_order(rule, state.by, names, made), schema)
    _check_session(frame)
    schema = schema.add(_IS_OLD, st.BooleanType())
    followed = marked.groupBy(*keys).transformWithState(
        _Follower(rule, names, schema.names), schema, "append", "EventTime"
    )
    n_old = sf.count_if(sf.col(_IS_OLD)).alias("n_rows")
    return followed.observe(OUT_OF_ORDER, n_old).drop(_IS_OLD)


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


def _by_order(
    rule: HistoryRule, by: Sequence[str], names: Sequence[str], made: Sequence[st.StructField]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Follows the keys of a partition that comes in order, with one history at a time."""
    types = [to_arrow_type(field.dataType) for field in made]
    read = sorted({*rule.remembered, *rule.watched})

    def follow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        current: tuple[object, ...] | None = None
        history = History.empty()
        for batch in batches:
            told = []
            keys = zip(*(batch.column(name).to_pylist() for name in by), strict=True)
            values = [batch.column(name).to_pylist() for name in read]
            times = batch.column(_AT).to_pylist()
            for i, key in enumerate(keys):
                if key != current:
                    current, history = key, History.empty()
                row = {name: column[i] for name, column in zip(read, values, strict=True)}
                told.append(rule.told(history, times[i], row))
            columns = zip(*told, strict=True) if told else ((),) * len(types)
            arrays = [pa.array(c, kind) for c, kind in zip(columns, types, strict=True)]
            yield pa.RecordBatch.from_arrays(
                [*(batch.column(name) for name in names), *arrays],
                names=[*names, *(field.name for field in made)],
            )

    return follow


class _Follower(StatefulProcessor):
    """Keeps a key's history from one micro-batch to the next.

    Its timer removes what would begin anew anyway: once the watermark is past the pause after which
    a history is forgotten, any row that is still admitted comes after that pause.

    Args:
        rule: How histories grow.
        names: Columns that go through.
        made: All columns of what is given back.
    """

    def __init__(self, rule: HistoryRule, names: Sequence[str], made: Sequence[str]) -> None:
        self._rule = rule
        self._names = tuple(names)
        self._made = tuple(made)
        self._read = sorted({*rule.remembered, *rule.watched})

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Open the state."""
        self._handle = handle
        self._state = handle.getValueState("history", "history STRING")

    def handleInputRows(  # noqa: N802 - Spark's name
        self,
        key: object,  # noqa: ARG002 - Spark's
        rows: Iterator[pd.DataFrame] | Iterator[Row],
        timerValues: TimerValues,  # noqa: ARG002, N803 - Spark's
    ) -> Iterator[Row]:
        """The rows of a key in this micro-batch, in the order of their times."""
        is_known = self._state.exists()
        history = self._history() if is_known else History.empty()
        make = Row(*self._made)
        these = cast("Iterator[Row]", rows)  # Frames come to `transformWithStateInPandas` alone.
        for row in sorted(these, key=lambda row: (row[_AT], row[_TIE])):
            is_old = history.newest is not None and row[_AT] < history.newest
            read: Mapping[str, Value] = {name: row[name] for name in self._read}
            told = self._rule.told(history, row[_AT], read)
            yield make(*(row[name] for name in self._names), *told, is_old)
        self._state.update((history.to_json(),))
        if not is_known:
            self._handle.registerTimer(self._ends_ms(history))

    def handleExpiredTimer(  # noqa: N802 - Spark's name
        self,
        key: object,  # noqa: ARG002 - Spark's
        timerValues: TimerValues,  # noqa: N803 - Spark's
        expiredTimerInfo: object,  # noqa: ARG002, N803 - Spark's
    ) -> Iterator[Row]:
        """Forget the key, or look again when its newest row has become old."""
        ends_ms = self._ends_ms(self._history())
        if ends_ms <= timerValues.getCurrentWatermarkInMs():
            self._state.clear()
        else:
            self._handle.registerTimer(ends_ms)
        return iter(())

    def close(self) -> None:
        """Nothing is held."""

    def _history(self) -> History:
        kept = self._state.get()
        assert kept is not None
        return History.from_json(kept[0])

    def _ends_ms(self, history: History) -> int:
        assert history.newest is not None
        return -(-history.newest // 1000) + self._rule.forget_after_s * 1000
