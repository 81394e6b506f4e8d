"""Files that Python wrote, committed by Delta's own transaction, to tables that need it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import EngineUnfitError, TargetError
from sparkscore.files.change import LogWriter, LostRaceError, RemovedFile, TableChange
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outcome import Commit, Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringRequest, WriteMode, plan_scoring
from sparkscore.scoring.target import HistoryEntry
from sparkscore.spark.delta import files_sink
from sparkscore.spark.delta_log import JvmLogWriter
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.engine_cases import TRUST, X, request
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.sink_contract import Attempt, SinkContract, attempt, write_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.scoring.facts import ModelFacts

MAPPED_BEFORE_FEATURES = (
    "TBLPROPERTIES ('delta.columnMapping.mode'='id', "
    "'delta.minReaderVersion'='2', 'delta.minWriterVersion'='5')"
)
KINDS = {
    "clustered": "CLUSTER BY (id)",
    "row ids": "TBLPROPERTIES ('delta.enableRowTracking'='true')",
    "mapped by name": "PARTITIONED BY (day) TBLPROPERTIES ('delta.columnMapping.mode'='name')",
    "mapped by id": "TBLPROPERTIES ('delta.columnMapping.mode'='id')",
    "mapped before features": MAPPED_BEFORE_FEATURES,
    "times in commits": "TBLPROPERTIES ('delta.enableInCommitTimestamps'='true')",
}
COLUMNS = (
    "id BIGINT, day INT, prediction DOUBLE, model_name STRING, model_version STRING, "
    "model_digest STRING, run_id STRING, scored_at TIMESTAMP"
)


class ByJvm(FilesSink):
    """Commits to every known table through the JVM."""

    def _log_writer_for(self, table: deltalake.DeltaTable) -> LogWriter | None:  # noqa: ARG002
        return self.log_writer


class TestSinkByJvm(SinkContract):
    @pytest.fixture(autouse=True)
    def _session(self, spark: SparkSession) -> None:
        self.spark = spark

    def sink(self, attempt: Attempt) -> FilesSink:
        return ByJvm(attempt.request.target, log_writer=JvmLogWriter(self.spark))

    def write(self, attempt: Attempt) -> Commit:
        return write_files(attempt, self.sink(attempt))

    def find(self, attempt: Attempt) -> Commit | None:
        return self.sink(attempt).find(attempt.plan.identity)

    def history(self, attempt: Attempt) -> list[HistoryEntry]:
        return list(self.sink(attempt).history())

    def check(self, attempt: Attempt) -> None:
        self.sink(attempt).check(attempt.table_write)

    def read(self, target: Path) -> pa.Table:
        return deltalake.DeltaTable(target).to_pyarrow_table()

    def n_commits(self, target: Path) -> int:
        return len(list((target / "_delta_log").glob("*.json")))


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def target(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Path:
    """An empty score table that `deltalake` may not write."""
    target = tmp_path / "scores"
    spark.sql(f"CREATE TABLE delta.`{target}` ({COLUMNS}) USING delta {request.param}")
    return target


@pytest.fixture
def clustered(spark: SparkSession, tmp_path: Path) -> Path:
    target = tmp_path / "clustered"
    spark.sql(f"CREATE TABLE delta.`{target}` ({COLUMNS}) USING delta CLUSTER BY (id)")
    return target


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight rows over two days in four files: the id counts on from 0."""
    path = tmp_path / "source"
    for i in range(4):
        table = pa.table(
            {
                "id": pa.array([2 * i, 2 * i + 1], pa.int64()),
                "day": pa.array([1 + i % 2] * 2, pa.int32()),
                "x": [i / 4, -1.0],
            }
        )
        deltalake.write_deltalake(path, table, mode="append")
    return path


@pytest.fixture
def third(tmp_path: Path) -> ModelFacts:
    return packaged(Third(), tmp_path / "model", inputs=X)


