from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.errors import (
    RunKeyConflictError,
    TargetError,
    TargetSchemaError,
    TargetUnwritableError,
)
from sparkscore.scoring.incremental import last_mark
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import WriteMode
from sparkscore.scoring.target import HistoryEntry
from sparkscore.spark.delta import DeltaSink, session_conf
from sparkscore.testing.sink_contract import Attempt, MergingSinkContract, attempt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write(spark: SparkSession, one: Attempt) -> Commit:
    scores = spark.createDataFrame(one.scores)
    return DeltaSink(spark, one.request.target).write(scores, one.table_write, one.facts)


def table_name() -> str:
    """A name of its own: test runs share the warehouse folder."""
    return f"scores_{uuid.uuid4().hex}"


class TestDeltaSink(MergingSinkContract):
    @pytest.fixture(autouse=True)
    def _session(self, spark: SparkSession) -> None:
        self.spark = spark

    def write(self, attempt: Attempt) -> Commit:
        # A session of its own, as writers in other processes have: they must race at the table.
        return write(self.spark.newSession(), attempt)

    def find(self, attempt: Attempt) -> Commit | None:
        return DeltaSink(self.spark, attempt.request.target).find(attempt.plan.identity)

    def history(self, attempt: Attempt) -> list[HistoryEntry]:
        return list(DeltaSink(self.spark, attempt.request.target).history())

    def check(self, attempt: Attempt) -> None:
        sink = DeltaSink(self.spark, attempt.request.target)
        sink.check(attempt.table_write)

    def read(self, target: Path) -> pa.Table:
        table = deltalake.DeltaTable(target).to_pyarrow_table()
        return pa.table(table).cast(pa.schema([f.with_nullable(True) for f in table.schema]))

    def n_commits(self, target: Path) -> int:
        return len(list((target / "_delta_log").glob("*.json")))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "scores"


def test_commit_names_run_model_and_input(spark: SparkSession, target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    write(spark, one)
    (entry,) = deltalake.DeltaTable(target).history()
    metadata = json.loads(entry["userMetadata"])
    assert metadata["run_id"] == "first"
    assert metadata["run_key"] == "night"
    assert metadata["app_id"] == one.plan.identity.app_id
    assert metadata["model"] == {"name": "contract", "version": 1, "digest": one.model.digest}
    assert metadata["inputs"]["input"] == "/data/flights"
    assert metadata["inputs"]["input_version"] == "7"


def test_merge_commit_names_its_run_too(spark: SparkSession, target: Path) -> None:
    write(spark, attempt(target, (1, 1, 0.5)))
    write(spark, attempt(target, (1, 1, 1.5), mode=WriteMode.MERGE, run_key="m", run_id="merged"))
    newest = deltalake.DeltaTable(target).history()[0]
    assert newest["operation"] == "MERGE"
    assert json.loads(newest["userMetadata"])["run_id"] == "merged"


def test_a_merge_takes_away_the_keys_that_are_gone(spark: SparkSession, target: Path) -> None:
    write(spark, attempt(target, (1, 1, 0.5), (1, 2, 1.5), (2, 1, 2.5), (3, 1, 3.5)))
    one = attempt(target, (3, 1, 4.5), (4, 1, 5.5), mode=WriteMode.MERGE, run_key="m")
    # As where each of several models has a row a key: the second column tells whose it is.
    by_both = replace(one.table_write, keys=("id", "day"))
    gone = spark.createDataFrame([(1,), (9,)], "id BIGINT")
    scores = spark.createDataFrame(one.scores)
    commit = DeltaSink(spark, str(target)).write(scores, by_both, one.facts, gone)
    assert (commit.n_rows, commit.n_deleted) == (2, 2)
    table = deltalake.DeltaTable(target).to_pyarrow_table().sort_by("id")
    assert table["id"].to_pylist() == [2, 3, 4]
    assert table["prediction"].to_pylist() == [2.5, 4.5, 5.5]


@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.MERGE])
def test_commit_that_the_table_skips_is_an_error(
    mode: WriteMode, spark: SparkSession, target: Path
) -> None:
    write(spark, attempt(target, (1, 1, 0.5)))
    late = attempt(target, (2, 1, 1.5), mode=mode, run_key="late")
    # As if the run had been committed, and that entry of the history had expired.
    spark.createDataFrame(late.scores).write.format("delta").mode("append").option(
        "txnAppId", late.plan.identity.app_id
    ).option("txnVersion", 1).save(str(target))
    before = deltalake.DeltaTable(target).version()
    with pytest.raises(RunKeyConflictError, match=r"skipped the commit.*--run-key"):
        write(spark, late)
    assert deltalake.DeltaTable(target).version() == before


