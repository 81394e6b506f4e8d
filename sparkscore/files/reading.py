"""Reading Parquet files as the rows of a table: the table's types, its filter, no deleted rows.

Runs in Python workers. Memory is bounded by a batch, whatever the size of file or row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkscore.errors import DataError, SourceError, shown
from sparkscore.files.filesystem import Store, store_error, store_path
from sparkscore.files.formats import PARQUET, FileFormat
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import Bounds, Predicate, columns_in, evaluate, possible
from sparkscore.scoring.casts import Cast, find_cast

_MAX_READ_ROWS = 65_536
"""Decoding is flat in time per row from 8,000 rows on."""
_PROBED_ROWS = 128
"""With dictionaries of 1 MiB, as writers make them, this holds no more than 128 MiB a column."""
_PROBE_BUFFER_BYTES = 64 * 2**10
_FIXED_BYTES = {"INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
_FIELD_ID = b"PARQUET:field_id"
_OLD_CALENDAR_KEYS = (b"org.apache.spark.legacyDateTime", b"org.apache.spark.legacyINT96")


@dataclass(frozen=True)
class TableReading:
    """What a task reads of each file.

    Attributes:
        schema: The columns that are read, with the table's types; those of the filter among them.
        outputs: Names of the columns that are given on.
        physical: Names of the columns of `schema` in the files, or their Parquet field ids.
        where: Which rows; None: all.
        max_bytes: Size of a batch in memory, about.
        store: Where the files are; None: on this machine.
        format: How the files are written; `any_format` knows who reads it.
    """

    schema: pa.Schema
    outputs: tuple[str, ...]
    physical: Mapping[str, str | int]
    where: Predicate | None
    max_bytes: int
    store: Store | None = None
    format: FileFormat = PARQUET


def read_piece(piece: FilePiece, reading: TableReading) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the file's order, as record batches of `reading.outputs`.

    A column that the file lacks is null, as in a table whose schema has grown.

    Raises:
        SourceError: The file is gone or is no Parquet.
        DataError: A column of it is of a type that is not the table's.
        StoreUnavailableError: The store that it lies in does not answer.
    """
    try:
        with ExitStack() as opened:
            file, probe = _opened(piece.path, reading.store, opened)
            yield from _rows(file, probe, piece, reading)
    except (OSError, pa.ArrowInvalid) as exc:
        is_answer = isinstance(exc, FileNotFoundError | pa.ArrowInvalid)
        if reading.store is not None and not is_answer:
            path = store_path(reading.store, piece.path)
            raise store_error(path, "data file", SourceError, exc) from exc
        raise SourceError(
            f"data file {shown(piece.path)} cannot be read: {exc}; "
            "nothing was written; restore the file, or read an earlier version of the table"
        ) from exc


def _opened(
    path: str, store: Store | None, opened: ExitStack
) -> tuple[pq.ParquetFile, pq.ParquetFile]:
    """The file for its rows, and for a few of them; the two may be one.

    From a store, the chunks of all columns of a row group come with few requests, beside one
    another; what only looks at the first rows must not ask for them.
    """
    if store is None:
        file = pq.ParquetFile(
            path, coerce_int96_timestamp_unit="us", pre_buffer=False, memory_map=True
        )
        return opened.enter_context(file), file
    source = opened.enter_context(store.open_input(store.path_of(path)))
    file = pq.ParquetFile(source, coerce_int96_timestamp_unit="us", pre_buffer=True)
    probe = pq.ParquetFile(
        source,
        metadata=file.metadata,
        coerce_int96_timestamp_unit="us",
        pre_buffer=False,
        buffer_size=_PROBE_BUFFER_BYTES,
    )
    return file, probe


def _rows(
    file: pq.ParquetFile, probe: pq.ParquetFile, piece: FilePiece, reading: TableReading
) -> Iterator[pa.RecordBatch]:
    metadata, schema = file.metadata, file.schema_arrow
    _check_calendar(metadata, piece.path)
    found = {
        name: name_in(schema, physical, piece.path)
        for name, physical in reading.physical.items()
        if name not in piece.partition
    }
    n_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    starts = np.cumsum([0, *n_rows])
    columns = [name for name in found.values() if name is not None]
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if not piece.start <= _middle(group) < piece.end or group.num_rows == 0:
            continue
        if reading.where is not None and True not in possible(
            reading.where, _group_bounds(metadata, index, schema, found, reading)
        ):
            continue
        position = int(starts[index])
        for batch in file.iter_batches(
            _n_rows(probe, index, columns, reading.max_bytes),
            row_groups=[index],
            columns=columns,
            use_threads=False,
        ):
            rows = as_declared(batch, found, piece, reading)
            keep = _kept(rows, position, piece, reading)
            position += batch.num_rows
            rows = rows.select(reading.outputs)
            yield rows if keep is None else rows.filter(keep)


