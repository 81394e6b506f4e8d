from __future__ import annotations

from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import SourceError
from sparkscore.files.sample import open_local

N_ROWS = 150_000


def rows(start: int = 0, n_rows: int = N_ROWS) -> pa.Table:
    number = np.arange(start, start + n_rows)
    return pa.table({"n": number, "x": number / 7, "day": number % 2})


def test_all_rows_are_given_where_there_are_no_more(tmp_path: Path) -> None:
    pq.write_table(rows(n_rows=10), tmp_path / "rows.parquet")
    sample = open_local(str(tmp_path / "rows.parquet")).sample(["x", "n"], 10)
    assert sample == rows(n_rows=10).select(["x", "n"])


def test_rows_are_drawn_from_all_files_once_each_and_the_same_again(tmp_path: Path) -> None:
    for i in range(2):
        pq.write_table(rows(i * N_ROWS), tmp_path / f"part-{i}.parquet")
    table = open_local(tmp_path.as_uri())
    sample = table.sample(["n"], 1000)
    numbers = np.asarray(sample["n"])
    assert len(np.unique(numbers)) == 1000
    # Each thousandth of the rows is as likely: 3 of 10 tenths left out would be no accident.
    assert (np.histogram(numbers, 10, (0, 2 * N_ROWS))[0] > 60).all()
    assert table.sample(["n"], 1000) == sample


def test_rows_of_a_delta_table_are_those_of_the_version(tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path, rows(n_rows=6), partition_by=["day"])
    deltalake.write_deltalake(tmp_path, rows(start=6, n_rows=1), mode="append")
    newest = open_local(str(tmp_path))
    assert (newest.table.format, newest.table.version) == ("delta", "1")
    assert sorted(newest.sample(["day", "n"], 100)["n"].to_pylist()) == [0, 1, 2, 3, 4, 5, 6]
    older = open_local(str(tmp_path), 0).sample(["day", "n"], 100).to_pylist()
    assert sorted((row["n"], row["day"]) for row in older) == [(n, n % 2) for n in range(6)]


def test_version_of_plain_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(rows(n_rows=1), tmp_path / "rows.parquet")
    with pytest.raises(SourceError, match="has no version 3"):
        open_local(str(tmp_path), 3)


def test_folder_of_partitions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    pq.write_table(rows(n_rows=1), tmp_path / "day=1" / "rows.parquet")
    with pytest.raises(SourceError, match="partitions in its folders"):
        open_local(str(tmp_path))


@pytest.mark.parametrize("name", ["nothing", "text.parquet"])
def test_what_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(SourceError, match=r"is no Delta table|is no Parquet file"):
        open_local(str(tmp_path / name))


def test_table_of_another_machine_is_refused() -> None:
    with pytest.raises(SourceError, match="lies in s3"):
        open_local("s3://bucket/table")


def test_table_that_only_spark_reads_is_refused_by_the_reason(tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path / "plain", rows(n_rows=1))
    folder = (tmp_path / "plain").rename(tmp_path / "a%20b")
    with pytest.raises(SourceError, match="without Spark: the folder's name has"):
        open_local(str(folder))
