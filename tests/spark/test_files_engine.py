from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.files.sink import FilesSink
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Outcome
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.spark import files_engine
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.engine_cases import ROWS, TRUST, X, request
from sparkscore.testing.engine_contract import EngineContract
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.reject_cases import LIMITS, DyingFiles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCORED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class TestFilesEngine(EngineContract):
    """Scores Parquet files into Delta tables; deltalake reads what was written."""

    n_cores = 2

    @pytest.fixture(autouse=True)
    def _bench(self, spark: SparkSession, tmp_path: Path) -> None:
        self.spark = spark
        self.source = tmp_path / "source"
        self.n_runs = 0
        self.stored: tuple[pa.Table, int] | None = None

    def score(
        self,
        model: ModelFacts,
        rows: pa.Table,
        request: ScoringRequest,
        *,
        n_partitions: int = 2,
        where: str | None = None,
        limits: BatchLimits = LIMITS,
        dies: bool = False,
    ) -> Outcome:
        self._store(rows, n_partitions)
        engine = FilesEngine(self.spark, TRUST, limits)
        source = engine.open(SourceSpec(str(self.source), where=where))
        self.n_runs += 1
        facts = RunFacts(run_id=f"run-{self.n_runs}", scored_at=SCORED_AT)
        plan = plan_scoring(model, source.table, request)
        sink = DyingFiles(request.target) if dies else FilesSink(request.target)
        return engine.run(plan, source, sink, facts)

    def read(self, target: Path) -> pa.Table:
        return deltalake.DeltaTable(target).to_pyarrow_table()

    def test_reports_of_many_batches_are_few_and_lose_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files_engine, "_MAX_REPORTS", 2)
        model = packaged(Third(), tmp_path / "model", inputs=X)
        limits = BatchLimits(max_bytes=1)  # One row a batch.
        outcome = self.score(model, ROWS, request(tmp_path / "scores"), limits=limits)
        outcome.check_books()
        assert len(outcome.batches) == 2
        assert outcome.as_metrics()["batches"] == ROWS.num_rows
        assert sum(report.n_rows for report in outcome.batches) == ROWS.num_rows

    def test_the_workers_time_is_split_by_what_was_done(self, tmp_path: Path) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS, request(tmp_path / "scores"))
        seconds = outcome.as_metrics()
        parts = [f"seconds_in_workers_{part}" for part in ("read", "convert", "predict", "write")]
        assert all(seconds[part] > 0 for part in parts)
        assert sum(seconds[part] for part in parts) <= seconds["seconds_in_workers_tasks"]

    def _store(self, rows: pa.Table, n_files: int) -> None:
        if self.stored is not None and self.stored[0].equals(rows) and self.stored[1] == n_files:
            return
        for old in self.source.glob("*"):
            old.unlink()
        self.source.mkdir(exist_ok=True)
        step = max(1, -(-rows.num_rows // n_files))
        for i in range(n_files):
            pq.write_table(rows.slice(i * step, step), self.source / f"{i}.parquet")
        self.stored = rows, n_files
