"""Jobs whose tables lie in a store that Spark itself cannot reach: it has no jars for it here."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.batch_job import run_batch_job
from sparkscore.cli import main
from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    PredictionError,
    SourceError,
    StoreUnavailableError,
    TargetUnwritableError,
)
from sparkscore.files.filesystem import StorePath
from sparkscore.files.log import commits
from sparkscore.files.sink import FilesSink
from sparkscore.job_planning import PreparedJob, prepare
from sparkscore.job_record import plan_facts
from sparkscore.job_result import JobResult
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringRequest, WriteMode, plan_scoring
from sparkscore.spark.delta import files_sink
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.spark.store_settings import store_of
from sparkscore.testing.engine_cases import TRUST, X
from sparkscore.testing.models import DyingOnce, Refusing, Third, packaged
from sparkscore.testing.s3_server import S3Server
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FACTS = RunFacts("a" * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def store_rows(root: StorePath, rows: pa.Table, **how: object) -> None:
    options = root.store.delta_options
    deltalake.write_deltalake(str(root), rows, storage_options=options, mode="append", **how)  # type: ignore[call-overload]  # handed on


def table(root: StorePath) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(str(root), storage_options=root.store.delta_options)


def uri(root: StorePath) -> str:
    return f"s3a://{root.path}"


@pytest.fixture
def source(bucket: StorePath) -> StorePath:
    """A Delta table of six files with two rows each: the id counts on from 0."""
    root = bucket / "land ing/source"
    for i in range(6):
        ids = pa.array([2 * i, 2 * i + 1], pa.int64())
        columns = {"id": ids, "x": [i / 4, -1.0], "part": [f"p {i % 2}"] * 2}
        store_rows(root, pa.table(columns), partition_by=["part"])
    return root


@pytest.fixture
def target(bucket: StorePath) -> StorePath:
    return bucket / "scores"


@pytest.fixture
def third(tmp_path: Path) -> ModelFacts:
    return packaged(Third(), tmp_path / "model", inputs=X)


def asked(target: StorePath, **more: object) -> ScoringRequest:
    made = ScoringRequest(job="store", target=uri(target), run_key="night", keys=("id",))
    return replace(made, keep=("part",), **more)  # type: ignore[arg-type]  # handed on


def score(
    spark: SparkSession,
    model: ModelFacts,
    source: StorePath,
    request: ScoringRequest,
    where: str | None = None,
) -> Outcome:
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(uri(source), where=where))
    plan = plan_scoring(model, opened.table, request)
    return engine.run(plan, opened, files_sink(spark, request.target), FACTS)


def ids(target: StorePath) -> list[int]:
    return sorted(table(target).to_pyarrow_table()["id"].to_pylist())


def test_table_in_a_store_is_scored_into_one_and_found_again(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    outcome = score(spark, third, source, asked(target))
    outcome.check_books()
    assert (outcome.n_read, outcome.n_scored) == (12, 12)
    rows = table(target).to_pyarrow_table().sort_by("id")
    x = table(source).to_pyarrow_table().sort_by("id")["x"].to_pylist()
    assert rows["prediction"].to_pylist() == [value / 3 for value in x]
    again = score(spark, third, source, asked(target))
    assert (again.status, again.commit) == (OutcomeStatus.ALREADY_SCORED, outcome.commit)


def test_filter_reads_only_files_that_can_hold_its_rows(
    spark: SparkSession,
    third: ModelFacts,
    source: StorePath,
    target: StorePath,
    s3_server: S3Server,
) -> None:
    s3_server.requests.clear()
    score(spark, third, source, asked(target), where="part = 'p 1' AND id >= 6")
    assert ids(target) == [6, 7, 10, 11]
    data = {path for method, path in s3_server.requests if "/source/part=" in path}
    assert len(data) == 2


def test_partitioned_target_is_written_and_replaced_by_partition(
    spark: SparkSession, third: ModelFacts, source: StorePath, target: StorePath
) -> None:
    assert score(spark, third, source, asked(target, partition_by=("part",))).n_scored == 12
    assert table(target).metadata().partition_columns == ["part"]
    replacing = asked(
        target, run_key="next", mode=WriteMode.REPLACE, replace_where="part = 'p 1' AND id < 4"
    )
    outcome = score(spark, third, source, replacing, where="part = 'p 1' AND id < 4")
    assert (outcome.commit.version, outcome.commit.n_rows) == (1, 2)
    assert ids(target) == [*range(12)]
    (_, newest), _ = commits(target)
    assert newest["operationMetrics"]["numCopiedRows"] == "4"


def test_rows_that_a_deletion_vector_took_are_not_scored(
    spark: SparkSession, third: ModelFacts, bucket: StorePath, target: StorePath, tmp_path: Path
) -> None:
    local = tmp_path / "vectors"
    spark.range(0, 100, 1, 1).selectExpr("id", "id / 4.0D x", "'p' part").write.format(
        "delta"
    ).option("delta.enableDeletionVectors", "true").save(str(local))
    spark.sql(f"DELETE FROM delta.`{local}` WHERE id % 10 = 3")
    root = bucket / "vectors"
    for path in local.rglob("*"):
        if path.is_file() and not path.name.endswith(".crc"):
            below = path.relative_to(local).as_posix()
            with root.store.open_output((root / below).path) as file:
                file.write(path.read_bytes())
    score(spark, third, root, asked(target)).check_books()
    assert ids(target) == [i for i in range(100) if i % 10 != 3]


def test_worker_that_is_killed_leaves_no_file_in_the_commit_or_beside_it(
    spark: SparkSession, tmp_path: Path, bucket: StorePath, target: StorePath
) -> None:
    """Forty partitions at once are more than stay open, so that some files are there by then."""
    source = bucket / "forty"
    part = [str(i % 40) for i in range(80)]
    rows = pa.table({"id": pa.array(range(80), pa.int64()), "x": [1.0] * 79 + [0.0], "part": part})
    store_rows(source, rows)
    sign = tmp_path / "died"
    model = packaged(DyingOnce(sign), tmp_path / "model", inputs=X)
    outcome = score(spark, model, source, asked(target, partition_by=("part",)))
    outcome.check_books()
    assert sign.exists()
    committed = {path.rpartition("/")[2] for path in table(target).file_uris()}
    assert {path.name for path in target.rglob("*.parquet")} == committed
    assert ids(target) == [*range(80)]


def test_job_that_fails_leaves_nothing(
    spark: SparkSession, tmp_path: Path, source: StorePath, target: StorePath
) -> None:
    model = packaged(Refusing(), tmp_path / "refusing", inputs=X)
    with pytest.raises(PredictionError):
        score(spark, model, source, asked(target))
    assert list(target.rglob("*")) == []


def test_commit_that_is_never_answered_keeps_its_files(
    spark: SparkSession,
    third: ModelFacts,
    source: StorePath,
    target: StorePath,
) -> None:
    """It may have landed, or may yet: a table that names removed files cannot be read."""
    engine = FilesEngine(spark, TRUST)
    opened = engine.open(SourceSpec(uri(source)))
    plan = plan_scoring(third, opened.table, asked(target))
    sink = _SilentSink(uri(target), store=target.store)
    with pytest.raises(StoreUnavailableError):
        engine.run(plan, opened, sink, FACTS)
    left = [path for path in target.rglob("*") if path.name.startswith("part-")]
    assert left


class _SilentSink(FilesSink):
    """A store that takes what is written, and then is gone."""

    def _table(self) -> deltalake.DeltaTable | None:
        if any(True for _ in self.root.rglob("part-*")):
            raise OSError("curlCode: 7, Could not connect to server")
        return super()._table()


def test_bucket_that_is_not_there_is_named(
    spark: SparkSession, third: ModelFacts, source: StorePath
) -> None:
    missing = StorePath(source.store, "no-such-bucket/table")
    with pytest.raises(SourceError, match="no bucket 'no-such-bucket'"):
        FilesEngine(spark).open(SourceSpec(uri(missing)))
    with pytest.raises(TargetUnwritableError, match="no bucket 'no-such-bucket'"):
        score(spark, third, source, asked(missing))


def test_source_that_is_not_there_or_no_delta_table_is_named(
    spark: SparkSession, bucket: StorePath
) -> None:
    root = bucket / "rows"
    with pytest.raises(SourceError, match=r"nothing is at source 's3a://.*/rows'"):
        FilesEngine(spark).open(SourceSpec(uri(root)))
    with root.store.open_output(f"{root.path}/rows.parquet") as file:
        file.write(b"rows")
    with pytest.raises(EngineUnfitError, match="no Delta table, and lies in s3a"):
        FilesEngine(spark).open(SourceSpec(uri(root)))


def test_credentials_that_are_wrong_are_named(
    spark: SparkSession, source: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    with pytest.raises(SourceError, match="refuses the credentials of AWS_ACCESS_KEY_ID") as caught:
        FilesEngine(spark).open(SourceSpec(uri(source)))
    assert "AKIAWRONG" not in str(caught.value)


@contextmanager
def session_settings(spark: SparkSession, settings: dict[str, str]) -> Iterator[None]:
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name in settings:
            spark.conf.unset(name)


def test_settings_of_the_session_lead_to_the_store_as_well(
    spark: SparkSession,
    third: ModelFacts,
    source: StorePath,
    target: StorePath,
    monkeypatch: pytest.MonkeyPatch,
    s3_server: S3Server,
) -> None:
    environ = s3_server.environ
    for name in environ:
        monkeypatch.delenv(name)
    settings = {
        "fs.s3a.endpoint": environ["AWS_ENDPOINT_URL"].removeprefix("http://"),
        "fs.s3a.connection.ssl.enabled": "false",
        "fs.s3a.path.style.access": "true",
        "fs.s3a.access.key": environ["AWS_ACCESS_KEY_ID"],
        "fs.s3a.secret.key": environ["AWS_SECRET_ACCESS_KEY"],
    }
    with session_settings(spark, settings):
        assert score(spark, third, source, asked(target)).n_scored == 12
    with pytest.raises(EngineUnfitError, match="AWS_REGION"):
        store_of(spark, uri(source), "source")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fs.s3a.encryption.algorithm", "SSE-KMS", "fs.s3a.encryption.algorithm is set"),
        ("fs.s3a.aws.credentials.provider", "com.acme.Vault", "names Vault"),
        ("spark.delta.logStore.s3a.impl", "io.delta.storage.S3DynamoDBLogStore", "is set"),
    ],
)
def test_what_only_sparks_client_heeds_is_left_to_spark(
    name: str, value: str, said: str, spark: SparkSession, target: StorePath
) -> None:
    with session_settings(spark, {name: value}), pytest.raises(EngineUnfitError, match=said):
        files_sink(spark, uri(target))


@pytest.fixture
def job(
    spark: SparkSession,  # noqa: ARG001 - the session that the workspace finds
    third: ModelFacts,
    source: StorePath,
    target: StorePath,
) -> dict[str, object]:
    return {
        "name": "store",
        "model": str(third.folder),
        "source.uri": uri(source),
        "target.uri": uri(target),
        "key": ["id"],
    }


def workspace(folder: Path) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/runs.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": f"{folder}/artifacts",
        "trust.allow_code": True,
    }
    return Workspace.open(overrides=overrides)


def prepared(folder: Path, job: dict[str, object]) -> PreparedJob:
    opened = workspace(folder)
    return prepare(opened, opened.job(None, job).values, "night", lambda _: None)


def run(folder: Path, job: dict[str, object]) -> JobResult:
    opened = workspace(folder)
    return run_batch_job(opened, opened.job(None, job).values, "night", lambda _: None)


def test_auto_takes_files_for_a_store(tmp_path: Path, job: dict[str, object]) -> None:
    engine = plan_facts(prepared(tmp_path, job))["engine"]
    assert isinstance(engine, dict)
    assert engine["name"] == "files"


@pytest.mark.parametrize(
    ("key", "uri", "said"),
    [
        ("source.uri", "gs://b/rows", "the source lies in gs.*gcs-connector"),
        (
            "target.uri",
            "abfss://b@account.dfs.core.windows.net/rows",
            "AZURE_STORAGE_ACCOUNT_KEY.*hadoop-azure",
        ),
    ],
)
def test_place_that_nobody_here_reaches_is_named_with_the_reason(
    key: str, uri: str, said: str, tmp_path: Path, job: dict[str, object]
) -> None:
    local = tmp_path / "local"
    deltalake.write_deltalake(local, pa.table({"id": pa.array([1], pa.int64()), "x": [1.0]}))
    with pytest.raises(ConfigError, match=f"(?s)Spark has no client for '{uri}'.*{said}"):
        prepared(tmp_path, {**job, "source.uri": str(local), key: uri})


def test_run_does_not_depend_on_hadoops_name_for_the_store(
    tmp_path: Path, job: dict[str, object]
) -> None:
    first = run(tmp_path, job)
    assert first.status == "succeeded"
    renamed = {
        key: value.replace("s3a://", "s3://") if isinstance(value, str) else value
        for key, value in job.items()
    }
    assert run(tmp_path, renamed).status == "skipped"


def test_no_record_holds_a_key_of_the_store(
    tmp_path: Path, job: dict[str, object], s3_server: S3Server
) -> None:
    run(tmp_path, job)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept)
    for path in kept:
        content = path.read_bytes()
        assert s3_server.environ["AWS_SECRET_ACCESS_KEY"].encode() not in content
        assert s3_server.environ["AWS_ACCESS_KEY_ID"].encode() not in content


def test_command_lists_what_a_killed_job_left_in_a_store(
    tmp_path: Path,
    job: dict[str, object],
    target: StorePath,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(tmp_path, job)
    left = target / f"part-00000-{'b' * 32}-7-c000.zstd.parquet"
    with target.store.open_output(left.path) as file:
        file.write(b"half")
    for flags, status in (((), "left"), (("--remove",), "removed")):
        command = ["score", "clean", uri(target), "--older-than", "0", *flags, "-o", "json"]
        assert main(command) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["file"], row["status"]) == (left.name, status)
    assert ids(target) == [*range(12)]
