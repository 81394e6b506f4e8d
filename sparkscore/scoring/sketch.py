"""How the values of a column are spread, in so few numbers that a commit's metadata can hold them.

Sketches of parts of a column add up to the sketch of the whole, in any order. Bins are fixed: an
eighth of a power of two for numbers, which is what 15 bits of a double say, and a digest for texts.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BITS = 15
"""Sign, exponent, and three bits of the fraction."""
_N_NUMBERS = 1 << _BITS
_NEGATIVE = 1 << (_BITS - 1)
_N_TEXTS = 4096
_N_GROUPS = 10
"""Groups of about as many values each, as the population stability index is commonly taken over."""
_RARE = 0.01
"""Texts with a smaller share are one group: each by itself would say little."""


@dataclass
class ColumnSketch:
    """Counts of a column's values.

    Attributes:
        n_rows: Rows, those without a value among them.
        n_nulls: Rows without a value.
        n_nan: Values that are NaN.
        low: The least value, an infinity perhaps; None: there is no number.
        high: The greatest value.
        bins: Number of values by bin, those that are NaN left out.
    """

    n_rows: int = 0
    n_nulls: int = 0
    n_nan: int = 0
    low: float | None = None
    high: float | None = None
    bins: dict[int, int] = field(default_factory=dict)

    def add(self, column: pa.Array) -> None:
        """Count the rows of a column; of lists, each item is a value.

        Of other types than numbers and texts, nothing but nulls is counted.
        """
        self.n_rows += len(column)
        self.n_nulls += column.null_count
        values = column.drop_null()
        while _is_list(values.type):
            values = values.flatten().drop_null()
        if pa.types.is_string(values.type):
            self._add_texts(values)
        elif is_number(values.type):
            self._add_numbers(values.cast(pa.float64()).to_numpy(zero_copy_only=False))

    def plus(self, other: ColumnSketch) -> ColumnSketch:
        """The sketch of the rows of both."""
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        total = ColumnSketch(
            n_rows=self.n_rows + other.n_rows,
            n_nulls=self.n_nulls + other.n_nulls,
            n_nan=self.n_nan + other.n_nan,
            low=min(lows, default=None),
            high=max(highs, default=None),
            bins=dict(self.bins),
        )
        total._count(other.bins.items())
        return total

    def to_facts(self) -> dict[str, object]:
        """The sketch as values of JSON; infinities are texts."""
        return {
            "rows": self.n_rows,
            "nulls": self.n_nulls,
            "nan": self.n_nan,
            "low": None if self.low is None else repr(self.low),
            "high": None if self.high is None else repr(self.high),
            "bins": {str(key): self.bins[key] for key in sorted(self.bins)},
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, object]) -> Self:
        """The sketch that `to_facts` told."""
        low, high, bins = facts["low"], facts["high"], facts["bins"]
        assert isinstance(bins, Mapping)
        return cls(
            n_rows=int(str(facts["rows"])),
            n_nulls=int(str(facts["nulls"])),
            n_nan=int(str(facts["nan"])),
            low=None if low is None else float(str(low)),
            high=None if high is None else float(str(high)),
            bins={int(key): int(count) for key, count in bins.items()},
        )

    def _add_numbers(self, values: np.ndarray) -> None:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        if math.isnan(low):
            is_number = ~np.isnan(values)
            self.n_nan += len(values) - int(is_number.sum())
            self._add_numbers(values[is_number])
            return
        if not len(values):
            return
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        # Added to, -0.0 is 0.0, and has its bin.
        keys = (values + 0.0).view(np.int64) >> (64 - _BITS)
        first = int(keys.min())
        counts = np.bincount(keys - first).tolist()
        mask = _N_NUMBERS - 1  # Of negative doubles, the sign went into all bits.
        self._count(((first + i) & mask, n) for i, n in enumerate(counts) if n)

    def _add_texts(self, values: pa.Array) -> None:
        for item in pc.value_counts(values).to_pylist():
            key = _N_NUMBERS + zlib.crc32(item["values"].encode()) % _N_TEXTS
            self._count([(key, item["counts"])])

    def _count(self, counts: Iterable[tuple[int, int]]) -> None:
        for key, count in counts:
            self.bins[key] = self.bins.get(key, 0) + count


def item_type(data_type: pa.DataType) -> pa.DataType:
    """The type of the values of a column, which are the items of its lists."""
    while _is_list(data_type):
        data_type = data_type.value_type
    return data_type


def is_number(data_type: pa.DataType) -> bool:
    """Whether values have an order and a place among doubles."""
    types = pa.types
    return bool(
        types.is_integer(data_type)
        or types.is_floating(data_type)
        or types.is_boolean(data_type)
        or types.is_decimal(data_type)
    )


def drift(before: ColumnSketch, now: ColumnSketch) -> float:
    """How far values have moved: the population stability index, 0 where nothing has.

    The groups are tenths of the former values, what lies below and above all of them, NaN, and each
    text that was not rare. Between two samples of n values of one distribution it is about 20 / n;
    0.1 is commonly called a slight change, and 0.25 a large one.
    """
    groups = _groups(before)
    shares = [_shares(sketch, groups) for sketch in (before, now)]
    return float(sum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True)))


@dataclass(frozen=True)
class _Groups:
    """Bounds of the groups of numbers, by the order of their bins, and texts of their own group."""

    bounds: tuple[int, ...]
    texts: Mapping[int, int]

    def of(self, key: int) -> int:
        """The number of a bin's group."""
        n_numbers = len(self.bounds) + 1
        if key >= _N_NUMBERS:
            return n_numbers + self.texts.get(key, len(self.texts))
        return bisect_right(self.bounds, _order(key))

    @property
    def n_groups(self) -> int:
        """With one for rare texts, and one for NaN, which is the last."""
        return len(self.bounds) + 1 + len(self.texts) + 2


def _is_list(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_list(data_type) or pa.types.is_fixed_size_list(data_type))


def _groups(sketch: ColumnSketch) -> _Groups:
    numbers = sorted((_order(key), n) for key, n in sketch.bins.items() if key < _N_NUMBERS)
    total, seen = sum(n for _, n in numbers), 0
    bounds = [numbers[0][0], numbers[-1][0] + 1] if numbers else []
    for order, n in numbers:
        # A new group begins where the one before it has its share.
        if seen and seen * _N_GROUPS // total != (seen + n) * _N_GROUPS // total:
            bounds.append(order + 1)
        seen += n
    n_texts = sum(n for key, n in sketch.bins.items() if key >= _N_NUMBERS)
    texts = [k for k, n in sketch.bins.items() if k >= _N_NUMBERS and n >= _RARE * n_texts]
    return _Groups(tuple(sorted(set(bounds))), {key: i for i, key in enumerate(sorted(texts))})


def _shares(sketch: ColumnSketch, groups: _Groups) -> Sequence[float]:
    """Shares of the groups; half a value more in each, since none may be 0."""
    counts = [0.5] * groups.n_groups
    for key, n in sketch.bins.items():
        counts[groups.of(key)] += n
    counts[-1] += sketch.n_nan
    total = sum(counts)
    return [count / total for count in counts]


def _order(key: int) -> int:
    """Bins by the values in them: those of negative doubles run backwards."""
    return key if key < _NEGATIVE else _NEGATIVE - 1 - key
