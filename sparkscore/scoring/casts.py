"""Which Arrow types may become which, without any value changing.

A cast is EXACT (the same values and type, or another encoding of it), WIDENED (every value of the
source type has an equal in the wanted type) or CHECKED (values that have no equal make their row
invalid). Everything else is refused when the job is planned. Null stays null in all of them, but
where a nested type asks for a value.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FLOAT_DIGITS = {32: 24, 64: 53}
"""Every integer in [-2**n, 2**n] is a float of so many bits."""

_SAFE_DIGITS = 15
"""A decimal of so many digits comes back from the nearest double as it was (IEEE 754)."""

_INTEGER_DIGITS = {32: 9, 64: 18}
"""Every decimal of so many digits and no fraction is an integer of so many bits."""

_TICKS_PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

Converted = tuple[pa.Array, pa.Array | None]
"""A column, and a mask of its unfit rows; None: all fit."""


class Cast(StrEnum):
    """How values get from the source's type to the wanted one."""

    EXACT = "exact"
    WIDENED = "widened"
    CHECKED = "checked"


def find_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    """The cast from `source` to `wanted`, or None where values could change.

    Null as the wanted type, or as one inside of it, takes any.
    """
    if source.equals(wanted) or pa.types.is_null(wanted):
        return Cast.EXACT
    if pa.types.is_dictionary(source):
        return find_cast(source.value_type, wanted)
    if pa.types.is_null(source):
        return Cast.WIDENED
    if is_list(source) and is_list(wanted):
        return _find_list_cast(source, wanted)
    if pa.types.is_map(source) and pa.types.is_map(wanted):
        casts = (
            find_cast(source.key_type, wanted.key_type),
            find_cast(source.item_type, wanted.item_type),
        )
        # A check inside of a map is not supported, so it is refused.
        return None if Cast.CHECKED in casts else _weakest(*casts)
    if pa.types.is_struct(source) and pa.types.is_struct(wanted):
        return _find_struct_cast(source, wanted)
    return _find_scalar_cast(source, wanted)


def can_hold_missing(data_type: pa.DataType) -> bool:
    """Whether a model's library has a missing value for this type (NaN, None or NaT).

    A list that stands for the rows of a tensor has none.
    """
    return not (
        pa.types.is_integer(data_type)
        or pa.types.is_boolean(data_type)
        or (is_list(data_type) and _is_row(data_type))
    )


def is_list(data_type: pa.DataType) -> bool:
    """Whether values are lists, of one length or of any."""
    return bool(
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
    )


def settled(wanted: pa.DataType, source: pa.DataType) -> pa.DataType:
    """`wanted` with the source's own types wherever it takes any."""
    types = pa.types
    if types.is_dictionary(source):
        return settled(wanted, source.value_type)
    if types.is_null(wanted):
        return source
    if is_list(wanted) and is_list(source) and not types.is_fixed_size_list(wanted):
        item = wanted.value_field
        item = item.with_type(settled(item.type, source.value_type))
        return pa.large_list(item) if types.is_large_list(wanted) else pa.list_(item)
    if types.is_map(wanted) and types.is_map(source):
        return pa.map_(wanted.key_type, settled(wanted.item_type, source.item_type))
    if types.is_struct(wanted) and types.is_struct(source):
        have = {field.name: field.type for field in source}
        return pa.struct(
            [f.with_type(settled(f.type, have.get(f.name, pa.null()))) for f in wanted]
        )
    return wanted


def cast_column(column: pa.Array, wanted: pa.DataType) -> Converted:
    """`column` as `wanted`, and which rows have a value that does not fit.

    Args:
        column: Of a type that `find_cast` has a cast for.
        wanted: Its new type.

    Returns:
        The column of n_rows, where unfitting values are null, and a boolean mask of n_rows that
        is true for them, or None if all fit. Where `wanted` takes any, it is as it was.
    """
    return _converted(column, settled(wanted, column.type))


def _find_list_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    items = find_cast(source.value_type, wanted.value_type)
    if items is None:
        return None
    needs_length = pa.types.is_fixed_size_list(wanted) and not (
        pa.types.is_fixed_size_list(source) and source.list_size == wanted.list_size
    )
    needs_items = source.value_field.nullable and _is_row(wanted)
    return Cast.CHECKED if needs_length or needs_items else items


def _find_struct_cast(source: pa.StructType, wanted: pa.StructType) -> Cast | None:
    """Fields are found by name; a wanted one that may be null may also be absent."""
    names = [field.name for field in source]
    if len(set(names)) < len(names):
        return None
    casts: list[Cast | None] = []
    for field in wanted:
        if field.name not in names:
            casts.append(Cast.WIDENED if field.nullable else None)
            continue
        have = source.field(field.name)
        casts.append(find_cast(have.type, field.type))
        if _needs_value(field) and have.nullable:
            casts.append(Cast.CHECKED)
    if names != [field.name for field in wanted]:
        casts.append(Cast.WIDENED)
    # A struct of which no field is read is another one.
    return _weakest(*casts) if {field.name for field in wanted} & set(names) else None


