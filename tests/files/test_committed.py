"""What is published of a batch is read out of its commit: all of its rows, and no others."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sparkscore.errors import OutletError
from sparkscore.files.committed import committed_rows
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.engine import RunFacts
from sparkscore.testing.sink_contract import Attempt, attempt, write_files

LATER = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
ROWS = ((1, 1, 0.5), (2, 1, 1.5), (3, 2, 2.5))


def read_back(target: Path, version: int, one: Attempt) -> list[tuple[int, int, float]]:
    schema = one.table_write.schema
    batches = list(committed_rows(target, version, schema))
    assert all(batch.schema.equals(schema) for batch in batches)
    rows = pa.Table.from_batches(batches, schema).sort_by("id").to_pylist()
    assert all(row["run_id"] == one.run_id for row in rows)
    return [(row["id"], row["day"], row["prediction"]) for row in rows]


@pytest.mark.parametrize("partition_by", [(), ("day",)])
def test_the_rows_of_a_commit_are_those_of_its_run(
    partition_by: tuple[str, ...], tmp_path: Path
) -> None:
    first = attempt(tmp_path / "t", *ROWS, partition_by=partition_by)
    second = attempt(tmp_path / "t", (4, 1, 9.0), run_id="second", run_key="k2")
    for one in (first, second):
        write_files(one, FilesSink(str(tmp_path / "t")))
    assert read_back(tmp_path / "t", 0, first) == list(ROWS)
    assert read_back(tmp_path / "t", 1, second) == [(4, 1, 9.0)]


class Later(Attempt):
    """An attempt of the same process, at another batch."""

    @property
    def facts(self) -> RunFacts:
        return RunFacts(self.run_id, LATER)

    @property
    def scores(self) -> pa.Table:
        rows = super().scores
        times = pa.array([LATER] * rows.num_rows, rows.schema.field("scored_at").type)
        return rows.set_column(rows.column_names.index("scored_at"), "scored_at", times)


@pytest.mark.parametrize(("kind", "run_id"), [(Attempt, "second"), (Later, "first")])
def test_rows_that_a_commit_wrote_again_are_none_of_its_run(
    kind: type[Attempt], run_id: str, tmp_path: Path
) -> None:
    first = attempt(tmp_path / "t", *ROWS)
    asked = attempt(tmp_path / "t", run_key="k2", replace_where="id = 2").request
    cut = kind(asked, run_id, ((2, 1, 7.0),))
    for one in (first, cut):
        write_files(one, FilesSink(str(tmp_path / "t")))
    assert DeltaTable(tmp_path / "t").to_pyarrow_table().num_rows == 3
    assert read_back(tmp_path / "t", 1, cut) == [(2, 1, 7.0)]


def test_a_commit_without_rows_has_none(tmp_path: Path) -> None:
    one = attempt(tmp_path / "t")
    write_files(one, FilesSink(str(tmp_path / "t")))
    assert read_back(tmp_path / "t", 0, one) == []


def test_rows_whose_file_was_removed_are_named(tmp_path: Path) -> None:
    one = attempt(tmp_path / "t", *ROWS)
    write_files(one, FilesSink(str(tmp_path / "t")))
    for path in (tmp_path / "t").glob("*.parquet"):
        path.unlink()
    with pytest.raises(OutletError, match=r"version 0 .* cannot be read back"):
        read_back(tmp_path / "t", 0, one)
    with pytest.raises(OutletError, match=r"version 5 .* cannot be read back"):
        read_back(tmp_path / "t", 5, one)
