"""What the files engine reads is what Spark's own reader reads, cell by cell."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import DataError, EngineUnfitError, SourceError
from sparkscore.files.planning import plan_tasks
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.files_source import FilesSource, open_files
from sparkscore.spark.source import open_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N_ROWS = 300
WORDS = ["", "a", "A", "ü€😀", "a/b c=ü%", "null", " x ", "z" * 50, None]
DAYS = [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2013, 10, 1), dt.date(9999, 12, 31), None]
TIMES = [
    dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
    dt.datetime(1677, 9, 21, tzinfo=dt.UTC),
    dt.datetime(2013, 10, 1, 12, 30, 0, 123456, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
    None,
]
DOUBLES = [0.0, -0.0, 1.5, -1e300, 5e-324, float("nan"), float("inf"), float("-inf"), None]


def rows(seed: int) -> pa.Table:
    """Random rows of every type that a table commonly has, a third of them with nulls."""
    draw = random.Random(seed)
    longs = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, None]

    def column(values: list[object], data_type: pa.DataType) -> pa.Array:
        return pa.array([draw.choice(values) for _ in range(N_ROWS)], data_type)

    struct = pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])
    return pa.table(
        {
            "id": pa.array(range(N_ROWS), pa.int64()),
            "tiny": column([-128, 127, None], pa.int8()),
            "small": column([-(2**15), 7, None], pa.int16()),
            "whole": column([-(2**31), 5, None], pa.int32()),
            "long": column([*longs], pa.int64()),
            "single": column([1.5, float("nan"), None], pa.float32()),
            "x": column([*DOUBLES], pa.float64()),
            "flag": column([True, False, None], pa.bool_()),
            "word": column([*WORDS], pa.string()),
            "raw": column([b"", b"\x00\xff", None], pa.binary()),
            "day": column([*DAYS], pa.date32()),
            "at": column([*TIMES], pa.timestamp("us", "UTC")),
            "amount": column(
                [Decimal("-99999999.99"), Decimal("0.01"), None], pa.decimal128(10, 2)
            ),
            "big": column([Decimal(10) ** 37, None], pa.decimal128(38, 0)),
            "tags": column([[], ["a", None], None], pa.list_(pa.string())),
            "counts": column([[], [("k", 1), ("l", None)], None], pa.map_(pa.string(), pa.int64())),
            "nested": column([{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None], struct),
        }
    )


def save(spark: SparkSession, table: pa.Table, path: Path, *partitions: str) -> None:
    writer = spark.createDataFrame(table).repartition(3).write.format("delta").mode("append")
    writer.partitionBy(*partitions).save(str(path))


def by_files(source: FilesSource) -> list[dict[str, str]]:
    """All rows as the tasks of the files engine read them."""
    columns = [source.column(column.column.name) for column in source.columns]
    schema = pa.schema([pa.field(c.column.name, c.column.type) for c in columns])
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={c.column.name: c.in_files for c in columns},
        where=source.where,
        max_bytes=10_000,
    )
    tasks = plan_tasks(source.files, 2)
    batches = [b for task in tasks for piece in task for b in read_piece(piece, reading)]
    return comparable(pa.Table.from_batches(batches, schema))


def comparable(table: pa.Table) -> list[dict[str, str]]:
    """Rows by id, each value as text with its type, so that NaN equals NaN and 1 is not 1.0."""
    found = [{name: repr(value) for name, value in row.items()} for row in table.to_pylist()]
    return sorted(found, key=lambda row: int(row["id"]))


def assert_same(spark: SparkSession, path: Path, where: str | None = None) -> FilesSource:
    spec = SourceSpec(str(path), where=where)
    opened, source = open_source(spark, spec), open_files(spark, spec)
    assert source.table == opened.table
    expected = comparable(opened.frame.toArrow())
    assert by_files(source) == expected
    return source


@pytest.mark.parametrize(
    ("seed", "partitions"), [(1, ()), (2, ("day", "word", "flag")), (3, ("amount", "tiny"))]
)
def test_every_cell_is_that_of_spark(
    seed: int, partitions: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    save(spark, rows(seed), tmp_path, *partitions)
    assert_same(spark, tmp_path)


def test_column_that_came_later_is_null_in_older_files(spark: SparkSession, tmp_path: Path) -> None:
    table = rows(4)
    save(spark, table.select(["id", "x"]), tmp_path)
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` ADD COLUMNS (word STRING, day DATE)")
    save(spark, table.select(["id", "x", "word", "day"]), tmp_path)
    assert_same(spark, tmp_path)
    assert_same(spark, tmp_path, "word IS NULL AND id < 50")


def test_deleted_rows_are_gone(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, word STRING, x DOUBLE) USING delta "
        "PARTITIONED BY (word) TBLPROPERTIES ('delta.enableDeletionVectors'='true')"
    )
    save(spark, rows(5).select(["id", "word", "x"]), tmp_path, "word")
    spark.sql(f"DELETE FROM delta.`{tmp_path}` WHERE id % 7 = 0")
    source = assert_same(spark, tmp_path)
    assert any(file.deleted is not None for file in source.files)
    assert_same(spark, tmp_path, "id > 100 AND id < 200")


def test_deleted_rows_are_gone_behind_a_link_too(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "real table"
    spark.sql(
        f"CREATE TABLE delta.`{path}` (id BIGINT, x DOUBLE) USING delta "
        "TBLPROPERTIES ('delta.enableDeletionVectors'='true')"
    )
    save(spark, rows(11).select(["id", "x"]), path)
    spark.sql(f"DELETE FROM delta.`{path}` WHERE id < 10")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert_same(spark, link)


def test_columns_of_other_names_in_the_files_are_found(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, `odd name` STRING, x DOUBLE, day DATE) "
        "USING delta PARTITIONED BY (day) TBLPROPERTIES ('delta.columnMapping.mode'='name')"
    )
    table = (
        rows(6).select(["id", "word", "x", "day"]).rename_columns(["id", "odd name", "x", "day"])
    )
    save(spark, table, tmp_path, "day")
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` RENAME COLUMN x TO y")
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` ADD COLUMNS (x INT)")
    assert_same(spark, tmp_path)
    assert_same(spark, tmp_path, "`odd name` = 'A' OR day = '2013-10-01'")


def test_columns_are_found_by_their_field_ids(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, word STRING, x DOUBLE, day DATE) "
        "USING delta PARTITIONED BY (day) TBLPROPERTIES ('delta.columnMapping.mode'='id', "
        "'delta.enableDeletionVectors'='true')"
    )
    save(spark, rows(12).select(["id", "word", "x", "day"]), tmp_path, "day")
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` RENAME COLUMN x TO y")
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` DROP COLUMN word")
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` ADD COLUMNS (x INT, word BINARY)")
    spark.sql(f"DELETE FROM delta.`{tmp_path}` WHERE id % 5 = 0")
    source = assert_same(spark, tmp_path)
    assert [column.in_files for column in source.columns] == [1, 3, 4, 5, 6]
    assert_same(spark, tmp_path, "y > 0 AND day = '2013-10-01'")


def test_files_from_before_a_column_was_widened_are_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    old = ["id", "tiny", "small", "whole", "single", "amount", "nested", "day"]
    spark.createDataFrame(rows(13).select(old)).write.format("delta").option(
        "delta.enableTypeWidening", "true"
    ).option("delta.feature.timestampNtz", "supported").save(str(tmp_path))
    widened = {
        "tiny": "INT", "small": "DOUBLE", "whole": "BIGINT", "single": "DOUBLE",
        "amount": "DECIMAL(14,4)", "nested.a": "BIGINT",
        "day": "TIMESTAMP_NTZ",
    }  # fmt: skip
    for name, wider in widened.items():
        spark.sql(f"ALTER TABLE delta.`{tmp_path}` ALTER COLUMN {name} TYPE {wider}")
    assert_same(spark, tmp_path)
    assert_same(spark, tmp_path, "whole = 5 OR tiny > 100")


def test_a_widening_that_only_spark_reads_is_named(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, whole INT) USING delta "
        "TBLPROPERTIES ('delta.enableTypeWidening'='true')"
    )
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` ALTER COLUMN whole TYPE DECIMAL(12,2)")
    source = open_files(spark, SourceSpec(str(tmp_path)))
    with pytest.raises(EngineUnfitError, match=r"'whole' was widened from integer to decimal"):
        source.column("whole")


def test_field_that_came_later_into_a_struct_is_null(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, rows(14).select(["id", "nested"]), tmp_path)
    spark.sql(f"ALTER TABLE delta.`{tmp_path}` ADD COLUMNS (nested.c DOUBLE FIRST)")
    assert_same(spark, tmp_path)


def test_a_truncated_deletion_vector_is_named(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, x DOUBLE) USING delta "
        "TBLPROPERTIES ('delta.enableDeletionVectors'='true')"
    )
    save(spark, rows(15).select(["id", "x"]), tmp_path)
    spark.sql(f"DELETE FROM delta.`{tmp_path}` WHERE id % 7 = 0")
    for vector in tmp_path.rglob("deletion_vector_*.bin"):
        vector.write_bytes(vector.read_bytes()[:10])
    with pytest.raises(SourceError, match=r"deletion vectors.*cannot be read.*restore"):
        open_files(spark, SourceSpec(str(tmp_path)))


def test_parquet_files_of_another_writer_are_read_alike(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = rows(7).drop_columns(["single"])
    odd = table.set_column(1, "tiny", table["tiny"].cast(pa.int8()).dictionary_encode())
    for i, part in enumerate([odd.slice(0, 100), odd.slice(100)]):
        pq.write_table(part, tmp_path / f"{i}.parquet", row_group_size=30)
    assert_same(spark, tmp_path)
    assert_same(spark, tmp_path, "x > 1")


def test_parquet_files_in_folders_of_partitions_are_left_to_spark(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "table" / "k=1").mkdir(parents=True)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "table" / "k=1" / "0.parquet")
    with pytest.raises(EngineUnfitError, match=r"partitions in its folders.*k=1"):
        open_files(spark, SourceSpec(str(tmp_path / "table")))
    assert_same(spark, tmp_path / "table" / "k=1")


@pytest.mark.parametrize(
    ("partitions", "where"), [((), "day > DATE '2013-10-01'"), (("day",), None)]
)
def test_dates_that_python_lacks_are_left_to_spark(
    partitions: tuple[str, ...], where: str | None, spark: SparkSession, tmp_path: Path
) -> None:
    frame = spark.sql("SELECT CAST(1 AS BIGINT) AS id, DATE '+12345-01-01' AS day")
    frame.write.format("delta").partitionBy(*partitions).save(str(tmp_path))
    with pytest.raises(EngineUnfitError, match="years 1 to 9999"):
        open_files(spark, SourceSpec(str(tmp_path), where=where))


def test_partitions_from_before_a_widening_are_read(spark: SparkSession, tmp_path: Path) -> None:
    partition_widened(spark, tmp_path, "5", "INT", "BIGINT")
    assert_same(spark, tmp_path)
    assert_same(spark, tmp_path, "part = 5")


@pytest.mark.parametrize(
    ("value", "before", "after"),
    [
        ("5", "INT", "DECIMAL(12,2)"),
        ("0.01", "DECIMAL(12,2)", "DECIMAL(38,18)"),
        ("DATE '2013-10-01'", "DATE", "TIMESTAMP_NTZ"),
    ],
)
@pytest.mark.parametrize("version", [None, 2])
def test_partitions_whose_text_is_of_another_type_are_left_to_spark(
    value: str, before: str, after: str, version: int | None, spark: SparkSession, tmp_path: Path
) -> None:
    partition_widened(spark, tmp_path, value, before, after)
    with pytest.raises(EngineUnfitError, match="log of the source cannot be read here"):
        open_files(spark, SourceSpec(str(tmp_path), version=version))


def partition_widened(spark: SparkSession, path: Path, value: str, before: str, after: str) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{path}` (id BIGINT, part {before}) USING delta PARTITIONED BY (part) "
        "TBLPROPERTIES ('delta.enableTypeWidening'='true', "
        "'delta.feature.timestampNtz'='supported')"
    )
    spark.sql(f"INSERT INTO delta.`{path}` VALUES (1, {value}), (2, NULL)")
    spark.sql(f"ALTER TABLE delta.`{path}` ALTER COLUMN part TYPE {after}")


FILTERS = [
    "id >= 10 AND id < 20", "long = 9223372036854775807", "long != 1", "NOT (long <= 0)", "x > 0",
    "x >= 1.5", "NOT x > 0", "x = 1.5", "x != 1.5", "x < 0", "NOT (x = 0)", "x BETWEEN -1 AND 1.5",
    "word = 'A'", "word > 'a'", "word <> ''", "word IN ('a', ' x ', 'ü€😀')", "WORD NOT IN ('a')",
    "NOT (word = 'a' AND x > 0)", "word IS NULL OR x IS NOT NULL", "flag", "NOT flag",
    "flag = FALSE", "day = DATE '2013-10-01'", "day < '1970-01-01'",
    "day NOT BETWEEN '1969-12-31' AND '2013-10-01'", "at = TIMESTAMP '2013-10-01 12:30:00.123456Z'",
    "at > '1677-09-21 00:00:00+00:00'", "5 <= whole", "tiny = 127 OR small = 7", "tiny < 1000",
    "1 = 0", "TRUE", "`id` = 7", "(id = 1 OR (id = 2 AND flag)) OR id == 3",
]  # fmt: skip


@pytest.fixture(scope="module")
def filtered(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filtered")
    save(spark, rows(8).drop_columns(["counts"]), path, "tiny")
    return path


@pytest.mark.parametrize("where", FILTERS)
def test_filter_selects_the_rows_that_spark_selects(
    where: str, filtered: Path, spark: SparkSession
) -> None:
    source = open_files(spark, SourceSpec(str(filtered), where=where))
    frame = spark.read.format("delta").load(str(filtered)).where(where).select("id")
    expected = sorted(row["id"] for row in frame.collect())
    assert [int(str(row["id"])) for row in by_files(source)] == expected


@pytest.mark.parametrize(
    "where",
    [
        "abs(id) = 1", "id + 1 = 2", "id = x", "single > 1", "word LIKE 'a%'", "word = 5",
        "id = '5'", "amount > 1", "id <=> 5", "x > 1e3", "nested.a = 1", "word = 'a''b'",
        r"word = 'a\'b'", "day = '2013-10-1'", "at > '2013-10-01'", "nothing = 1", "id = 1 --",
        "id IN (1, NULL)", "id IN (SELECT 1)", "day = current_date", "id = 5L", "id >", "(id = 1",
        'word = "a"', "NOT", "id NOT = 5", "id = 1 id = 2",
    ],
)  # fmt: skip
def test_filter_of_more_than_the_known_part_is_left_to_spark(
    where: str, filtered: Path, spark: SparkSession
) -> None:
    with pytest.raises(EngineUnfitError, match="filter"):
        open_files(spark, SourceSpec(str(filtered), where=where))


def test_filter_leaves_files_and_partitions_unopened(filtered: Path, spark: SparkSession) -> None:
    everything = open_files(spark, SourceSpec(str(filtered)))
    one = open_files(spark, SourceSpec(str(filtered), where="tiny = 127"))
    assert {file.partition["tiny"] for file in one.files} == {127}
    assert len(one.files) < len(everything.files)
    assert open_files(spark, SourceSpec(str(filtered), where="id > 1000")).files == ()


def test_older_version_is_read_as_it_was(spark: SparkSession, tmp_path: Path) -> None:
    for i in range(3):
        save(spark, rows(9).slice(i, 1).select(["id", "x"]), tmp_path)
    source = open_files(spark, SourceSpec(str(tmp_path), version=1))
    assert source.table == open_source(spark, SourceSpec(str(tmp_path), version=1)).table
    assert [row["id"] for row in by_files(source)] == ["0", "1"]


def test_version_that_is_not_there_is_an_error_of_the_source(
    spark: SparkSession, filtered: Path
) -> None:
    with pytest.raises(SourceError, match="version 7"):
        open_files(spark, SourceSpec(str(filtered), version=7))


def test_table_of_the_catalog_is_left_to_spark(spark: SparkSession) -> None:
    name = f"source_{uuid.uuid4().hex}"
    spark.sql(f"CREATE TABLE {name} (id BIGINT) USING delta")
    try:
        with pytest.raises(EngineUnfitError, match="table of the catalog"):
            open_files(spark, SourceSpec(name))
    finally:
        spark.sql(f"DROP TABLE {name}")


def test_widened_table_with_deletion_vectors_is_left_to_spark(
    spark: SparkSession, tmp_path: Path
) -> None:
    spark.sql(
        f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, x INT) USING delta "
        "TBLPROPERTIES ('delta.enableTypeWidening'='true', 'delta.enableDeletionVectors'='true')"
    )
    with pytest.raises(EngineUnfitError, match="typeWidening"):
        open_files(spark, SourceSpec(str(tmp_path)))


def test_column_that_spark_pads_is_left_to_spark(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(f"CREATE TABLE delta.`{tmp_path}` (id BIGINT, code CHAR(4)) USING delta")
    with pytest.raises(EngineUnfitError, match=r"'code' is char\(4\)"):
        open_files(spark, SourceSpec(str(tmp_path))).column("code")


def test_file_that_is_gone_is_named(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, rows(10).select(["id", "x"]), tmp_path)
    source = open_files(spark, SourceSpec(str(tmp_path)))
    Path(source.files[0].path).unlink()
    with pytest.raises(SourceError, match=r"part-.*\.parquet"):
        by_files(source)


def test_file_whose_type_is_not_the_tables_is_named(spark: SparkSession, tmp_path: Path) -> None:
    save(spark, rows(10).select(["id", "x"]), tmp_path)
    source = open_files(spark, SourceSpec(str(tmp_path)))
    pq.write_table(pa.table({"id": [1], "x": ["text"]}), source.files[0].path)
    with pytest.raises(DataError, match="column 'x' as string, but the table's is double"):
        by_files(source)
