"""A table that the files engine has written, as Spark and deltalake see it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import PredictionError
from sparkscore.files.sink import FilesSink
from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, WriteMode, plan_scoring
from sparkscore.scoring.rejects import InvalidRows
from sparkscore.spark.delta import DeltaSink, files_sink
from sparkscore.spark.engine import SparkEngine
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.engine_cases import ROWS, TRUST, X, request
from sparkscore.testing.models import DyingOnce, Refusing, SeenAsText, Third, packaged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FACTS = RunFacts("a" * 32, dt.datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=dt.UTC))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Delta table of six files with two rows each: the id counts on from 0."""
    path = tmp_path / "source"
    for i in range(6):
        x = pa.array([i / 4, -1.0])
        ids = pa.array([2 * i, 2 * i + 1], pa.int64())
        part = pa.array([f"p {i % 2}"] * 2)
        deltalake.write_deltalake(path, pa.table({"id": ids, "x": x, "part": part}), mode="append")
    return path


def planned(
    spark: SparkSession, model: ModelFacts, source: Path, asked: ScoringRequest
) -> ScoringPlan:
    return plan_scoring(model, FilesEngine(spark).open(SourceSpec(str(source))).table, asked)


def score(spark: SparkSession, model: ModelFacts, source: Path, asked: ScoringRequest) -> Outcome:
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(str(source)))
    plan = plan_scoring(model, opened.table, asked)
    return engine.run(plan, opened, files_sink(spark, asked.target), FACTS)


def data_files(target: Path) -> list[Path]:
    return sorted(target.rglob("*.parquet"))


def committed(target: Path) -> list[Path]:
    uris = deltalake.DeltaTable(target).file_uris()
    return sorted(Path(uri.removeprefix("file://")) for uri in uris)


@pytest.fixture
def third(tmp_path: Path) -> ModelFacts:
    return packaged(Third(), tmp_path / "model", inputs=X)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "scores"