def _check_calendar(metadata: pq.FileMetaData, path: str) -> None:
    written = metadata.metadata or {}
    if any(key in written for key in _OLD_CALENDAR_KEYS):
        raise SourceError(
            f"data file {shown(path)} has dates of the calendar before 1582, as Spark 2 wrote "
            "them; take --engine arrow"
        )


def name_in(schema: pa.Schema, wanted: str | int, path: str) -> str | None:
    """What the file calls the column of this name or field id; None where it has none."""
    if isinstance(wanted, int):
        return _name_of_id(schema, wanted, path)
    return _name_of_name(schema, wanted, path)


def _name_of_id(schema: pa.Schema, field_id: int, path: str) -> str | None:
    ids = [(field.metadata or {}).get(_FIELD_ID) for field in schema]
    if not any(ids):
        raise DataError(
            f"data file {shown(path)} has no field ids, but the table finds its columns by them; "
            "rewrite the file"
        )
    wanted = str(field_id).encode()
    return schema.names[ids.index(wanted)] if wanted in ids else None


def _name_of_name(schema: pa.Schema, name: str, path: str) -> str | None:
    if name in schema.names:
        if schema.names.count(name) > 1:
            raise DataError(f"data file {shown(path)} has the column {name!r} twice; rewrite it")
        return name
    alike = [other for other in schema.names if other.casefold() == name.casefold()]
    if len(alike) > 1:
        raise DataError(f"data file {shown(path)} has columns {alike}; rename one of them")
    return alike[0] if alike else None


