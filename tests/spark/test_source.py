from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import SourceError
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.source import OpenedSource, open_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "the day": pa.array([1] * len(ids))})


def delta(folder: Path, *versions: pa.Table) -> Path:
    """A Delta table that grew by each of `versions`."""
    for version in versions:
        deltalake.write_deltalake(folder, version, mode="append")
    return folder


def plain(*ids: int) -> pa.Table:
    return rows(*ids).select(["id"])


def ids(opened: OpenedSource) -> list[int]:
    return sorted(row["id"] for row in opened.frame.select("id").collect())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return delta(tmp_path / "table", plain(1), plain(2))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of Parquet files."""
    (tmp_path / "files" / "day=1").mkdir(parents=True)
    pq.write_table(plain(1, 2), tmp_path / "files" / "day=1" / "a.parquet")
    return tmp_path / "files"


def test_newest_version_is_pinned_while_the_table_grows(spark: SparkSession, table: Path) -> None:
    opened = open_source(spark, SourceSpec(str(table)))
    delta(table, plain(3))
    assert (opened.table.format, opened.table.version) == ("delta", "1")
    assert ids(opened) == [1, 2]


def test_asked_version_is_read(spark: SparkSession, table: Path) -> None:
    opened = open_source(spark, SourceSpec(str(table), version=0))
    assert opened.table.version == "0"
    assert ids(opened) == [1]


def test_table_of_the_catalog_is_pinned_by_its_name(spark: SparkSession, table: Path) -> None:
    name = f"source_{uuid.uuid4().hex}"
    spark.sql(f"CREATE TABLE {name} USING delta LOCATION '{table}'")
    try:
        newest = open_source(spark, SourceSpec(name))
        oldest = open_source(spark, SourceSpec(f"default.{name}", version=0))
        delta(table, plain(3))
        assert (newest.table.uri, newest.table.version) == (name, "1")
        assert ids(newest) == [1, 2]
        assert ids(oldest) == [1]
    finally:
        spark.sql(f"DROP TABLE {name}")


def test_table_that_is_made_anew_at_the_same_place_is_another(
    spark: SparkSession, tmp_path: Path
) -> None:
    spec = SourceSpec(str(delta(tmp_path / "table", plain(1))))
    before = open_source(spark, spec).table
    (tmp_path / "table").rename(tmp_path / "old")
    delta(tmp_path / "table", plain(2))
    after = open_source(spark, spec).table
    assert (before.uri, before.version) == (after.uri, after.version)
    assert before.table_id != after.table_id


def test_relative_path_and_absolute_path_are_the_same_source(
    spark: SparkSession, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    uris = {open_source(spark, SourceSpec(uri)).table.uri for uri in ("table", "./table")}
    assert uris == {str(table)}


def test_filter_selects_rows_and_is_part_of_the_source(spark: SparkSession, table: Path) -> None:
    opened = open_source(spark, SourceSpec(str(table), where="id > 1"))
    assert opened.table.where == "id > 1"
    assert ids(opened) == [2]


def test_columns_have_their_arrow_types(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    pq.write_table(rows(1), tmp_path / "files" / "a.parquet")
    opened = open_source(spark, SourceSpec(str(tmp_path / "files")))
    assert [(c.name, c.type) for c in opened.table.columns] == [
        ("id", pa.int64()),
        ("the day", pa.int64()),
    ]


def test_folder_of_parquet_files_is_read_with_its_partitions(
    spark: SparkSession, files: Path
) -> None:
    opened = open_source(spark, SourceSpec(str(files)))
    assert opened.table.format == "parquet"
    assert [column.name for column in opened.table.columns] == ["id", "day"]
    assert ids(opened) == [1, 2]


def test_parquet_files_that_change_are_another_version(spark: SparkSession, files: Path) -> None:
    spec = SourceSpec(str(files))
    versions = {open_source(spark, spec).table.version, open_source(spark, spec).table.version}
    pq.write_table(plain(3), files / "day=1" / "b.parquet")
    versions.add(open_source(spark, spec).table.version)
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SourceSpec("{here}/nothing"), "nothing is there"),
        (SourceSpec("{here}/files", format="delta"), "is no Delta table"),
        (SourceSpec("no_such_schema.flights"), "no .* of the catalog"),
        (SourceSpec("flights; DROP TABLE x"), "nothing is there"),
        (SourceSpec("{here}/table", version=9), "9"),
        (SourceSpec("{here}/table", version=-1), "-1"),
        (SourceSpec("{here}/files", version=1), "Parquet has no versions"),
        (SourceSpec("{here}/table", where="id >"), "id >"),
        (SourceSpec("{here}/table", where="idd > 1"), "idd"),
        (SourceSpec("{here}/table", where="id"), "BOOLEAN"),
        (SourceSpec("{here}/table", where="sum(id) > 1"), "sum"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_source_that_cannot_be_read_is_refused_with_the_reason(
    spec: SourceSpec, message: str, spark: SparkSession, table: Path, files: Path
) -> None:
    assert files.parent == table.parent
    here = SourceSpec(spec.uri.format(here=table.parent), spec.format, spec.version, spec.where)
    with pytest.raises(SourceError, match=message):
        open_source(spark, here)
