"""What is new in a source, as each engine opens it; nothing is scored here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore.errors import DataError, EngineUnfitError, SourceChangesError, SourceError
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.incremental import Deletes, Mark, SinceLast
from sparkscore.spark.changes import open_changes
from sparkscore.spark.files_source import open_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.spark.source import OpenedSource

ENGINES = ("files", "arrow")


@dataclass(frozen=True)
class Source:
    """A Delta table in a folder, and what is new in it."""

    spark: SparkSession
    path: Path

    def append(self, *ids: int, part: str = "a b") -> None:
        columns = {"id": pa.array(ids, pa.int64()), "part": [part] * len(ids)}
        write_deltalake(self.path, pa.table(columns), mode="append", partition_by=["part"])

    def sql(self, statement: str) -> None:
        self.spark.sql(statement.replace("SOURCE", f"delta.`{self.path}`"))

    def mark(self, version: int | None = None, where: str = "") -> Mark:
        table = DeltaTable(self.path, version=version)
        return Mark(str(table.metadata().id), table.version(), where)

    def since(
        self,
        mark: Mark,
        where: str | None = None,
        deletes: Deletes = Deletes.IGNORE,
        keys: tuple[str, ...] = ("id",),
    ) -> SourceSpec:
        return SourceSpec(str(self.path), where=where, since=SinceLast(mark, deletes, keys))

    def by_spark(self, spec: SourceSpec) -> OpenedSource:
        assert spec.since is not None
        return open_changes(self.spark, spec, spec.since)

    def new_ids(self, engine: str, spec: SourceSpec) -> list[int]:
        """What an engine would read, before its filter goes over the rows."""
        if engine == "arrow":
            opened = self.by_spark(spec)
            ids = [row["id"] for row in opened.frame.collect()]
        else:
            files = open_files(self.spark, spec)
            read = [pq.ParquetFile(file.path).read(["id"]) for file in files.files]
            ids = [i for table in read for i in table["id"].to_pylist()]
            assert files.nothing_new is (not ids)
            return sorted(ids)
        assert opened.nothing_new is (not ids)
        return sorted(ids)


@pytest.fixture
def source(spark: SparkSession, tmp_path: Path) -> Source:
    return Source(spark, tmp_path / "source")


@pytest.fixture
def fed(source: Source) -> Source:
    """A source with a change data feed and three rows, whose x is the half of their id."""
    source.sql(
        "CREATE TABLE SOURCE (id BIGINT, x DOUBLE) USING delta "
        "TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    )
    source.sql("INSERT INTO SOURCE VALUES (1, 0.5), (2, 1.0), (3, 1.5)")
    return source


Refusal = Callable[[str, SourceSpec], str]


@pytest.fixture
def refusal(source: Source) -> Refusal:
    """What an engine says of changes that cannot be told."""

    def refusal(engine: str, spec: SourceSpec) -> str:
        with pytest.raises(SourceChangesError) as refused:
            source.new_ids(engine, spec)
        return str(refused.value)

    return refusal


@pytest.mark.parametrize("engine", ENGINES)
def test_appended_files_are_new_and_optimized_ones_are_not(engine: str, source: Source) -> None:
    source.append(1, 2)
    first = source.mark()
    assert source.new_ids(engine, source.since(first)) == []
    source.append(3, part="50%")
    source.append(4, part="ü=/")
    source.append(5, part="50%")
    assert source.new_ids(engine, source.since(first)) == [3, 4, 5]
    before = source.mark()
    source.sql("OPTIMIZE SOURCE")
    assert source.mark().version > before.version
    assert source.new_ids(engine, source.since(first)) == [3, 4, 5]
    assert source.new_ids(engine, source.since(before)) == []


def test_the_filter_goes_for_new_rows_too(source: Source) -> None:
    source.append(1)
    mark = source.mark(where="part = 'new'")
    source.append(2, part="old")
    source.append(3, part="new")
    spec = source.since(mark, where="part = 'new'")
    assert [source.new_ids(engine, spec) for engine in ENGINES] == [[3], [3]]


@pytest.mark.parametrize("engine", ENGINES)
def test_rewritten_files_without_a_feed_are_refused(
    engine: str, source: Source, refusal: Refusal
) -> None:
    source.append(1, 2)
    mark = source.mark()
    source.sql("UPDATE SOURCE SET part = 'c' WHERE id = 1")
    message = refusal(engine, source.since(mark))
    assert "version 1 (UPDATE) changed rows" in message
    assert "without --since-last" in message
    assert "delta.enableChangeDataFeed=true" in message
    source.append(3)
    assert source.new_ids(engine, source.since(source.mark(1))) == [3]


@pytest.mark.parametrize("engine", ENGINES)
def test_deletes_of_whole_files_follow_the_rule(
    engine: str, source: Source, refusal: Refusal
) -> None:
    source.append(1, part="old")
    mark = source.mark()
    source.append(2, part="old")
    source.append(3, part="new")
    DeltaTable(source.path).delete("part = 'old'")
    assert source.new_ids(engine, source.since(mark)) == [3]
    assert "change data feed was off" in refusal(
        engine, source.since(mark, deletes=Deletes.TOMBSTONE)
    )
    with pytest.raises(DataError, match="fails on deletes"):
        source.new_ids(engine, source.since(mark, deletes=Deletes.FAIL))


def test_changed_rows_are_read_as_they_are_now(fed: Source) -> None:
    mark = fed.mark()
    fed.sql("INSERT INTO SOURCE VALUES (4, 2.0), (5, 2.5)")
    fed.sql("UPDATE SOURCE SET x = x * 10 WHERE id IN (1, 4)")
    fed.sql("DELETE FROM SOURCE WHERE id IN (2, 5)")
    opened = fed.by_spark(fed.since(mark, deletes=Deletes.TOMBSTONE))
    assert sorted(map(tuple, opened.frame.collect())) == [(1, 5.0), (4, 20.0)]
    assert opened.gone is not None
    assert sorted(row["id"] for row in opened.gone.collect()) == [2, 5]
    with pytest.raises(EngineUnfitError, match=r"version 3 \(UPDATE\).* only Spark"):
        open_files(fed.spark, fed.since(mark))
    with pytest.raises(DataError, match="version 4 deleted rows"):
        fed.by_spark(fed.since(mark, deletes=Deletes.FAIL))


def test_changed_rows_of_columns_with_odd_names_are_read(source: Source) -> None:
    source.sql(
        'CREATE TABLE SOURCE (`a.b` BIGINT, `the "x` DOUBLE) USING delta TBLPROPERTIES '
        "(delta.enableChangeDataFeed = true, delta.columnMapping.mode = 'name')"
    )
    source.sql("INSERT INTO SOURCE VALUES (1, 0.5), (2, 1.0), (3, 1.5)")
    mark = source.mark()
    source.sql("INSERT INTO SOURCE VALUES (4, 2.0)")
    came = source.by_spark(source.since(mark, keys=("a.b",)))
    assert [tuple(row) for row in came.frame.collect()] == [(4, 2.0)]
    source.sql('UPDATE SOURCE SET `the "x` = 7 WHERE `a.b` = 2')
    source.sql("DELETE FROM SOURCE WHERE `a.b` = 3")
    changed = source.by_spark(source.since(mark, deletes=Deletes.TOMBSTONE, keys=("a.b",)))
    assert sorted(tuple(row) for row in changed.frame.collect()) == [(2, 7.0), (4, 2.0)]
    assert changed.gone is not None
    assert [tuple(row) for row in changed.gone.collect()] == [(3,)]


def test_without_keys_each_change_is_a_row(fed: Source) -> None:
    mark = fed.mark()
    fed.sql("UPDATE SOURCE SET x = 7.0 WHERE id = 1")
    fed.sql("UPDATE SOURCE SET x = 8.0 WHERE id = 1")
    opened = fed.by_spark(fed.since(mark, keys=()))
    assert sorted(row["x"] for row in opened.frame.collect()) == [7.0, 8.0]


@pytest.mark.parametrize("seed", range(4))
def test_applying_what_is_new_gives_the_source(seed: int, fed: Source) -> None:
    rng = np.random.default_rng(seed)
    where = "x < 8"
    scores: dict[int, float] = {}
    mark = None
    for _ in range(3):
        for _ in range(rng.integers(1, 4)):
            fed.sql(random_change(fed, rng))
        if mark is not None:
            spec = fed.since(mark, where, Deletes.TOMBSTONE)
            opened = fed.by_spark(spec)
            rows, gone = opened.frame.collect(), opened.gone
            for row in [] if gone is None else gone.collect():
                scores.pop(row["id"], None)
        else:
            rows = fed.spark.read.format("delta").load(str(fed.path)).where(where).collect()
        assert len({row["id"] for row in rows}) == len(rows)
        scores |= {row["id"]: row["x"] for row in rows}
        mark = fed.mark(where=where)
        table = DeltaTable(fed.path).to_pyarrow_table().to_pylist()
        assert scores == {row["id"]: row["x"] for row in table if row["x"] < 8}


def random_change(source: Source, rng: np.random.Generator) -> str:
    """A statement that changes rows of unique ids below 40, or moves ids out of that range."""
    taken = set(DeltaTable(source.path).to_pyarrow_table()["id"].to_pylist())
    free = [i for i in range(40) if i not in taken]
    new = [int(i) for i in rng.permutation(free)[:3]]
    some = ", ".join(str(int(i)) for i in rng.permutation(40)[:12])
    values = ", ".join(f"({i}, {rng.integers(20) / 2})" for i in new)
    clauses = (
        "ON t.id = s.id + 1 WHEN MATCHED AND t.x > 5 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET x = s.x WHEN NOT MATCHED THEN INSERT *"
    )
    statements = [
        f"INSERT INTO SOURCE VALUES {values}",
        f"UPDATE SOURCE SET x = x + 1 WHERE id IN ({some})",
        f"UPDATE SOURCE SET id = id + {100 * rng.integers(1, 10**6)} WHERE id IN ({some})",
        f"DELETE FROM SOURCE WHERE id IN ({some})",
        f"MERGE INTO SOURCE t USING (SELECT * FROM VALUES {values} AS v(id, x)) s {clauses}",
        "INSERT OVERWRITE SOURCE SELECT id, x * 2 FROM SOURCE WHERE x < 40",
        "OPTIMIZE SOURCE",
    ]
    chances = [0.3, 0.2, 0.1, 0.15, 0.1, 0.05, 0.1]
    return statements[int(rng.choice(len(statements), p=chances))]


def test_a_feed_that_was_turned_on_late_is_no_hindrance_to_appends(source: Source) -> None:
    source.append(1)
    mark = source.mark()
    source.append(2)
    source.sql("ALTER TABLE SOURCE SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    source.append(3)
    spec = source.since(mark)
    assert [source.new_ids(engine, spec) for engine in ENGINES] == [[2, 3], [2, 3]]


@pytest.mark.parametrize("engine", ENGINES)
def test_another_table_in_the_same_place_is_refused(
    engine: str, source: Source, refusal: Refusal
) -> None:
    source.append(1)
    mark = source.mark()
    source.path.rename(source.path.with_name("former"))
    source.append(1)
    source.append(2)
    assert "made anew" in refusal(engine, source.since(mark))


@pytest.mark.parametrize("engine", ENGINES)
def test_versions_that_the_log_has_no_more_are_refused(
    engine: str, source: Source, refusal: Refusal
) -> None:
    source.append(1)
    mark = source.mark()
    source.append(2)
    source.append(3)
    DeltaTable(source.path).create_checkpoint()
    for version in range(2):
        (source.path / f"_delta_log/{version:020}.json").unlink()
    assert "version 1" in refusal(engine, source.since(mark))


@pytest.mark.parametrize("engine", ENGINES)
def test_vacuumed_files_of_what_is_new_are_refused(
    engine: str, source: Source, refusal: Refusal
) -> None:
    source.append(1)
    mark = source.mark()
    source.append(2)
    source.append(3)
    source.sql("OPTIMIZE SOURCE")
    table = DeltaTable(source.path)
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert "VACUUM" in refusal(engine, source.since(mark))


def test_a_feed_of_which_files_were_vacuumed_is_refused(fed: Source) -> None:
    mark = fed.mark()
    fed.sql("UPDATE SOURCE SET x = 7.0 WHERE id = 1")
    for path in (fed.path / "_change_data").glob("*.parquet"):
        path.unlink()
    with pytest.raises(SourceChangesError, match="VACUUM"):
        fed.by_spark(fed.since(mark))


@pytest.mark.parametrize("engine", ENGINES)
def test_new_rows_of_other_formats_cannot_be_told(
    engine: str, source: Source, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "rows.parquet")
    spec = SourceSpec(str(tmp_path), since=SinceLast(None))
    with pytest.raises(SourceError, match="no Delta table"):
        source.new_ids(engine, spec)