def score(
    spark: SparkSession,
    model: ModelFacts,
    source: Path,
    asked: ScoringRequest,
    where: str | None = None,
) -> Outcome:
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(str(source), where=where))
    plan = plan_scoring(model, opened.table, asked)
    facts = RunFacts(asked.run_key or "run", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    outcome = engine.run(plan, opened, files_sink(spark, asked.target), facts)
    if outcome.status is OutcomeStatus.SUCCEEDED:
        outcome.check_books()
    return outcome


def by_spark(spark: SparkSession, target: Path) -> list[tuple[int, int, float]]:
    rows = spark.read.format("delta").load(str(target)).orderBy("id").collect()
    return [(row["id"], row["day"], row["prediction"]) for row in rows]


def expected(ids: range) -> list[tuple[int, int, float]]:
    x = [(i // 2 / 4 if i % 2 == 0 else -1.0) for i in ids]
    return [(i, 1 + i // 2 % 2, value / 3) for i, value in zip(ids, x, strict=True)]


def test_appended_files_are_read_by_spark_and_found_again(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    asked = request(target, keep=("day",), run_key="night")
    first = score(spark, third, source, asked)
    assert by_spark(spark, target) == expected(range(8))
    again = score(spark, third, source, asked)
    assert (again.status, again.commit) == (OutcomeStatus.ALREADY_SCORED, first.commit)
    newest = spark.sql(f"DESCRIBE HISTORY delta.`{target}` LIMIT 1").collect()[0]
    assert newest["operation"] == "WRITE"
    assert newest["operationMetrics"]["numOutputRows"] == "8"
    assert json.loads(newest["userMetadata"])["run_key"] == "night"
    found = spark.read.format("delta").load(str(target)).where("id = 5")
    assert [row["id"] for row in found.collect()] == [5]


def test_replace_exchanges_its_rows_and_no_others(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    for day in (1, 2):  # A file a day, so that none is cut: row ids would have to move.
        asked = request(target, keep=("day",), run_key=f"day {day}")
        score(spark, third, source, asked, where=f"day = {day}")
    assert by_spark(spark, target) == expected(range(8))
    asked = request(
        target,
        keep=("day",),
        run_key="again",
        mode=WriteMode.REPLACE,
        replace_where="day = 2",
    )
    commit = score(spark, third, source, asked, where="day = 2 AND x >= 0").commit
    assert commit.n_rows == 2
    left = [row for row in expected(range(8)) if row[1] == 1 or row[2] >= 0]
    assert by_spark(spark, target) == left


def test_rows_of_a_cut_file_keep_their_ids_by_sparks_own_writer(
    spark: SparkSession, third: ModelFacts, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tracked"
    spark.sql(f"CREATE TABLE delta.`{target}` ({COLUMNS}) USING delta {KINDS['row ids']}")
    score(spark, third, source, request(target, keep=("day",), run_key="all"))
    asked = request(
        target, keep=("day",), run_key="cut", mode=WriteMode.REPLACE, replace_where="day = 2"
    )
    with pytest.raises(EngineUnfitError, match="tracks rows"):
        score(spark, third, source, asked, where="day = 2")


def test_row_ids_are_unique_over_commits(
    spark: SparkSession, third: ModelFacts, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "tracked"
    spark.sql(f"CREATE TABLE delta.`{target}` ({COLUMNS}) USING delta {KINDS['row ids']}")
    for key in ("one", "two"):
        score(spark, third, source, request(target, keep=("day",), run_key=key))
    rows = spark.read.format("delta").load(str(target)).select("_metadata.row_id").collect()
    assert sorted(row["row_id"] for row in rows) == list(range(16))


def test_columns_have_the_tables_own_ids_in_the_files(
    spark: SparkSession, third: ModelFacts, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "mapped"
    spark.sql(f"CREATE TABLE delta.`{target}` ({COLUMNS}) USING delta {KINDS['mapped by id']}")
    score(spark, third, source, request(target, keep=("day",), run_key="night"))
    (file,) = target.glob("*.parquet")
    schema = json.loads(deltalake.DeltaTable(target).schema().to_json())
    wanted = {
        field["metadata"]["delta.columnMapping.physicalName"]: str(
            field["metadata"]["delta.columnMapping.id"]
        )
        for field in schema["fields"]
    }
    fields = pq.read_schema(file)
    assert {f.name: f.metadata[b"PARQUET:field_id"].decode() for f in fields} == wanted


def test_clustered_table_is_optimized_after(
    spark: SparkSession, third: ModelFacts, source: Path, clustered: Path
) -> None:
    score(spark, third, source, request(clustered, keep=("day",), run_key="night"))
    spark.sql(f"OPTIMIZE delta.`{clustered}`")
    assert by_spark(spark, clustered) == expected(range(8))


def test_commit_that_the_table_refuses_is_one_error(spark: SparkSession, clustered: Path) -> None:
    spark.sql(f"ALTER TABLE delta.`{clustered}` SET TBLPROPERTIES ('delta.appendOnly'='true')")
    commit = write_files(attempt(clustered, (1, 1, 0.5)), files_sink(spark, str(clustered)))
    (file,) = clustered.glob("*.parquet")
    gone = RemovedFile(file.name, file.name, file.stat().st_size, {})
    change = TableChange(commit.version, "app", 1, "{}", removed=(gone,), is_replace=True)
    with pytest.raises(TargetError, match="nothing was written") as caught:
        JvmLogWriter(spark).commit(str(clustered), change)
    assert len(str(caught.value).splitlines()) == 1
    assert deltalake.DeltaTable(clustered).version() == commit.version


def test_other_release_of_delta_is_found_out_before_a_row_is_scored(
    spark: SparkSession,
    third: ModelFacts,
    source: Path,
    clustered: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sparkscore.spark.delta_log._WRITE", "DeltaOperations$WriteOfTomorrow")
    with pytest.raises(EngineUnfitError, match="release of Delta"):
        score(spark, third, source, request(clustered, keep=("day",), run_key="night"))
    assert not list(clustered.glob("*.parquet"))


@pytest.mark.parametrize("is_replace", [True, False], ids=["replace", "append"])
def test_rival_between_look_and_commit_defeats_a_replace_and_no_append(
    is_replace: bool, spark: SparkSession, clustered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write_files(
        attempt(clustered, (1, 1, 0.5)), files_sink(spark, str(clustered))
    ).version
    tell = JvmLogWriter._tell_metrics

    def told_late(writer: JvmLogWriter, transaction: object, change: TableChange) -> None:
        columns = "id, day, prediction"
        spark.sql(f"INSERT INTO delta.`{clustered}` ({columns}) VALUES (2, 1, 1.5)")
        tell(writer, transaction, change)

    monkeypatch.setattr(JvmLogWriter, "_tell_metrics", told_late)
    change = TableChange(version, "app", 1, "{}", is_replace=is_replace)
    if is_replace:
        with pytest.raises(LostRaceError):
            JvmLogWriter(spark).commit(str(clustered), change)
    else:
        JvmLogWriter(spark).commit(str(clustered), change)
    made = deltalake.DeltaTable(clustered)
    assert made.version() == version + (1 if is_replace else 2)
    assert (made.transaction_version("app") is None) == is_replace
