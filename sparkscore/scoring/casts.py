"""Which Arrow types may become which, without any value changing.

A cast is EXACT (the same values and type, or another encoding of it), WIDENED (every value of the
source type has an equal in the wanted type) or CHECKED (values that have no equal make their row
invalid). Everything else is refused when the job is planned. Null stays null in all of them.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

_MAX_EXACT_FLOAT_INT = 2**53
"""Largest n for which every integer in [-n, n] is a float64."""

_FLOAT_BITS_FOR_INT = {8: 32, 16: 32, 32: 64}
"""Narrowest float that holds every integer of so many bits."""


class Cast(StrEnum):
    """How values get from the source's type to the wanted one."""

    EXACT = "exact"
    WIDENED = "widened"
    CHECKED = "checked"


def find_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    """The cast from `source` to `wanted`, or None where values could change."""
    if source.equals(wanted):
        return Cast.EXACT
    if pa.types.is_dictionary(source):
        return find_cast(source.value_type, wanted)
    if pa.types.is_null(source):
        return Cast.WIDENED
    if _is_list(source) and _is_list(wanted):
        return _weakest(find_cast(source.value_type, wanted.value_type))
    if pa.types.is_map(source) and pa.types.is_map(wanted):
        keys = find_cast(source.key_type, wanted.key_type)
        return (
            None if keys is None else _weakest(keys, find_cast(source.item_type, wanted.item_type))
        )
    if pa.types.is_struct(source) and pa.types.is_struct(wanted):
        return _find_struct_cast(source, wanted)
    return _find_scalar_cast(source, wanted)


def can_hold_missing(data_type: pa.DataType) -> bool:
    """Whether a model's library has a missing value for this type (NaN, None or NaT)."""
    return not (pa.types.is_integer(data_type) or pa.types.is_boolean(data_type))


def cast_column(
    column: pa.Array, wanted: pa.DataType, cast: Cast
) -> tuple[pa.Array, pa.Array | None]:
    """`column` as `wanted`, and which rows have a value that does not fit.

    Returns:
        The column of n_rows, where unfitting values are null, and a boolean mask of n_rows that
        is true for them, or None if all fit.
    """
    if column.type.equals(wanted):
        return column, None
    if cast is not Cast.CHECKED:
        return column.cast(wanted), None
    fits = pc.and_(
        pc.greater_equal(column, -_MAX_EXACT_FLOAT_INT), pc.less_equal(column, _MAX_EXACT_FLOAT_INT)
    )
    unfit = pc.fill_null(pc.invert(fits), False)
    if not pc.any(unfit).as_py():
        return column.cast(wanted), None
    return pc.if_else(unfit, None, column).cast(wanted), unfit


def _find_scalar_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    if (_is_text(source) and _is_text(wanted)) or (_is_bytes(source) and _is_bytes(wanted)):
        return Cast.EXACT
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(source):
        return Cast.EXACT if source.unit == wanted.unit else None
    if pa.types.is_timestamp(wanted) and pa.types.is_date(source):
        return Cast.WIDENED
    if pa.types.is_signed_integer(source):
        return _find_integer_cast(source, wanted)
    if pa.types.is_floating(source) and pa.types.is_floating(wanted):
        return Cast.WIDENED if source.bit_width < wanted.bit_width else None
    return None


def _find_integer_cast(source: pa.DataType, wanted: pa.DataType) -> Cast | None:
    if pa.types.is_signed_integer(wanted):
        return Cast.WIDENED if source.bit_width < wanted.bit_width else None
    if not pa.types.is_floating(wanted):
        return None
    if source.bit_width in _FLOAT_BITS_FOR_INT:
        return Cast.WIDENED if _FLOAT_BITS_FOR_INT[source.bit_width] <= wanted.bit_width else None
    return Cast.CHECKED if pa.types.is_float64(wanted) else None


def _find_struct_cast(source: pa.StructType, wanted: pa.StructType) -> Cast | None:
    names = [field.name for field in source]
    if names != [field.name for field in wanted]:
        return None
    return _weakest(
        *(find_cast(have.type, want.type) for have, want in zip(source, wanted, strict=True))
    )


def _weakest(*casts: Cast | None) -> Cast | None:
    """The cast of a nested type; a check inside of it is not supported, so it is refused."""
    if any(cast is None or cast is Cast.CHECKED for cast in casts):
        return None
    return Cast.WIDENED if Cast.WIDENED in casts else Cast.EXACT


def _is_list(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
    )


def _is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))