def _middle(group: pq.RowGroupMetaData) -> int:
    """Where the middle of a row group lies in the file; in exactly one piece of the file."""
    first = group.column(0)
    start = first.dictionary_page_offset or first.data_page_offset
    n_bytes = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
    return int(start + n_bytes // 2)


def _n_rows(file: pq.ParquetFile, index: int, columns: list[str], max_bytes: int) -> int:
    """Rows of a row group that are about `max_bytes` when decoded."""
    bytes_per_row = max(1, _decoded_bytes_per_row(file, index, columns))
    return max(1, min(_MAX_READ_ROWS, max_bytes // bytes_per_row))


def _decoded_bytes_per_row(file: pq.ParquetFile, index: int, columns: list[str]) -> int:
    """What a row of these columns takes in memory, about.

    Files keep repeated values once, so that their size says little of it. Numbers have a known
    width; how long repeated texts are, the first rows say.
    """
    group = file.metadata.row_group(index)
    wanted, n_bytes = set(columns), 0
    repeated: dict[str, int] = {}
    for i in range(group.num_columns):
        chunk = group.column(i)
        path = chunk.path_in_schema
        name = path if path in wanted else path.partition(".")[0]
        if name not in wanted:
            continue
        if chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page:
            repeated[name] = repeated.get(name, 0) + chunk.total_uncompressed_size
        else:
            width = _FIXED_BYTES.get(chunk.physical_type, 0)
            n_bytes += max(chunk.total_uncompressed_size, chunk.num_values * width)
    if not repeated:
        return int(n_bytes // group.num_rows)
    first = next(
        file.iter_batches(
            _PROBED_ROWS, row_groups=[index], columns=list(repeated), use_threads=False
        )
    )
    n_text_bytes = max(sum(repeated.values()), first.nbytes * group.num_rows // first.num_rows)
    return int((n_bytes + n_text_bytes) // group.num_rows)


def _group_bounds(
    metadata: pq.FileMetaData,
    index: int,
    schema: pa.Schema,
    found: Mapping[str, str | None],
    reading: TableReading,
) -> dict[str, Bounds]:
    """What the file says of the columns that the filter reads, where its types are the table's."""
    assert reading.where is not None
    wanted = {found.get(name): name for name in columns_in(reading.where)}
    bounds = {}
    group = metadata.row_group(index)
    for i in range(group.num_columns):
        column = group.column(i)
        name = wanted.get(column.path_in_schema)
        # A field b of a struct a has the path a.b, which may be a column's name as well.
        is_inside = metadata.schema.column(i).name != column.path_in_schema
        if name is None or is_inside or not column.is_stats_set:
            continue
        data_type = reading.schema.field(name).type
        if schema.field(column.path_in_schema).type != data_type or pa.types.is_floating(data_type):
            continue
        known = column.statistics
        n_nulls = known.null_count if known.has_null_count else None
        low, high = _extremes(known)
        bounds[name] = Bounds(
            low=low,
            high=high,
            may_be_null=n_nulls != 0,
            may_be_value=n_nulls is None or n_nulls != group.num_rows,
        )
    return bounds


def _extremes(known: pq.Statistics) -> tuple[object, object]:
    """The least and the greatest value; None where they are unknown, or no values of Python."""
    if not known.has_min_max:
        return None, None
    try:
        return known.min, known.max
    except (OverflowError, ValueError):
        return None, None  # A date outside of the years 1 to 9999.


def _kept(
    rows: pa.RecordBatch, position: int, piece: FilePiece, reading: TableReading
) -> pa.Array | None:
    """Which rows count: neither deleted nor filtered out; None: all of them."""
    keep = None if reading.where is None else evaluate(reading.where, rows)
    if piece.deleted is None:
        return keep
    end = position + rows.num_rows
    first, last = np.searchsorted(piece.deleted, [position, end])
    if first == last:
        return keep
    mask = np.ones(rows.num_rows, dtype=bool)
    mask[piece.deleted[first:last] - position] = False
    alive = pa.array(mask)
    return alive if keep is None else pc.and_kleene(keep, alive)


def as_declared(
    batch: pa.RecordBatch,
    found: Mapping[str, str | None],
    piece: FilePiece,
    reading: TableReading,
) -> pa.RecordBatch:
    """A file's batch with the columns and types of `reading.schema`.

    Args:
        batch: Columns as the file has them.
        found: Column to its name in the file; None: the file lacks it, and it is null.
        piece: Where the batch is from; tells the values of partition columns.
        reading: What is read.

    Raises:
        DataError: A column is of a type that is not the table's.
    """
    arrays = []
    for field in reading.schema:
        if field.name in piece.partition:
            value = pa.scalar(piece.partition[field.name], field.type)
            arrays.append(pa.repeat(value, batch.num_rows))
            continue
        name = found[field.name]
        if name is None:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            arrays.append(_converted(batch.column(name), field, piece.path))
    return pa.RecordBatch.from_arrays(arrays, schema=reading.schema)


def _converted(column: pa.Array, field: pa.Field, path: str) -> pa.Array:
    if column.type.equals(field.type):
        return column
    if not is_readable_as(column.type, field.type):
        raise DataError(
            f"data file {shown(path)} has column {field.name!r} as {column.type}, but the table's "
            f"is {field.type}; nothing was written; rewrite the file, or take --engine arrow"
        )
    return _cast(column, field.type)


def _cast(column: pa.Array, want: pa.DataType) -> pa.Array:
    """Values of a file as the table's type; fields that a struct of the file lacks are null."""
    if not (pa.types.is_struct(column.type) and pa.types.is_struct(want)):
        return column.cast(want)
    have = column.type
    fields = [
        pa.nulls(len(column), field.type)
        if have.get_field_index(field.name) < 0
        else _cast(column.field(field.name), field.type)
        for field in want
    ]
    # `field` leaves out the struct's own nulls, and the mask brings them back.
    mask = column.is_null() if column.null_count else None
    return pa.StructArray.from_arrays(fields, fields=list(want), mask=mask)


def is_readable_as(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether each value of a file's type has its equal in the table's."""
    types = pa.types
    if types.is_dictionary(have):
        return is_readable_as(have.value_type, want)
    if types.is_list(have) and types.is_list(want):
        return is_readable_as(have.value_type, want.value_type)
    if types.is_map(have) and types.is_map(want):
        return is_readable_as(have.key_type, want.key_type) and is_readable_as(
            have.item_type, want.item_type
        )
    if types.is_struct(have) and types.is_struct(want):
        return _is_struct_readable_as(have, want)
    return _is_scalar_readable_as(have, want)


def _is_scalar_readable_as(have: pa.DataType, want: pa.DataType) -> bool:
    types = pa.types
    if types.is_timestamp(have) and types.is_timestamp(want):
        # A naive INT96 or a naive column is an instant in UTC where the table says so.
        return have.unit in ("s", "ms", "us") and (have.tz is None or want.tz is not None)
    if types.is_unsigned_integer(have) and types.is_signed_integer(want):
        return bool(have.bit_width < want.bit_width)
    if types.is_decimal128(have) and types.is_decimal128(want):
        more_scale = want.scale - have.scale
        return bool(0 <= more_scale <= want.precision - have.precision)
    if types.is_binary(have) and types.is_string(want):
        return True  # A text that its writer did not mark as one.
    if types.is_decimal(have) or types.is_unsigned_integer(have):
        return bool(have.equals(want))  # Models may be given doubles of them; tables never are.
    return find_cast(have, want) in (Cast.EXACT, Cast.WIDENED)


def _is_struct_readable_as(have: pa.StructType, want: pa.StructType) -> bool:
    """Whether a file's struct has some of the table's fields, and the others may be null.

    Without a single field in common, Spark's answer depends on its version; that of names alike
    but for case, on the session.
    """
    names = [field.name for field in have]
    if len({name.casefold() for name in names}) < len(names):
        return False
    known = [field for field in want if field.name in names]
    missing = [field for field in want if field.name not in names]
    folded = {name.casefold() for name in names}
    return (
        bool(known)
        and all(field.nullable and field.name.casefold() not in folded for field in missing)
        and all(is_readable_as(have.field(field.name).type, field.type) for field in known)
    )
