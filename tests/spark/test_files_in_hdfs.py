"""Jobs whose tables lie in HDFS, beside Spark's own reader and writer of the same tables."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pytest

from sparkscore.batch_job import run_batch_job
from sparkscore.cli import main
from sparkscore.errors import EngineUnfitError, SourceError
from sparkscore.files.filesystem import StorePath
from sparkscore.files.log import commits
from sparkscore.job_planning import prepare
from sparkscore.job_record import plan_facts
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.spark.delta import files_sink
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.engine_cases import TRUST, X
from sparkscore.testing.models import DyingOnce, Third, packaged
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FACTS = RunFacts("a" * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
N_ROWS = 100


@pytest.fixture
def source(spark: SparkSession, hdfs_folder: StorePath) -> StorePath:
    """A table of Spark's: partitioned, and some of its rows deleted by vectors."""
    root = hdfs_folder / "source"
    spark.range(0, N_ROWS, 1, 2).selectExpr(
        "id", "id / 4.0D x", "concat('p ', id % 2) part"
    ).write.format("delta").option("delta.enableDeletionVectors", "true").partitionBy("part").save(
        str(root)
    )
    spark.sql(f"DELETE FROM delta.`{root}` WHERE id % 10 = 3")
    return root


@pytest.fixture
def target(hdfs_folder: StorePath) -> StorePath:
    return hdfs_folder / "scores"


@pytest.fixture
def third(tmp_path: Path) -> ModelFacts:
    return packaged(Third(), tmp_path / "model", inputs=X)


def asked(target: str, **more: object) -> ScoringRequest:
    made = ScoringRequest(job="hdfs", target=target, run_key="night", keys=("id",))
    return replace(made, keep=("part",), **more)  # type: ignore[arg-type]  # handed on


def score(
    spark: SparkSession,
    model: ModelFacts,
    source: str,
    request: ScoringRequest,
    where: str | None = None,
) -> Outcome:
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(source, where=where))
    plan = plan_scoring(model, opened.table, request)
    return engine.run(plan, opened, files_sink(spark, request.target), FACTS)


def ids(spark: SparkSession, target: StorePath) -> list[int]:
    rows = spark.read.format("delta").load(str(target)).select("id").collect()
    return sorted(row.id for row in rows)


@contextmanager
def session_settings(spark: SparkSession, settings: dict[str, str]) -> Iterator[None]:
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name in settings:
            spark.conf.unset(name)


def test_table_is_scored_as_spark_reads_it_and_spark_reads_the_scores(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    request = asked(str(target), partition_by=("part",))
    outcome = score(spark, third, str(source), request, where="part = 'p 1' OR id < 50")
    outcome.check_books()
    read = spark.read.format("delta").load(str(source)).where("part = 'p 1' OR id < 50")
    wanted = sorted((row.id, row.part, row.x / 3) for row in read.collect())
    scores = spark.read.format("delta").load(str(target)).collect()
    assert sorted((row.id, row.part, row.prediction) for row in scores) == wanted
    assert len(wanted) == outcome.n_scored == 65
    again = score(spark, third, str(source), request, where="part = 'p 1' OR id < 50")
    assert (again.status, again.commit) == (OutcomeStatus.ALREADY_SCORED, outcome.commit)


def test_spark_and_this_engine_race_for_versions_and_each_has_one_winner(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    score(spark, third, str(source), asked(str(target)), where="id = 0")
    n_commits = 4
    failures: list[Exception] = []

    def append_by_spark() -> None:
        try:
            for i in range(1000, 1000 + n_commits):
                spark.range(i, i + 1).write.format("delta").mode("append").save(str(target))
        except Exception as exc:  # noqa: BLE001 - shown by the test
            failures.append(exc)

    rival = threading.Thread(target=append_by_spark)
    rival.start()
    for i in range(n_commits):
        request = asked(str(target), run_key=f"run {i}")
        score(spark, third, str(source), request, where=f"id = {2 * i + 2}")
    rival.join()
    assert failures == []
    assert ids(spark, target) == [0, 2, 4, 6, 8, *range(1000, 1000 + n_commits)]
    assert [version for version, _ in commits(target)] == [*range(2 * n_commits, -1, -1)]


def test_target_that_deltalake_cannot_write_gets_its_commit_from_the_jvm(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    score(spark, third, str(source), asked(str(target)), where="id = 0")
    spark.sql(
        f"ALTER TABLE delta.`{target}` SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')"
    )
    score(spark, third, str(source), asked(str(target), run_key="next"), where="id = 2")
    assert ids(spark, target) == [0, 2]
    (_, newest), *_ = commits(target)
    assert str(newest["engineInfo"]).startswith("Apache-Spark")


def test_worker_that_is_killed_leaves_no_file_in_the_commit_or_beside_it(
    spark: SparkSession, tmp_path: Path, source: StorePath, target: StorePath
) -> None:
    sign = tmp_path / "died"
    model = packaged(DyingOnce(sign), tmp_path / "dying", inputs=X)
    outcome = score(spark, model, str(source), asked(str(target), partition_by=("part",)))
    outcome.check_books()
    assert sign.exists()
    table = deltalake.DeltaTable(str(target))
    committed = {path.rpartition("/")[2] for path in table.file_uris()}
    assert {path.name for path in target.rglob("*.parquet")} == committed
    assert ids(spark, target) == [i for i in range(N_ROWS) if i % 10 != 3]


def test_path_without_a_scheme_lies_where_the_session_says(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    with session_settings(spark, {"fs.defaultFS": f"hdfs://{source.bucket}"}):
        for place in ("hdfs://", ""):
            uri = f"{place}/{source.path.partition('/')[2]}"
            score(spark, third, uri, asked(str(target), run_key=uri), where="id = 2")
    assert ids(spark, target) == [2, 2]


def test_place_that_is_wrong_and_a_log_store_of_another_kind_are_named(
    spark: SparkSession, source: StorePath, target: StorePath
) -> None:
    with pytest.raises(SourceError, match=r"nothing is at source 'hdfs://.*/nowhere'"):
        FilesEngine(spark).open(SourceSpec(str(source / "nowhere")))
    name = "spark.delta.logStore.hdfs.impl"
    with (
        session_settings(spark, {name: "com.acme.Store"}),
        pytest.raises(EngineUnfitError, match=name),
    ):
        files_sink(spark, str(target))


def workspace(folder: Path) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/runs.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": f"{folder}/artifacts",
        "trust.allow_code": True,
    }
    return Workspace.open(overrides=overrides)


def test_command_takes_files_and_lists_what_a_killed_job_left(
    third: ModelFacts,
    source: StorePath,
    target: StorePath,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job: dict[str, object] = {
        "name": "hdfs",
        "model": str(third.folder),
        "source.uri": str(source),
        "target.uri": str(target),
        "key": ["id"],
    }
    opened = workspace(tmp_path)
    values = opened.job(None, job).values
    engine = plan_facts(prepare(opened, values, "night", lambda _: None))["engine"]
    assert isinstance(engine, dict)
    assert engine["name"] == "files"
    assert run_batch_job(opened, values, "night", lambda _: None).status == "succeeded"
    left = target / f"part-00000-{'b' * 32}-7-c000.zstd.parquet"
    with left.store.open_output(left.path) as file:
        file.write(b"half")
    for flags, status in (((), "left"), (("--remove",), "removed")):
        command = ["score", "clean", str(target), "--older-than", "0", *flags, "-o", "json"]
        assert main(command) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["file"], row["status"]) == (left.name, status)
    assert not left.is_file()
