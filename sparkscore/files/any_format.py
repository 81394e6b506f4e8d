"""Reading a piece of a data file, whatever format it is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from sparkscore.files.csv_reading import read_csv
from sparkscore.files.json_reading import is_readable_json, read_json
from sparkscore.files.orc_reading import is_readable_orc, read_orc
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import evaluate
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.files.text_values import is_readable_text

_READERS: Mapping[str, Callable[[FilePiece, TableReading], Iterator[pa.RecordBatch]]] = {
    "csv": read_csv,
    "json": read_json,
    "orc": read_orc,
}
_READABLE: Mapping[str, Callable[[pa.DataType], bool]] = {
    "csv": is_readable_text,
    "json": is_readable_json,
    "orc": is_readable_orc,
}


def read_any_piece(piece: FilePiece, reading: TableReading) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the file's order, as record batches of `reading.outputs`.

    Raises:
        SourceError: The file is gone or damaged, or holds what engines read in different ways.
        DataError: A column of it is of a type that is not the source's.
    """
    read = _READERS.get(reading.format.name)
    if read is None:
        yield from read_piece(piece, reading)
        return
    for rows in read(piece, reading):
        keep = None if reading.where is None else evaluate(reading.where, rows)
        wanted = rows.select(reading.outputs)
        yield wanted if keep is None else wanted.filter(keep)


def is_readable(name: str, data_type: pa.DataType) -> bool:
    """Whether files of a format besides Parquet have their values of a type read alike here."""
    return _READABLE[name](data_type)
