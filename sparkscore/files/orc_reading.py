"""Reading ORC files, stripe by stripe."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import orc

from sparkscore.errors import SourceError, shown
from sparkscore.files.lines import check_unchanged, file_errors
from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading, as_declared, name_in

_NAMELESS = re.compile(r"_col\d+")
_FIRST_DAY = (dt.date(1582, 10, 15) - dt.date(1970, 1, 1)).days
"""Of the calendar that all writers agree on, as ORC counts days."""


def read_orc(piece: FilePiece, reading: TableReading) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the file's order, with the columns of `reading.schema`.

    A stripe is decoded whole. A column that the file lacks is null.

    Raises:
        SourceError: The file is gone or damaged, or can only be read by Spark.
        DataError: A column of it is of a type that is not the source's.
    """
    with file_errors(piece.path):
        check_unchanged(piece)
        file = orc.ORCFile(piece.path)
        names = file.schema.names
        if names and all(map(_NAMELESS.fullmatch, names)):
            raise SourceError(
                f"data file {shown(piece.path)} has no names of columns, as Hive wrote ORC; take "
                "--engine arrow"
            )
        found = {
            name: name_in(file.schema, physical, piece.path)
            for name, physical in reading.physical.items()
        }
        columns = [names.index(name) for name in found.values() if name is not None]
        for index in range(file.nstripes):
            middle = (2 * index + 1) * file.file_length // (2 * file.nstripes)
            if piece.start <= middle < piece.end:
                # Of no column at all, Arrow would not say how many rows there are.
                stripe = file.read_stripe(index, columns=columns or [0])
                yield from _batches(stripe, found, piece, reading)


def is_readable_orc(data_type: pa.DataType) -> bool:
    """Whether values of a type are read here; times depend on the zone of their writer."""
    return _is_timeless(data_type) or bool(pa.types.is_date32(data_type))


def _is_timeless(data_type: pa.DataType) -> bool:
    types = pa.types
    if types.is_list(data_type):
        return _is_timeless(data_type.value_type)
    if types.is_map(data_type):
        return _is_timeless(data_type.key_type) and _is_timeless(data_type.item_type)
    if types.is_struct(data_type):
        return all(_is_timeless(field.type) for field in data_type)
    is_number = types.is_signed_integer(data_type) or types.is_floating(data_type)
    is_text = types.is_string(data_type) or types.is_binary(data_type)
    return bool(
        is_number or is_text or types.is_boolean(data_type) or types.is_decimal128(data_type)
    )


def _batches(
    stripe: pa.RecordBatch, found: Mapping[str, str | None], piece: FilePiece, reading: TableReading
) -> Iterator[pa.RecordBatch]:
    n_rows = max(1, reading.max_bytes * stripe.num_rows // max(1, stripe.nbytes))
    for start in range(0, stripe.num_rows, n_rows):
        rows = as_declared(stripe.slice(start, n_rows), found, piece, reading)
        for column, field in zip(rows.columns, reading.schema, strict=True):
            if pa.types.is_date32(field.type):
                _check_calendar(column, field.name, piece.path)
        yield rows


def _check_calendar(days: pa.Date32Array, name: str, path: str) -> None:
    first = pc.min(days)
    if first.is_valid and first.cast(pa.int32()).as_py() < _FIRST_DAY:
        raise SourceError(
            f"data file {shown(path)} has days before 1582-10-15 in column {name!r}, for which "
            "writers of ORC have two calendars; take --engine arrow"
        )
