from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import EngineUnfitError
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Commit, Outcome
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.scoring.table_write import TableWrite
from sparkscore.spark.delta import DeltaSink
from sparkscore.spark.engine import SparkEngine
from sparkscore.testing.engine_cases import TRUST, X, request
from sparkscore.testing.engine_contract import DeltaEngineContract
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.reject_cases import LIMITS, DyingFiles, SinkDiedError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCORED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def dying(sink_type: type[DeltaSink]) -> type[DeltaSink]:
    """A score table whose writer is gone before it commits."""

    class Dying(sink_type):  # type: ignore[misc, valid-type]  # one of two
        def as_files(self, write: TableWrite) -> FilesSink:
            sink = super().as_files(write)
            return DyingFiles(sink.uri, sink.timezone, sink.log_writer, sink.store)

        def write(self, *_: object) -> Commit:
            raise SinkDiedError

    return Dying


class SparkEngineContract(DeltaEngineContract):
    """Scores Parquet files into Delta tables; deltalake reads what was written."""

    engine_name: str
    sink_type: type[DeltaSink] = DeltaSink
    n_cores = 2

    @pytest.fixture(autouse=True)
    def _bench(self, spark: SparkSession, tmp_path: Path) -> None:
        self.spark = spark
        self.source = tmp_path / "source" / "part.parquet"
        self.n_runs = 0

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
        self._store(rows)
        engine = SparkEngine(self.spark, self.engine_name, TRUST, limits)
        source = engine.open(SourceSpec(str(self.source.parent), where=where))
        source = replace(source, frame=source.frame.repartition(n_partitions))
        sink_type = dying(self.sink_type) if dies else self.sink_type
        sink = sink_type(self.spark, request.target)
        self.n_runs += 1
        facts = RunFacts(run_id=f"run-{self.n_runs}", scored_at=SCORED_AT)
        return engine.run(plan_scoring(model, source.table, request), source, sink, facts)

    def read(self, target: Path) -> pa.Table:
        table = deltalake.DeltaTable(target)
        if "delta.columnMapping.mode" in table.metadata().configuration:
            # deltalake does not know the columns' names in the files.
            return self.spark.read.format("delta").load(str(target)).toArrow()
        return table.to_pyarrow_table()

    def _store(self, rows: pa.Table) -> None:
        if self.source.exists() and pq.read_table(self.source).equals(rows):
            return
        self.source.parent.mkdir(exist_ok=True)
        pq.write_table(rows, self.source)


class TestArrowEngine(SparkEngineContract):
    engine_name = "arrow"

    def test_bounds_of_kept_times_are_utc_in_a_session_of_another_zone(
        self, tmp_path: Path, target: Path
    ) -> None:
        at = dt.datetime(2013, 10, 1, 12, 30, tzinfo=dt.UTC)
        rows = pa.table({"id": [1], "x": [0.5], "at": pa.array([at], pa.timestamp("us", "UTC"))})
        model = packaged(Third(), tmp_path / "model", inputs=X)
        self.spark = self.spark.newSession()
        self.spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        self.score(model, rows, request(target, keep=("at",)))
        assert self.read(target)["at"].to_pylist() == [at]
        (added,) = pa.table(deltalake.DeltaTable(target).get_add_actions()).to_pylist()
        assert (added["min"]["at"], added["max"]["at"]) == (at, at)


class TakenBySpark(DeltaSink):
    """A target for which Python writes files, and Spark takes them into the table."""

    def as_files(self, write: TableWrite) -> FilesSink:
        raise EngineUnfitError(f"the target of {write.identity.run_key!r} is said to be so")


class TestArrowEngineTakenBySpark(SparkEngineContract):
    engine_name = "arrow"
    sink_type = TakenBySpark


class TestPandasEngine(SparkEngineContract):
    engine_name = "pandas"