def _find_scalar_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    types = pa.types
    if (_is_text(source) and _is_text(wanted)) or (_is_bytes(source) and _is_bytes(wanted)):
        return Cast.EXACT
    if types.is_timestamp(wanted) and types.is_timestamp(source):
        return Cast.EXACT if source.unit == wanted.unit else Cast.CHECKED
    if types.is_timestamp(wanted) and types.is_date(source):
        return Cast.WIDENED
    if types.is_integer(source):
        return _find_integer_cast(source, wanted)
    if types.is_decimal(source):
        return _find_decimal_cast(source, wanted)
    if (types.is_float32(source) or types.is_float64(source)) and types.is_integer(wanted):
        return Cast.CHECKED
    if types.is_floating(source) and types.is_floating(wanted):
        # Nearly no double is a float: a view that rounds says so, and a check would reject all.
        return Cast.WIDENED if source.bit_width < wanted.bit_width else None
    return None


def _find_integer_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    lowest, highest = _bounds(source)
    if pa.types.is_integer(wanted):
        least, most = _bounds(wanted)
    elif pa.types.is_float32(wanted) or pa.types.is_float64(wanted):
        most = 2 ** _FLOAT_DIGITS[wanted.bit_width]
        least = -most
    else:
        return None
    return Cast.WIDENED if least <= lowest and highest <= most else Cast.CHECKED


def _find_decimal_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    if pa.types.is_float64(wanted):
        return Cast.WIDENED if source.precision <= _SAFE_DIGITS else Cast.CHECKED
    digits = _INTEGER_DIGITS.get(wanted.bit_width) if pa.types.is_signed_integer(wanted) else None
    if digits is None or source.scale != 0:
        return None
    return Cast.WIDENED if source.precision <= digits else Cast.CHECKED


def _weakest(*casts: Cast | None) -> Cast | None:
    """The cast of a nested type."""
    if None in casts:
        return None
    return next((cast for cast in (Cast.CHECKED, Cast.WIDENED) if cast in casts), Cast.EXACT)


def _converted(column: pa.Array, wanted: pa.DataType) -> Converted:
    if column.type.equals(wanted):
        return column, None
    if pa.types.is_dictionary(column.type):
        return _converted(column.dictionary_decode(), wanted)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), wanted), None
    if is_list(column.type):
        return _converted_lists(column, wanted)
    if pa.types.is_struct(column.type):
        return _converted_structs(column, wanted)
    if _find_scalar_cast(column.type, wanted) is Cast.CHECKED:
        return _checked(column, wanted)
    if pa.types.is_decimal(column.type) and pa.types.is_floating(wanted):
        return _doubles(column), None
    return column.cast(wanted), None


def _converted_lists(column: pa.Array, wanted: pa.DataType) -> Converted:
    flat = pc.list_flatten(column)
    items, unfit_items = _converted(flat, wanted.value_type)
    if flat.null_count and _is_row(wanted):
        unfit_items = _either(unfit_items, pc.is_null(flat))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    is_null = pc.is_null(column).to_numpy(zero_copy_only=False)
    unfit = np.zeros(len(column), dtype=bool)
    if unfit_items is not None:
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        unfit[parents[unfit_items.to_numpy(zero_copy_only=False)]] = True
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if pa.types.is_fixed_size_list(wanted):
        size = wanted.list_size
        unfit |= ~is_null & (lengths != size)
        absent = is_null | unfit
        if (lengths != size).any():
            # Each row has its items at its place, those that have others too.
            places = np.where(absent, 0, starts[:-1])[:, None] + np.arange(size)
            items = items.take(pa.array(places.reshape(-1), mask=np.repeat(absent, size)))
        lists = pa.FixedSizeListArray.from_arrays(items, type=wanted, mask=pa.array(absent))
    else:
        absent = is_null | unfit
        kind = pa.LargeListArray if pa.types.is_large_list(wanted) else pa.ListArray
        offsets = pa.array(starts, pa.int64() if kind is pa.LargeListArray else pa.int32())
        lists = kind.from_arrays(offsets, items, type=wanted, mask=pa.array(absent))
    return lists, pa.array(unfit) if unfit.any() else None


def _converted_structs(column: pa.StructArray, wanted: pa.StructType) -> Converted:
    names = [field.name for field in column.type]
    parts = column.flatten()
    children: list[pa.Array] = []
    unfit: pa.Array | None = None
    for field in wanted:
        if field.name not in names:
            children.append(pa.nulls(len(column), field.type))
            continue
        have = parts[names.index(field.name)]
        child, wrong = _converted(have, field.type)
        children.append(child)
        if _needs_value(field) and have.null_count:
            empty = pc.and_(pc.is_null(have), pc.is_valid(column))
            wrong = _either(wrong, empty) if pc.any(empty).as_py() else wrong
        if wrong is not None:
            unfit = _either(unfit, wrong)
    absent = pc.is_null(column) if unfit is None else pc.or_(pc.is_null(column), unfit)
    return pa.StructArray.from_arrays(children, fields=list(wanted), mask=absent), unfit


