"""A run that ends on its way, and the attempt that goes on with it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import CheckFailedError, PredictionError, WorkerCrashError
from sparkscore.files.ledger import Ledger
from sparkscore.files.planning import plan_tasks
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.checks import Checks
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, WriteMode, plan_scoring
from sparkscore.scoring.rejects import InvalidRows, NanAnswers
from sparkscore.spark.delta import DeltaSink
from sparkscore.spark.engine import SparkEngine
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.engine_cases import TRUST, X, request
from sparkscore.testing.models import Interrupted, packaged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N_ROWS = 1_200_000
"""Nine million bytes of doubles that do not compress: five chunks for two slots."""
N_CHUNKS = 5
MAX_CHUNK_ROWS = 250_000
CHUNK_BYTES = 2 * 2**20
SMALLER = 10
N_SLOTS = 2
SCORED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of random numbers."""
    return stored(np.random.default_rng(7).random(N_ROWS), tmp_path_factory.mktemp("source"))


def stored(x: np.ndarray, folder: Path) -> Path:
    """One file of numbers."""
    rows = pa.table({"id": pa.array(range(len(x)), pa.int64()), "x": x})
    pq.write_table(
        rows,
        folder / "rows.parquet",
        row_group_size=len(x) // 24,
        use_dictionary=False,
        column_encoding={"id": "DELTA_BINARY_PACKED"},
    )
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "scores"