@pytest.mark.parametrize("prefix", ["", "default.", "spark_catalog.default."])
def test_table_of_the_catalog_is_a_target(prefix: str, spark: SparkSession, tmp_path: Path) -> None:
    name = f"{prefix}{table_name()}"
    spark.sql(f"CREATE TABLE {name} (id BIGINT) USING delta LOCATION '{tmp_path / 'there'}'")
    try:
        spark.sql(f"ALTER TABLE {name} ADD COLUMNS (day INT, prediction DOUBLE)")
        one = attempt(Path(name), (1, 1, 0.5))
        record = one.scores.schema.names[3:]
        spark.sql(
            f"ALTER TABLE {name} ADD COLUMNS ("
            + ", ".join(f"{c} {'TIMESTAMP' if c == 'scored_at' else 'STRING'}" for c in record)
            + ")"
        )
        sink = DeltaSink(spark, name)
        sink.check(one.table_write)
        commit = write(spark, one)
        assert (commit.uri, commit.n_rows) == (name, 1)
        assert sink.find(one.plan.identity) == commit
        assert spark.table(name).select("id", "prediction").collect() == [(1, 0.5)]
    finally:
        spark.sql(f"DROP TABLE {name}")


def test_new_table_of_the_catalog_is_made_with_its_partitions(spark: SparkSession) -> None:
    name = f"default.{table_name()}"
    one = attempt(Path(name), (1, 1, 0.5), partition_by=("day",))
    try:
        commit = write(spark, one)
        assert commit.n_rows == 1
        detail = spark.sql(f"DESCRIBE DETAIL {name}").collect()[0]
        assert detail["partitionColumns"] == ["day"]
        assert spark.table(name).count() == 1
        versions = [entry.version for entry in DeltaSink(spark, name).history()]
        assert versions == [commit.version, 0]
        assert last_mark(DeltaSink(spark, name).history(), one.request.job, name) is not None
    finally:
        spark.sql(f"DROP TABLE IF EXISTS {name}")


def test_table_of_another_format_in_the_catalog_is_refused(spark: SparkSession) -> None:
    name = table_name()
    spark.sql(f"CREATE TABLE {name} (id BIGINT) USING parquet")
    try:
        one = attempt(Path(name), (1, 1, 0.5))
        with pytest.raises(TargetError, match="no Delta table"):
            DeltaSink(spark, name).check(one.table_write)
    finally:
        spark.sql(f"DROP TABLE {name}")


def test_name_that_no_table_can_have_is_a_path(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DeltaSink(spark, "scores-2013 10").uri == str(tmp_path / "scores-2013 10")


def test_place_that_takes_no_files_is_refused(spark: SparkSession) -> None:
    one = attempt(Path("/proc/scores"), (1, 1, 0.5))
    sink = DeltaSink(spark, "/proc/scores")
    with pytest.raises(TargetUnwritableError, match="/proc"):  # noqa: PT012 - root fails later
        sink.check(one.table_write)
        write(spark, one)


def test_target_with_another_type_is_refused_with_both(spark: SparkSession, target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    odd = one.scores.set_column(2, "prediction", pa.array(["a"]))
    deltalake.write_deltalake(target, odd)
    with pytest.raises(
        TargetSchemaError, match="prediction: the table has string, the job writes d"
    ):
        DeltaSink(spark, str(target)).check(one.table_write)


def test_settings_of_the_session_come_back_after_a_write(spark: SparkSession, target: Path) -> None:
    session = spark.newSession()
    key = "spark.databricks.delta.commitInfo.userMetadata"
    session.conf.set(key, "mine")
    write(session, attempt(target, (1, 1, 0.5)))
    write(session, attempt(target, (1, 1, 1.5), mode=WriteMode.MERGE, run_key="m"))
    assert session.conf.get(key) == "mine"
    assert session.conf.get("spark.databricks.delta.write.txnAppId", None) is None
    assert [view.name for view in session.catalog.listTables() if view.isTemporary] == []


def test_settings_come_back_after_an_error(spark: SparkSession) -> None:
    session = spark.newSession()
    session.conf.set("spark.sql.ansi.enabled", "false")
    with (
        pytest.raises(ZeroDivisionError),
        session_conf(session, {"spark.sql.ansi.enabled": "true"}),
    ):
        raise ZeroDivisionError
    assert session.conf.get("spark.sql.ansi.enabled") == "false"