def _checked(column: pa.Array, wanted: pa.DataType) -> Converted:
    """Single values as `wanted`, those that have no equal there being null."""
    source = column.type
    if pa.types.is_timestamp(source):
        return _checked_timestamps(column, wanted)
    if pa.types.is_decimal(source) and pa.types.is_floating(wanted):
        return _where_fitting(column, _is_kept_by_double(column), _doubles)
    if pa.types.is_decimal(source):
        fits = _is_between(column, *map(Decimal, _bounds(wanted)))
    elif pa.types.is_floating(source):
        lowest, highest = _bounds(wanted)
        # The highest itself may be no float, and what follows it is. NaN is in no range.
        in_range = pc.and_(
            pc.greater_equal(column, float(lowest)), pc.less(column, float(highest + 1))
        )
        fits = pc.and_(in_range, pc.equal(pc.floor(column), column))
    else:
        fits = _is_between(column, *_shared_bounds(source, wanted))
    return _where_fitting(column, fits, lambda values: values.cast(wanted))


def _where_fitting(
    column: pa.Array, fits: pa.Array, convert: Callable[[pa.Array], pa.Array]
) -> Converted:
    unfit = pc.fill_null(pc.invert(fits), False)
    if not pc.any(unfit).as_py():
        return convert(column), None
    return convert(pc.if_else(unfit, pa.scalar(None, column.type), column)), unfit


def _checked_timestamps(column: pa.TimestampArray, wanted: pa.TimestampType) -> Converted:
    have, want = _TICKS_PER_S[column.type.unit], _TICKS_PER_S[wanted.unit]
    ticks = column.cast(pa.int64())
    if have > want:
        factor = have // want
        whole = pc.divide(ticks, factor)
        fits = pc.equal(pc.multiply(whole, factor), ticks)
        return _where_fitting(ticks, fits, lambda values: pc.divide(values, factor).cast(wanted))
    factor = want // have
    most = (2**63 - 1) // factor
    fits = _is_between(ticks, -most, most)
    return _where_fitting(ticks, fits, lambda values: pc.multiply(values, factor).cast(wanted))


def _doubles(decimals: pa.Array) -> pa.Array:
    """The nearest doubles; Arrow's own cast multiplies by a power of ten, and may miss them."""
    return decimals.cast(pa.string()).cast(pa.float64())


def _is_kept_by_double(decimals: pa.Array) -> pa.Array:
    """Which decimals equal the nearest double, or are how it is written."""
    doubles = _doubles(decimals)
    is_small = pc.less(pc.abs(doubles), 2.0 ** _FLOAT_DIGITS[64])
    try:
        # Nine digits more than a column has, since a double may be written with more.
        written = doubles.cast(pa.string()).cast(pa.decimal256(76, decimals.type.scale + 9))
    except pa.ArrowInvalid:
        fits = pa.array(np.zeros(len(decimals), dtype=bool))
    else:
        fits = pc.and_(is_small, pc.equal(written, decimals.cast(written.type)))
    others = pc.fill_null(pc.invert(fits), False)
    if not pc.any(others).as_py():
        return fits
    pairs = zip(doubles.filter(others), decimals.filter(others), strict=True)
    kept = [_is_written_as(double.as_py(), exact.as_py()) for double, exact in pairs]
    return pc.replace_with_mask(fits, others, pa.array(kept, pa.bool_()))


def _is_written_as(double: float, exact: Decimal) -> bool:
    # Beyond 2**53 a number of 17 digits may be written as one that it is not.
    is_small = abs(double) < 2 ** _FLOAT_DIGITS[64]
    return Decimal(double) == exact or (is_small and Decimal(repr(double)) == exact)


def _is_between(column: pa.Array, lowest: object, highest: object) -> pa.Array:
    return pc.and_(pc.greater_equal(column, lowest), pc.less_equal(column, highest))


def _shared_bounds(source: pa.DataType, wanted: pa.DataType) -> tuple[pa.Scalar, pa.Scalar]:
    """The integers of `source` that are `wanted` too, as bounds of its own type."""
    if pa.types.is_floating(wanted):
        most = 2 ** _FLOAT_DIGITS[wanted.bit_width]
        least = -most
    else:
        least, most = _bounds(wanted)
    lowest, highest = _bounds(source)
    return pa.scalar(max(lowest, least), source), pa.scalar(min(highest, most), source)


def _bounds(integer: pa.DataType) -> tuple[int, int]:
    """The lowest and the highest value of an integer type."""
    bits = integer.bit_width
    if pa.types.is_unsigned_integer(integer):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _is_row(lists: pa.DataType) -> bool:
    """Whether lists are rows of tensors, in which no item is null."""
    # Of lists of one length, pickling forgets that their items are not null.
    return bool(pa.types.is_fixed_size_list(lists)) or not lists.value_field.nullable


def _needs_value(field: pa.Field) -> bool:
    """Whether a null in this field of a struct makes the row invalid, as it does in a column."""
    return not field.nullable and not can_hold_missing(field.type)


def _either(mask: pa.Array | None, other: pa.Array) -> pa.Array:
    return other if mask is None else pc.or_(mask, other)


def _is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))
