"""What Python workers do to follow the keys of rows: in order of a table, or as rows come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.streaming.stateful_processor import (
    StatefulProcessor,
    StatefulProcessorHandle,
    TimerValues,
)

from sparkscore.scoring.history import History, HistoryRule, Value

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import types as st

AT, TIE, IS_OLD = "__sparkscore_at", "__sparkscore_tie", "__sparkscore_is_old"
"""Columns beside those of a row: its time in microseconds, what orders rows of one time, and
whether a younger row of its key came before it."""


def by_order(
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
            times = batch.column(AT).to_pylist()
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


class Follower(StatefulProcessor):
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
        for row in sorted(these, key=lambda row: (row[AT], row[TIE])):
            is_old = history.newest is not None and row[AT] < history.newest
            read: Mapping[str, Value] = {name: row[name] for name in self._read}
            told = self._rule.told(history, row[AT], read)
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
