from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest
from pyspark.errors import PySparkException

from sparkscore.errors import ConfigError
from sparkscore.spark.maintenance import Step, StepStatus, Upkeep, maintain

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_WEEKS_AGO_S = 30 * 86_400


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five small files of two partitions, and an old file that no version names."""
    path = tmp_path / "scores"
    for i in range(5):
        rows = pa.table({"id": [2 * i, 2 * i + 1], "day": ["a", "b"], "x": [0.5, 1.5]})
        deltalake.write_deltalake(path, rows, mode="append", partition_by=["day"])
    left = path / "day=a" / "part-00000-left.parquet"
    left.write_bytes(b"half a file")
    old = time.time() - _WEEKS_AGO_S
    os.utime(left, (old, old))
    return path


def by_name(steps: list[Step]) -> dict[str, Step]:
    return {step.name: step for step in steps}


def n_files(table: Path) -> int:
    return len(deltalake.DeltaTable(table).file_uris())


def test_files_are_joined_old_ones_go_and_the_log_gets_a_checkpoint(
    spark: SparkSession, table: Path
) -> None:
    before = deltalake.DeltaTable(table).to_pyarrow_table().sort_by("id")
    steps = by_name(maintain(spark, [str(table)], Upkeep()))
    assert [step.detail for step in steps.values() if step.code is not None] == []
    assert {step.status for step in steps.values()} == {StepStatus.DONE}
    assert steps["optimize"].detail == "10 files became 2"
    assert steps["vacuum"].n_files == 1
    assert not (table / "day=a" / "part-00000-left.parquet").exists()
    assert n_files(table) == 2
    assert len(list(table.rglob("*.parquet"))) > 2 + 10  # What was joined stays for a week.
    assert list((table / "_delta_log").glob("*.checkpoint.parquet"))
    assert deltalake.DeltaTable(table).to_pyarrow_table().sort_by("id").equals(before)


def test_dry_run_changes_nothing(spark: SparkSession, table: Path) -> None:
    before = sorted(table.rglob("*"))
    steps = by_name(maintain(spark, [str(table)], Upkeep(is_dry=True)))
    assert {step.status for step in steps.values()} == {StepStatus.PLANNED}
    assert steps["vacuum"].detail == "1 files older than 168 hours would be removed"
    assert sorted(table.rglob("*")) == before


def test_only_the_partitions_of_where_are_optimized(spark: SparkSession, table: Path) -> None:
    upkeep = Upkeep(where="day = 'a'", zorder=("id",), vacuum_hours=None, checkpoint=False)
    (step,) = maintain(spark, [str(table)], upkeep)
    assert (step.status, n_files(table)) == (StepStatus.DONE, 6)
    bad = Upkeep(where="id = 3", vacuum_hours=None, checkpoint=False)
    (step,) = maintain(spark, [str(table)], bad)
    assert (step.status, step.code) == (StepStatus.FAILED, ConfigError.code)
    assert "where names partition columns" in step.detail


def test_own_retention_of_a_table_wins_where_it_is_longer(spark: SparkSession, table: Path) -> None:
    spark.sql(
        f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES "
        "('delta.deletedFileRetentionDuration' = 'interval 60 days', "
        "'delta.logRetentionDuration' = 'interval 60 days')"
    )
    (step,) = maintain(spark, [str(table)], Upkeep(optimize=False, checkpoint=False))
    assert (
        step.detail == "0 files older than 1440 hours removed, as the table's own retention has it"
    )
    assert (table / "day=a" / "part-00000-left.parquet").exists()


@pytest.mark.parametrize("interval", ["interval 86400 minutes", "7 weeks 11 days"])
def test_own_retention_is_understood_however_it_is_written(
    interval: str, spark: SparkSession, tmp_path: Path
) -> None:
    configuration = {"delta.deletedFileRetentionDuration": interval}
    deltalake.write_deltalake(tmp_path, pa.table({"id": [1]}), configuration=configuration)
    upkeep = Upkeep(optimize=False, checkpoint=False, is_dry=True)
    (step,) = maintain(spark, [str(tmp_path)], upkeep)
    assert step.detail.startswith("0 files older than 1440 hours would be removed")


def test_longer_retention_than_that_of_the_table_is_kept(spark: SparkSession, table: Path) -> None:
    upkeep = Upkeep(optimize=False, checkpoint=False, vacuum_hours=40 * 24.0)
    (step,) = maintain(spark, [str(table)], upkeep)
    assert step.detail == "0 files older than 960 hours removed"
    assert (table / "day=a" / "part-00000-left.parquet").exists()


@pytest.mark.parametrize("hours", [24.0, float("nan"), float("inf")])
def test_less_than_a_week_is_refused_before_anything_is_done(
    hours: float, spark: SparkSession, table: Path
) -> None:
    with pytest.raises(ConfigError, match="take 168 or more"):
        maintain(spark, [str(table)], Upkeep(vacuum_hours=hours))
    assert n_files(table) == 10


def test_table_that_is_not_there_does_not_stop_the_others(
    spark: SparkSession, table: Path, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nothing")
    upkeep = Upkeep(vacuum_hours=None, checkpoint=False)
    failed, done = maintain(spark, [missing, str(table)], upkeep)
    assert (failed.code, failed.exit_code) == ("TARGET_INVALID", 5)
    assert done.status is StepStatus.DONE


@pytest.mark.parametrize(
    ("name", "code"), [("damaged", "TARGET_INVALID"), ("a.b.c", "NAME_INVALID")]
)
def test_table_that_cannot_be_opened_does_not_stop_the_others(
    name: str, code: str, spark: SparkSession, table: Path, tmp_path: Path
) -> None:
    log = tmp_path / "damaged" / "_delta_log" / f"{0:020}.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"half')
    uri = str(tmp_path / name) if name == "damaged" else name
    failed, done = maintain(spark, [uri, str(table)], Upkeep(vacuum_hours=None, checkpoint=False))
    assert (failed.name, failed.code) == ("open", code)
    assert "\tat " not in failed.detail
    assert done.status is StepStatus.DONE


def test_step_that_loses_against_a_job_is_tried_again(
    spark: SparkSession, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark's answer is that of a job that has replaced the files which were being joined."""
    lost: list[str] = []
    own = type(spark).sql

    def racing(session: SparkSession, query: str) -> DataFrame:
        if query.startswith("OPTIMIZE") and not lost:
            lost.append(query)
            raise PySparkException("[DELTA_CONCURRENT_DELETE_READ] a file was removed")
        return own(session, query)

    monkeypatch.setattr(type(spark), "sql", racing)
    (step,) = maintain(spark, [str(table)], Upkeep(vacuum_hours=None, checkpoint=False))
    assert (step.status, len(lost)) == (StepStatus.DONE, 1)
