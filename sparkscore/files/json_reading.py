"""Reading JSON lines as Spark's own reader does: what it would guess at, or drop, is an error here.

Arrow parses blocks of lines in which it and Spark agree; what it does not take, or takes in another
way, is parsed here line by line, and what is still in doubt is refused with its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from sparkscore.errors import SourceError, shown
from sparkscore.files.csv_reading import unreadable_value
from sparkscore.files.lines import Lines, line_number, read_lines
from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading
from sparkscore.files.text_values import UnreadableTextError, is_readable_text, read_texts

_LINE = r"^[ \t]*\{.*\}[ \t]*\n?$"
"""What a line with one object looks like; of two in a line, Spark would drop the second one."""
_DOUBTFUL = r"[:\[,]\s*(?:-?(?:NaN|Inf)|-0\s*[,}\]])"
"""Numbers that Arrow and Spark read in different ways, or that only one of them knows."""
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def read_json(piece: FilePiece, reading: TableReading) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the file's order, with the columns of `reading.schema`.

    A column that a line does not name is null.

    Raises:
        SourceError: The file is gone or damaged, or a line is no JSON object, or has a value that
            is none of its column's type.
    """
    for lines in read_lines(piece, reading.max_bytes):
        rows = _parsed_by_arrow(lines, reading)
        if rows is None:
            rows = _parsed_one_by_one(lines, piece, reading)
        arrays = []
        for column, field in zip(rows, reading.schema, strict=True):
            try:
                arrays.append(
                    column if column.type == field.type else read_texts(column, field.type)
                )
            except UnreadableTextError as exc:
                raise unreadable_value(piece, lines, exc, field) from None
        yield pa.RecordBatch.from_arrays(arrays, schema=reading.schema)


def is_readable_json(data_type: pa.DataType) -> bool:
    """Whether values of a type are read here."""
    types = pa.types
    if types.is_list(data_type):
        return is_readable_json(data_type.value_type) and not _is_time(data_type.value_type)
    # How a number becomes a float of 32 bits, or a decimal, is Spark's own.
    is_own = types.is_float32(data_type) or types.is_decimal(data_type)
    return not is_own and is_readable_text(data_type)


def _is_time(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_date32(data_type) or pa.types.is_timestamp(data_type))


def _written(schema: pa.Schema) -> pa.Schema:
    """The types that a file's values have; days and times are texts there."""
    return pa.schema(
        [pa.field(f.name, pa.string() if _is_time(f.type) else f.type) for f in schema]
    )


def _parsed_by_arrow(lines: Lines, reading: TableReading) -> Sequence[pa.Array] | None:
    if pc.any(pc.match_substring_regex(lines.texts, _DOUBTFUL)).as_py():
        return None
    if not pc.all(pc.match_substring_regex(lines.texts, _LINE)).as_py():
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(lines.data),
            pj.ReadOptions(use_threads=False, block_size=len(lines.data) + 1),
            pj.ParseOptions(
                explicit_schema=_written(reading.schema),
                unexpected_field_behavior="ignore",
                newlines_in_values=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    # As many objects as lines that begin and end as one: none is in two lines, nor two in one.
    if table.num_rows != len(lines.texts):
        return None
    return [table[name].combine_chunks() for name in reading.schema.names]


class _Integer(str):
    """The text of a number without fraction and exponent."""

    __slots__ = ()


class _Float(str):
    """The text of any other number, those that are not finite among them."""

    __slots__ = ()


class _DoubtError(ValueError):
    """Something that readers take in different ways."""


def _parsed_one_by_one(lines: Lines, piece: FilePiece, reading: TableReading) -> Sequence[pa.Array]:
    schema = _written(reading.schema)
    columns: list[list[object]] = [[] for _ in schema]
    for number, line in zip(lines.numbers, lines.texts.to_pylist(), strict=True):
        try:
            values = _parsed(line)
            for column, field in zip(columns, schema, strict=True):
                column.append(_value(values.get(field.name), field))
        except (ValueError, RecursionError) as exc:
            raise SourceError(
                f"data file {shown(piece.path)} has {shown(line)} in "
                f"{line_number(piece, int(number))}, which is no JSON object of a form that all "
                f"engines read alike: {exc}; nothing was written; mend the line, give the column "
                "another type (--source-schema), or take --engine arrow"
            ) from exc
    return [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]


def _parsed(line: str) -> dict[str, object]:
    values = json.loads(
        line,
        parse_int=_Integer,
        parse_float=_Float,
        parse_constant=_Float,
        object_pairs_hook=_without_repeats,
    )
    if not isinstance(values, dict):
        raise _DoubtError("it is something else")
    return values


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _DoubtError("a name is there twice")
    return values


def _value(value: object, field: pa.Field) -> object:
    """A value as Python has it, for Arrow; `null` is null in each type."""
    if value is None:
        return None
    data_type = field.type
    if pa.types.is_list(data_type) and isinstance(value, list):
        return [_value(one, data_type.value_field) for one in value]
    if pa.types.is_boolean(data_type) and isinstance(value, bool):
        return value
    if pa.types.is_float64(data_type) and isinstance(value, _Integer | _Float):
        # Spark reads -0 as an integer, which has no sign.
        return 0.0 if value == "-0" else float(value)
    if pa.types.is_float64(data_type) and value in _NOT_FINITE:
        return float(str(value))
    if pa.types.is_integer(data_type) and isinstance(value, _Integer):
        return _in_range(int(value), data_type)
    if pa.types.is_string(data_type) and isinstance(value, bool):
        return str(value).lower()
    if pa.types.is_string(data_type) and isinstance(value, str) and _is_plain(value):
        return str(value)
    raise _DoubtError(f"column {field.name!r} is {data_type}, and the value {shown(value)}")


def _is_plain(value: str) -> bool:
    """Whether a string, or a number, is one text for all; Spark writes other numbers anew."""
    if isinstance(value, _Float) or (isinstance(value, _Integer) and value == "-0"):
        return False
    value.encode()  # Half of a surrogate pair is no text.
    return True


def _in_range(value: int, data_type: pa.DataType) -> int:
    half = 2 ** (data_type.bit_width - 1)
    if not -half <= value < half:
        raise _DoubtError(f"{value} is no {data_type}")
    return value