def test_spark_and_deltalake_read_the_same_rows(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    score(spark, third, source, request(target, keep=("part",)))
    by_spark = spark.read.format("delta").load(str(target)).toArrow().sort_by("id")
    by_rust = deltalake.DeltaTable(target).to_pyarrow_table().sort_by("id")
    assert by_spark.num_rows == 12
    assert by_spark.to_pylist() == by_rust.to_pylist()
    assert by_spark["scored_at"].to_pylist() == [FACTS.scored_at] * 12


def test_both_sinks_find_the_run_of_the_other(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    outcome = score(spark, third, source, request(target))
    plan = planned(spark, third, source, request(target))
    assert DeltaSink(spark, str(target)).find(plan.identity) == outcome.commit
    other = target.with_name("other")
    asked = request(other)
    engine = SparkEngine(spark, trust=TRUST)
    opened = engine.open(SourceSpec(str(source)))
    fed = engine.run(
        plan_scoring(third, opened.table, asked), opened, DeltaSink(spark, str(other)), FACTS
    )
    again = score(spark, third, source, asked)
    assert (again.status, again.commit) == (OutcomeStatus.ALREADY_SCORED, fed.commit)


def test_spark_skips_a_commit_under_the_same_transaction(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    score(spark, third, source, request(target))
    app_id = planned(spark, third, source, request(target)).identity.app_id
    frame = spark.read.format("delta").load(str(target))
    frame.write.format("delta").mode("append").option("txnAppId", app_id).option(
        "txnVersion", 1
    ).save(str(target))
    assert deltalake.DeltaTable(target).version() == 0


def test_history_of_spark_shows_rows_files_and_bytes(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    score(spark, third, source, request(target))
    score(spark, third, source, request(target, run_key="next"))
    newest, oldest = spark.sql(f"DESCRIBE HISTORY delta.`{target}`").collect()
    assert (newest["operation"], newest["operationParameters"]["mode"]) == ("WRITE", "Append")
    for entry in (newest, oldest):
        assert entry["operationMetrics"]["numOutputRows"] == "12"
        assert entry["operationMetrics"]["numFiles"] == "1"
        assert int(entry["operationMetrics"]["numOutputBytes"]) > 0
        assert json.loads(entry["userMetadata"])["run_id"] == FACTS.run_id


def test_statistics_let_spark_skip_files(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    """A file that is no Parquet any more shows who opens it."""
    score(spark, third, source, request(target))
    rows = pa.table({"id": pa.array([100, 101], pa.int64()), "x": [1.0, 2.0], "part": ["p", "p"]})
    deltalake.write_deltalake(source, rows, mode="overwrite")
    first = committed(target)
    score(spark, third, source, request(target, run_key="next"))
    first[0].write_bytes(b"no Parquet")
    for name in first[0].parent.glob(f".{first[0].name}.crc"):
        name.unlink()
    found = spark.read.format("delta").load(str(target)).where("id >= 100").select("id").collect()
    assert sorted(row["id"] for row in found) == [100, 101]


def test_partitioned_target_is_written_and_replaced_by_partition(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    asked = ScoringRequest(
        job="contract", target=str(target), keys=("id",), keep=("part",), partition_by=("part",)
    )
    assert score(spark, third, source, asked).n_scored == 12
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{target}`").collect()[0]
    assert detail["partitionColumns"] == ["part"]
    assert {path.parent.name for path in data_files(target)} == {"part=p 0", "part=p 1"}
    by_spark = spark.read.format("delta").load(str(target))
    assert by_spark.where("part = 'p 1'").count() == 6
    only = request(target, keep=("part",), mode=WriteMode.REPLACE, replace_where="part = 'p 1'")
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(str(source), where="part = 'p 1'"))
    plan = plan_scoring(third, opened.table, only)
    outcome = engine.run(plan, opened, FilesSink(str(target)), FACTS)
    outcome.check_books()
    assert outcome.commit.n_rows == 6
    assert spark.read.format("delta").load(str(target)).count() == 12


def test_every_cell_is_that_of_the_engine_that_spark_feeds(
    spark: SparkSession, tmp_path: Path, target: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(ROWS, source / "rows.parquet")
    model = packaged(SeenAsText(), tmp_path / "model", outputs={"prediction": ScalarType.STRING})
    kept = tuple(name for name in ROWS.column_names if name not in ("id", "x"))
    score(spark, model, source, request(target, keep=kept))
    other = target.with_name("other")
    engine = SparkEngine(spark, trust=TRUST)
    opened = engine.open(SourceSpec(str(source)))
    plan = plan_scoring(model, opened.table, request(other, keep=kept))
    engine.run(plan, opened, DeltaSink(spark, str(other)), FACTS)
    one, two = (
        spark.read.format("delta").load(str(path)).toArrow().sort_by("id")
        for path in (target, other)
    )
    assert one.schema == two.schema
    assert one.to_pylist() == two.to_pylist()


def test_worker_that_is_killed_leaves_no_file_in_the_commit_or_beside_it(
    spark: SparkSession, tmp_path: Path, target: Path
) -> None:
    """Forty partitions at once are more than stay open, so that some files are there by then."""
    source = tmp_path / "source"
    source.mkdir()
    ids = pa.array(range(80), pa.int64())
    rows = pa.table({"id": ids, "x": [1.0] * 79 + [0.0], "part": [i % 40 for i in range(80)]})
    pq.write_table(rows, source / "rows.parquet", row_group_size=40)
    sign = tmp_path / "died"
    asked = ScoringRequest(
        job="contract", target=str(target), keys=("id",), keep=("part",), partition_by=("part",)
    )
    model = packaged(DyingOnce(sign), tmp_path / "model", inputs=X)
    outcome = score(spark, model, source, asked)
    outcome.check_books()
    assert sign.exists()
    assert outcome.n_scored == 80
    assert data_files(target) == committed(target)
    assert sorted(deltalake.DeltaTable(target).to_pyarrow_table()["id"].to_pylist()) == [*range(80)]


def test_job_that_fails_leaves_nothing(
    spark: SparkSession, tmp_path: Path, source: Path, target: Path
) -> None:
    model = packaged(Refusing(), tmp_path / "refusing", inputs=X)
    with pytest.raises(PredictionError):
        score(spark, model, source, request(target))
    assert not target.exists()


def test_files_of_a_driver_that_was_killed_do_not_stop_the_next(
    spark: SparkSession, third: ModelFacts, source: Path, target: Path
) -> None:
    target.mkdir()
    left = target / f"part-00000-{'b' * 32}-7-c000.zstd.parquet"
    left.write_bytes(b"half")
    score(spark, third, source, request(target)).check_books()
    assert spark.read.format("delta").load(str(target)).count() == 12


def test_all_rows_rejected_is_a_commit_without_files(
    spark: SparkSession, tmp_path: Path, target: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.table({"id": [1], "x": pa.array([None], pa.int64())}), source / "0.parquet")
    inputs = ColumnSchema((ColumnSpec("x", ScalarType.LONG),))
    model = packaged(Third(), tmp_path / "model", inputs=inputs)
    outcome = score(spark, model, source, request(target, on_invalid=InvalidRows.QUARANTINE))
    outcome.check_books()
    assert (outcome.n_rejected, outcome.n_scored) == (1, 0)
    assert committed(target) == data_files(target) == []
    rejects = target.with_name("scores_rejects")
    assert deltalake.DeltaTable(rejects).to_pyarrow_table()["id"].to_pylist() == [1]


def test_spark_finds_nan_above_every_bound(
    spark: SparkSession, third: ModelFacts, target: Path, tmp_path: Path
) -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "x": [float("nan"), 3.0]})
    deltalake.write_deltalake(tmp_path / "nan", rows)
    score(spark, third, tmp_path / "nan", request(target))
    found = spark.read.format("delta").load(str(target)).where("prediction > 5")
    assert [row["id"] for row in found.collect()] == [1]
