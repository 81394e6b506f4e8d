"""SQL filters that mean here exactly what they mean in Spark, or are not understood at all.

Understood are AND, OR, NOT and parentheses over comparisons of a column with a literal, IN,
BETWEEN, IS NULL and boolean columns, where column and literal are of types that Spark compares
without a rule of its own: integers, doubles, strings, dates, timestamps with a zone, booleans.
Logic is three-valued. A double that is NaN is greater than all numbers, as in Spark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

Truth = bool | None
"""What a filter can say of a row; None is SQL's unknown, which selects nothing."""


@dataclass(frozen=True)
class Constant:
    """True or false for every row."""

    value: bool


@dataclass(frozen=True)
class Compare:
    """A column against a literal; `value` is a Python value of the column's kind."""

    column: str
    sign: str
    value: object


@dataclass(frozen=True)
class IsNull:
    """Whether a column is null; never unknown."""

    column: str


@dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Predicate


@dataclass(frozen=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Predicate, ...]


Predicate = Constant | Compare | IsNull | Not | AllOf | AnyOf


@dataclass(frozen=True)
class Bounds:
    """What is known of a column's values in some rows; a bound is None where it is unknown."""

    low: object = None
    high: object = None
    may_be_null: bool = True
    may_be_value: bool = True


_KERNELS: Mapping[str, Callable[[pa.Array, pa.Scalar], pa.Array]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def columns_in(predicate: Predicate) -> frozenset[str]:
    """Names of the columns that the predicate reads."""
    if isinstance(predicate, Compare | IsNull):
        return frozenset([predicate.column])
    if isinstance(predicate, Not):
        return columns_in(predicate.inner)
    if isinstance(predicate, AllOf | AnyOf):
        return frozenset().union(*(columns_in(part) for part in predicate.parts))
    return frozenset()


def evaluate(predicate: Predicate, batch: pa.RecordBatch) -> pa.Array:
    """For each row true, false or null (unknown); n_rows booleans."""
    if isinstance(predicate, Constant):
        return pa.repeat(pa.scalar(predicate.value), batch.num_rows)
    if isinstance(predicate, Compare):
        return _compared(plain(batch.column(predicate.column)), predicate)
    if isinstance(predicate, IsNull):
        return pc.is_null(batch.column(predicate.column))
    if isinstance(predicate, Not):
        return pc.invert(evaluate(predicate.inner, batch))
    kernel = pc.and_kleene if isinstance(predicate, AllOf) else pc.or_kleene
    result = evaluate(predicate.parts[0], batch)
    for part in predicate.parts[1:]:
        result = kernel(result, evaluate(part, batch))
    return result


def possible(predicate: Predicate, bounds: Mapping[str, Bounds]) -> frozenset[Truth]:
    """What the predicate may say of rows whose columns lie within `bounds`.

    Args:
        predicate: The filter.
        bounds: By column; of a column that is not in it, nothing is known.

    Returns:
        At least what it says of one of the rows: without True no row is selected, and with
        nothing but True each row is.
    """
    if isinstance(predicate, Constant):
        return frozenset([predicate.value])
    if isinstance(predicate, Compare):
        return _possible_comparison(predicate, bounds.get(predicate.column, Bounds()))
    if isinstance(predicate, IsNull):
        known = bounds.get(predicate.column, Bounds())
        both = ((True, known.may_be_null), (False, known.may_be_value))
        return frozenset(truth for truth, can_be in both if can_be)
    if isinstance(predicate, Not):
        inner = possible(predicate.inner, bounds)
        return frozenset(None if truth is None else not truth for truth in inner)
    joined = _and if isinstance(predicate, AllOf) else _or
    result = possible(predicate.parts[0], bounds)
    for part in predicate.parts[1:]:
        more = possible(part, bounds)
        result = frozenset(joined(one, other) for one in result for other in more)
    return result


def plain(column: pa.Array) -> pa.Array:
    """The column without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _compared(column: pa.Array, comparison: Compare) -> pa.Array:
    data_type = pa.int64() if pa.types.is_integer(column.type) else column.type
    scalar = pa.scalar(comparison.value, data_type)
    result = _KERNELS[comparison.sign](column.cast(data_type), scalar)
    if comparison.sign in (">", ">=") and pa.types.is_floating(column.type):
        return pc.or_(result, pc.is_nan(column))
    return result


def _possible_comparison(comparison: Compare, known: Bounds) -> frozenset[Truth]:
    result: set[Truth] = {None} if known.may_be_null else set()
    if known.may_be_value:
        result |= _possible_values(comparison.sign, comparison.value, known.low, known.high)
    return frozenset(result)


def _possible_values(sign: str, value: object, low: object, high: object) -> set[Truth]:
    is_below = high is not None and high < value  # type: ignore[operator]
    is_above = low is not None and low > value  # type: ignore[operator]
    is_equal = low is not None and low == value == high
    at_most = is_below or (high is not None and high == value)
    at_least = is_above or (low is not None and low == value)
    always, never = {
        "=": (is_equal, is_below or is_above),
        "!=": (is_below or is_above, is_equal),
        "<": (is_below, at_least),
        "<=": (at_most, is_above),
        ">": (is_above, at_most),
        ">=": (at_least, is_below),
    }[sign]
    if always:
        return {True}
    return {False} if never else {True, False}


def _and(one: Truth, other: Truth) -> Truth:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _or(one: Truth, other: Truth) -> Truth:
    if one is True or other is True:
        return True
    return None if one is None or other is None else False
