"""What a row is told of the rows of its key before it; the same in batch and stream."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from sparkscore.errors import ConfigError, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable

Value: TypeAlias = float | int | str | bool | None

_MICROS = 1_000_000
_MAX_ROWS = 1000
"""Rows that a key may remember of a column: a state is read and written whole at each batch."""
_CALL = re.compile(r"\s*(\w+)\s*\(\s*(?:([^(),]+?)\s*(?:,\s*(\d+)\s*)?)?\)\s*")
_OVER_ROWS = ("lag", "mean", "sum", "min", "max", "std", "count")
_OF_COLUMN = ("rows_since", "seconds_since")
_OF_KEY = ("rows", "seconds_since_last")
KINDS = (*_OVER_ROWS, *_OF_COLUMN, *_OF_KEY)


@dataclass(frozen=True)
class HistoryColumn:
    """One thing that a row is told.

    Attributes:
        kind: `lag`: the value some rows before; `mean`, `sum`, `min`, `max`, `std` (of a sample),
            `count`: of the last values, this row's included, nulls and NaN left out;
            `rows_since`, `seconds_since`: since a truth value was last true; `rows`: how many,
            this one included; `seconds_since_last`: since the row before.
        column: Whose values; None where it is about rows alone.
        n_rows: How far back.
    """

    kind: str
    column: str | None
    n_rows: int = 0

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """A column as a job says it: `lag(temp, 1)`, `rows_since(fault)`, `rows()`.

        Args:
            text: What was said.
            what: Where, for messages.

        Raises:
            ConfigError: It is none of these.
        """
        match = _CALL.fullmatch(text)
        kind, column, n_rows = match.groups() if match else (text, None, None)
        if match is None or kind not in KINDS:
            raise ConfigError(
                f"{what} is {shown(text)}{nearest(kind, KINDS)}; write one of "
                f"{', '.join(KINDS)}, such as lag(temp, 1)"
            )
        wanted = "(COLUMN, ROWS)" if kind in _OVER_ROWS else "(COLUMN)"
        wanted = "()" if kind in _OF_KEY else wanted
        if (column is None) != (kind in _OF_KEY) or (n_rows is None) != (kind not in _OVER_ROWS):
            raise ConfigError(f"{what} is {shown(text)}; write {kind}{wanted}")
        if n_rows is not None and not 0 < int(n_rows) <= _MAX_ROWS:
            raise ConfigError(f"{what} is {shown(text)}; a key remembers 1 to {_MAX_ROWS} rows")
        return cls(kind, column, int(n_rows or 0))

    @property
    def is_since_true(self) -> bool:
        """Whether it follows a column of truth values."""
        return self.kind in _OF_COLUMN

    @property
    def keeps_type(self) -> bool:
        """Whether it has the type of its column."""
        return self.kind in ("lag", "min", "max")

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return self.kind in ("count", "rows", "rows_since")

    @property
    def needs_numbers(self) -> bool:
        """Whether its column must be of numbers."""
        return self.kind in ("mean", "sum", "std")


@dataclass
class History:
    """What is remembered of a key; no more than the columns ask for, however long it lives.

    Attributes:
        newest: Time of its youngest row, microseconds since 1970; None: it has none.
        n_rows: Its rows.
        values: By column, the last ones, the newest last.
        last_true: By column: number and time of the last row that had it true.
    """

    newest: int | None
    n_rows: int
    values: dict[str, list[Value]]
    last_true: dict[str, tuple[int, int]]

    @classmethod
    def empty(cls) -> Self:
        """That of a key which is new."""
        return cls(None, 0, {}, {})

    def to_json(self) -> str:
        """The history as text; floats keep their bits."""
        return json.dumps([self.newest, self.n_rows, self.values, self.last_true])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The history that `to_json` wrote."""
        newest, n_rows, values, last_true = json.loads(text)
        return cls(newest, n_rows, values, {name: (n, at) for name, (n, at) in last_true.items()})


@dataclass(frozen=True)
class HistoryRule:
    """How histories grow, and what a row is told from one.

    Attributes:
        columns: What a row is told, in order.
        forget_after_s: A history begins anew after a pause that is longer.
    """

    columns: tuple[HistoryColumn, ...]
    forget_after_s: int

    @property
    def remembered(self) -> Mapping[str, int]:
        """How many values of each column a key remembers."""
        found: dict[str, int] = {}
        for each in self.columns:
            if each.column is not None and not each.is_since_true:
                n_rows = each.n_rows + (each.kind == "lag")
                found[each.column] = max(found.get(each.column, 0), n_rows)
        return found

    @property
    def watched(self) -> frozenset[str]:
        """Columns of truth values that are followed."""
        return frozenset(c.column for c in self.columns if c.is_since_true and c.column is not None)

    def told(self, history: History, at: int, row: Mapping[str, Value]) -> list[Value]:
        """What a row is told, which then belongs to the history of its key.

        Args:
            history: Changed by the call.
            at: When the row came to be, microseconds since 1970.
            row: Its columns by name.
        """
        if history.newest is not None and at - history.newest > self.forget_after_s * _MICROS:
            history.newest, history.n_rows, history.values, history.last_true = None, 0, {}, {}
        before = history.newest
        history.n_rows += 1
        for name, n_rows in self.remembered.items():
            history.values[name] = [*history.values.get(name, ()), row[name]][-n_rows:]
        for name in self.watched:
            if row[name]:
                history.last_true[name] = (history.n_rows, at)
        history.newest = at if before is None else max(at, before)
        return [_told(each, history, at, before) for each in self.columns]


def _told(each: HistoryColumn, history: History, at: int, before: int | None) -> Value:
    if each.kind == "rows":
        return history.n_rows
    if each.kind == "seconds_since_last":
        return None if before is None else (at - before) / _MICROS
    assert each.column is not None
    if each.is_since_true:
        last = history.last_true.get(each.column)
        if last is None:
            return None
        return history.n_rows - last[0] if each.kind == "rows_since" else (at - last[1]) / _MICROS
    values = history.values[each.column]
    if each.kind == "lag":
        return values[-1 - each.n_rows] if len(values) > each.n_rows else None
    return _AGGREGATES[each.kind]([v for v in values[-each.n_rows :] if _is_there(v)])


def _is_there(value: Value) -> bool:
    return value is not None and value == value  # noqa: PLR0124 - NaN is how sensors say nothing


def _sum(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    return _total(numbers) if numbers else None


def _mean(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    return _total(numbers) / len(numbers) if numbers else None


def _std(values: Sequence[Value]) -> float | None:
    numbers = _numbers(values)
    if len(numbers) <= 1:
        return None
    return statistics.stdev(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _total(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers)  # Rounded once: no other order of them gives other bits.
    except (OverflowError, ValueError):  # Beyond all floats, or infinities of both signs.
        return sum(numbers)


def _numbers(values: Sequence[Value]) -> list[float]:
    return [float(value) for value in values if value is not None]


_AGGREGATES: Mapping[str, Callable[[Sequence[Value]], Value]] = {
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "min": lambda values: min(values, default=None),  # type: ignore[type-var]
    "max": lambda values: max(values, default=None),  # type: ignore[type-var]
    "count": len,
}
