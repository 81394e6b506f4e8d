"""What is read of a Parquet file, sound or not, under the schema that its table has by now."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import DataError, SourceError
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import Compare, Predicate
from sparkscore.files.reading import TableReading, is_readable_as, read_piece

MAX_BYTES = 1 << 20


def read(path: Path, schema: pa.Schema, where: Predicate | None = None) -> list[dict[str, object]]:
    return [row for batch in batches_of(path, schema, where) for row in batch.to_pylist()]


def batches_of(
    path: Path, schema: pa.Schema, where: Predicate | None = None
) -> list[pa.RecordBatch]:
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={name: name for name in schema.names},
        where=where,
        max_bytes=MAX_BYTES,
    )
    piece = FilePiece(path=str(path), start=0, end=1 << 62, partition={}, deleted=None)
    return list(read_piece(piece, reading))


def saved(path: Path, values: list[object], data_type: pa.DataType) -> Path:
    pq.write_table(pa.table({"s": pa.array(values, data_type)}), path)
    return path


def struct_schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema([("s", pa.struct(fields))])


OLD = pa.struct([("a", pa.int32()), ("b", pa.string())])
OLD_ROWS: list[object] = [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]


def test_a_field_that_the_file_lacks_in_a_struct_is_null(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.parquet", OLD_ROWS, OLD)
    schema = struct_schema(
        pa.field("a", pa.int32()), pa.field("b", pa.string()), pa.field("c", pa.float64())
    )
    assert read(path, schema) == [
        {"s": {"a": 1, "b": "x", "c": None}},
        {"s": None},
        {"s": {"a": None, "b": "y", "c": None}},
    ]


def test_fields_of_a_struct_are_found_by_name_widened_and_dropped(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.parquet", OLD_ROWS, OLD)
    schema = struct_schema(pa.field("new", pa.int8()), pa.field("a", pa.int64()))
    assert read(path, schema) == [
        {"s": {"new": None, "a": 1}},
        {"s": None},
        {"s": {"new": None, "a": None}},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([pa.field("c", pa.int32())], id="none-in-common"),
        pytest.param([pa.field("A", pa.int32()), pa.field("b", pa.string())], id="other-case"),
        pytest.param(
            [pa.field("a", pa.int32()), pa.field("c", pa.int32(), nullable=False)], id="required"
        ),
        pytest.param([pa.field("a", pa.int8())], id="narrower"),
    ],
)
def test_a_struct_whose_values_would_be_guessed_is_refused(
    fields: list[pa.Field], tmp_path: Path
) -> None:
    path = saved(tmp_path / "f.parquet", OLD_ROWS, OLD)
    with pytest.raises(DataError, match=r"f\.parquet.*column 's' as struct.*--engine arrow"):
        read(path, struct_schema(*fields))


def test_a_column_of_another_type_than_the_tables_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.parquet", ["1", "2"], pa.string())
    with pytest.raises(DataError, match=r"f\.parquet.*column 's' as string.*is int64"):
        read(path, pa.schema([("s", pa.int64())]))


def test_a_vanished_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.parquet.*restore the file"):
        read(tmp_path / "gone.parquet", pa.schema([("s", pa.int64())]))


@pytest.mark.parametrize("kept", [0, 3, 4, 0.5, 0.9])
def test_a_truncated_file_is_named(kept: float, tmp_path: Path) -> None:
    path = saved(tmp_path / "f.parquet", list(range(1000)), pa.int64())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(SourceError, match=r"(?s)f\.parquet.*restore the file"):
        read(path, pa.schema([("s", pa.int64())]))


def test_a_file_with_a_broken_page_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.parquet", list(range(1000)), pa.int64())
    data = bytearray(path.read_bytes())
    data[4:64] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"(?s)f\.parquet.*restore the file"):
        read(path, pa.schema([("s", pa.int64())]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["x" * 10_000] * 2000),
        pa.array([f"{i:01000}" for i in range(6000)]),
        pa.array([["x" * 5_000, "y"]] * 2000),
        pa.array([list(range(100))] * 4000, pa.list_(pa.int64())),
    ],
    ids=["text", "different", "texts", "longs"],
)
def test_repeated_values_count_as_what_they_are_in_memory(column: pa.Array, tmp_path: Path) -> None:
    table = pa.table({"s": column})
    pq.write_table(table, tmp_path / "f.parquet")
    batches = batches_of(tmp_path / "f.parquet", table.schema)
    assert pa.Table.from_batches(batches).equals(table)
    assert MAX_BYTES * 0.9 <= max(batch.nbytes for batch in batches) <= MAX_BYTES * 1.1


def test_columns_that_are_not_read_make_no_batch_smaller(tmp_path: Path) -> None:
    rows = pa.table({"s": range(2000), "t": [str(i) * 2000 for i in range(2000)]})
    pq.write_table(rows, tmp_path / "f.parquet")
    batches = batches_of(tmp_path / "f.parquet", pa.schema([("s", pa.int64())]))
    assert [batch.num_rows for batch in batches] == [2000]


def test_a_field_is_not_taken_for_the_column_of_the_same_path(tmp_path: Path) -> None:
    table = pa.table({"a.b": [7], "a": [{"b": 1}]})
    pq.write_table(table, tmp_path / "f.parquet")
    schema = pa.schema([("a.b", pa.int64())])
    assert read(tmp_path / "f.parquet", schema, Compare("a.b", ">", 5)) == [{"a.b": 7}]


@pytest.mark.parametrize("data_type", [pa.date32(), pa.timestamp("us", "UTC")], ids=str)
def test_dates_beyond_pythons_do_not_hinder_a_filter(
    data_type: pa.DataType, tmp_path: Path
) -> None:
    storage = pa.int32() if data_type == pa.date32() else pa.int64()
    far = pa.array([1, 2**storage.bit_width // 4], storage).cast(data_type)
    pq.write_table(pa.table({"day": far, "n": [1, 2]}), tmp_path / "f.parquet")
    reading = TableReading(
        schema=pa.schema([("day", data_type), ("n", pa.int64())]),
        outputs=("n",),
        physical={"day": "day", "n": "n"},
        where=Compare("day", ">", far[0].as_py()),
        max_bytes=MAX_BYTES,
    )
    piece = FilePiece(str(tmp_path / "f.parquet"), 0, 1 << 62)
    assert [batch.to_pylist() for batch in read_piece(piece, reading)] == [[{"n": 2}]]


@pytest.mark.parametrize("have", [pa.decimal128(10, 2), pa.uint8()], ids=str)
def test_file_of_a_type_that_only_models_are_given_is_no_double_of_a_table(
    have: pa.DataType,
) -> None:
    assert not is_readable_as(have, pa.float64())
    assert is_readable_as(have, have)