class Bench:
    """One model over one source; each call is an attempt at the same run."""

    def __init__(
        self, spark: SparkSession, source: Path, folder: Path, how: str, engine: str = "files"
    ) -> None:
        self.spark = spark
        self.folder, self.target = folder / "model-files", folder / "scores"
        self.folder.mkdir()
        self.n_rows = N_ROWS
        self.engine: FilesEngine | SparkEngine = FilesEngine(spark, TRUST)
        if engine != "files":
            self.engine = SparkEngine(spark, "arrow", TRUST)
        self.source = source
        self.asked = request(self.target)
        if engine == "merge":  # Spark writes slowly in the tests' session.
            self.n_rows = N_ROWS // SMALLER
            self.engine = replace(self.engine, max_chunk_bytes=CHUNK_BYTES // SMALLER)
            self.source = folder / "source"
            self.source.mkdir()
            stored(np.random.default_rng(7).random(self.n_rows), self.source)
            self.asked = replace(self.asked, mode=WriteMode.MERGE)
        self.model: ModelFacts = packaged(
            Interrupted(self.folder, self.n_rows * 3 // 5, how), folder / "model", inputs=X
        )
        self.checks = Checks()

    def plan(self) -> ScoringPlan:
        table = self.engine.open(SourceSpec(str(self.source))).table
        return plan_scoring(self.model, table, self.asked)

    def score(self, run_id: str) -> Outcome:
        asked, facts = replace(self.asked, checks=self.checks), RunFacts(run_id, SCORED_AT)
        if isinstance(self.engine, FilesEngine):
            files = self.engine.open(SourceSpec(str(self.source)))
            plan = plan_scoring(self.model, files.table, asked)
            return self.engine.run(plan, files, FilesSink(str(self.target)), facts)
        source = self.engine.open(SourceSpec(str(self.source)))
        plan = plan_scoring(self.model, source.table, asked)
        return self.engine.run(plan, source, DeltaSink(self.spark, str(self.target)), facts)

    def interrupt(self, run_id: str = "first") -> None:
        """An attempt that ends when three fifths of the rows have been scored."""
        (self.folder / "stop").touch()
        with pytest.raises((WorkerCrashError, PredictionError)):
            self.score(run_id)
        (self.folder / "stop").unlink()

    def n_rows_scored(self) -> int:
        """Rows that the model was asked for, in all attempts."""
        return sum(map(int, (self.folder / "rows").read_text().split()))

    def ledger(self, attempt: str) -> Ledger:
        return Ledger(self.target, self.plan().identity.app_id, attempt, "other", "inputs")

    def check_table(self) -> pa.Table:
        """The table is that of an undisturbed run, and nothing else is in its folder."""
        table = deltalake.DeltaTable(self.target)
        rows = table.to_pyarrow_table().sort_by("id")
        x = pq.read_table(self.source)["x"].to_numpy()
        assert np.array_equal(rows["id"].to_numpy(), np.arange(self.n_rows))
        assert np.array_equal(rows["prediction"].to_numpy(), x / 3)
        assert table.version() == 0
        named = {Path(uri.removeprefix("file://")) for uri in table.file_uris()}
        assert set(self.target.rglob("*.parquet")) == named
        assert not (self.target / "_sparkscore").exists()
        return rows


@pytest.fixture
def engine() -> str:
    """Which engine scores, where a test does not say so."""
    return "files"


@pytest.fixture
def bench(spark: SparkSession, source: Path, tmp_path: Path, engine: str) -> Bench:
    return Bench(spark, source, tmp_path, "die", engine)


each_engine = pytest.mark.parametrize("engine", ["files", "arrow"])
each_way = pytest.mark.parametrize("engine", ["files", "arrow", "merge"])
"""In the last one, Spark takes into the table what Python has written."""


@each_way
def test_held_scores_are_published_without_being_scored_again(bench: Bench) -> None:
    bench.checks = Checks(max_value={"prediction": 0.1}, max_drift={"prediction": 0.2})
    with pytest.raises(CheckFailedError, match="max_value"):
        bench.score("first")
    assert not (bench.target / "_delta_log").exists()
    bench.asked = replace(bench.asked, accept_checks=True)
    outcome = bench.score("second")
    assert outcome.n_chunks_resumed == N_CHUNKS
    assert bench.n_rows_scored() == bench.n_rows
    bench.check_table()
    (entry,) = deltalake.DeltaTable(bench.target).history()
    told = json.loads(entry["userMetadata"])["profile"]
    assert told["rows"] == told["columns"]["prediction"]["rows"] == bench.n_rows


@each_way
def test_next_attempt_scores_only_what_the_first_did_not_finish(bench: Bench) -> None:
    bench.interrupt()
    assert not (bench.target / "_delta_log").exists()
    outcome = bench.score("second")
    outcome.check_books()
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert (outcome.n_read, outcome.n_scored) == (bench.n_rows, bench.n_rows)
    assert (
        0
        <= bench.n_rows_scored() - bench.n_rows
        <= N_SLOTS * MAX_CHUNK_ROWS * bench.n_rows // N_ROWS
    )
    assert outcome.n_chunks_resumed >= 3 - N_SLOTS
    metrics = outcome.as_metrics()
    assert metrics["rows_resumed"] == outcome.n_rows_resumed > 0
    assert metrics["chunks_resumed"] == outcome.n_chunks_resumed
    rows = bench.check_table()
    by_run = {each["values"]: each["counts"] for each in rows["run_id"].value_counts().to_pylist()}
    assert by_run["first"] == outcome.n_rows_resumed
    (entry,) = deltalake.DeltaTable(bench.target).history()
    metadata = json.loads(entry["userMetadata"])
    assert (metadata["run_id"], metadata["resumed_from"]) == ("second", ["first"])


@each_engine
def test_rejected_rows_of_finished_chunks_are_those_of_the_attempt_that_goes_on(
    spark: SparkSession, tmp_path: Path, engine: str
) -> None:
    x = np.random.default_rng(7).random(N_ROWS)
    x[::10_000] = np.nan
    (tmp_path / "source").mkdir()
    bench = Bench(spark, stored(x, tmp_path / "source"), tmp_path, "die", engine)
    bench.asked = replace(bench.asked, on_invalid=InvalidRows.QUARANTINE, on_nan=NanAnswers.REJECT)
    bench.interrupt()
    outcome = bench.score("second")
    outcome.check_books()
    assert outcome.n_chunks_resumed > 0
    assert outcome.n_rejected == N_ROWS // 10_000
    rejects = tmp_path / "scores_rejects"
    table = deltalake.DeltaTable(rejects)
    rows = table.to_pyarrow_table().sort_by("id")
    assert rows["id"].to_pylist() == list(range(0, N_ROWS, 10_000))
    assert set(rows["run_id"].to_pylist()) == {"second"}
    assert set(rows["reject_code"].to_pylist()) == {"ANSWER_NAN"}
    named = {Path(uri.removeprefix("file://")) for uri in table.file_uris()}
    assert set(rejects.rglob("*.parquet")) == named
    scores = deltalake.DeltaTable(bench.target).to_pyarrow_table()
    assert scores.num_rows == N_ROWS - len(rows)


@each_engine
def test_attempt_that_would_cut_otherwise_takes_the_cut_of_the_first(bench: Bench) -> None:
    bench.interrupt()
    bench.engine = replace(bench.engine, max_chunk_bytes=2**20)
    outcome = bench.score("second")
    assert outcome.n_chunks_resumed >= 3 - N_SLOTS
    bench.check_table()


def test_chunk_whose_file_is_gone_or_cut_is_scored_again(bench: Bench) -> None:
    bench.interrupt()
    for i, path in enumerate(bench.target.glob("*.parquet")):
        if i % 2:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
    outcome = bench.score("second")
    # The other slot may have finished its task since the first attempt ended.
    assert outcome.n_chunks_resumed <= N_SLOTS - 1
    bench.check_table()


def test_other_inputs_use_nothing_of_the_first(bench: Bench, tmp_path: Path) -> None:
    bench.interrupt()
    copy = tmp_path / "copy"
    shutil.copytree(bench.source, copy)
    bench.source = copy
    outcome = bench.score("second")
    assert outcome.n_chunks_resumed == 0
    bench.check_table()


def test_chunks_that_no_check_has_looked_at_are_not_used_where_one_does(bench: Bench) -> None:
    bench.interrupt()
    bench.checks = Checks(max_null_share={"prediction": 0.0}, max_value={"prediction": 1 / 3})
    assert bench.score("second").n_chunks_resumed == 0
    bench.check_table()


def test_error_that_the_same_inputs_meet_again_leaves_nothing_that_was_finished(
    spark: SparkSession, source: Path, tmp_path: Path
) -> None:
    bench = Bench(spark, source, tmp_path, "refuse")
    bench.interrupt()
    # The other slot may be writing while Spark takes its task away.
    assert len(list(tmp_path.glob("scores/*.parquet"))) <= N_SLOTS - 1
    assert len(list(tmp_path.glob("scores/_sparkscore/*/*"))) <= N_SLOTS - 1


def test_attempt_that_fails_leaves_what_another_one_may_be_using(
    spark: SparkSession, source: Path, tmp_path: Path
) -> None:
    bench = Bench(spark, source, tmp_path, "refuse")
    other = bench.ledger("2" * 32)
    other.claim(2)
    bench.interrupt()
    assert list(bench.target.glob("*.parquet"))
    assert len(other.claim(2).attempts) == 1


def test_job_of_one_chunk_keeps_no_ledger(bench: Bench, tmp_path: Path) -> None:
    bench.source = tmp_path / "small"
    bench.source.mkdir()
    pq.write_table(pa.table({"id": [1, 2], "x": [1.0, 0.0]}), bench.source / "rows.parquet")
    (bench.folder / "rows").write_text(str(N_ROWS))
    bench.interrupt()
    assert not bench.target.exists()


def test_cut_is_the_same_each_time(spark: SparkSession, source: Path) -> None:
    files = FilesEngine(spark, TRUST).open(SourceSpec(str(source))).files
    assert len(plan_tasks(files, 2)) == N_CHUNKS
    assert plan_tasks(files, 2) == plan_tasks(files, 2)
