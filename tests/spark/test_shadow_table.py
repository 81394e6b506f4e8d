"""The table of a shadow: written in the pass of the scores, and never at their cost."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outcome import Outcome
from sparkscore.scoring.panel import Challenger, ModelsAs, PanelSpec, plan_panel
from sparkscore.scoring.plan import ScoringPlan, plan_scoring
from sparkscore.scoring.shadow import SHADOW_LABEL, Shadow
from sparkscore.spark.delta import DeltaSink
from sparkscore.spark.engine import SparkEngine
from sparkscore.testing.engine_cases import TRUST, X, request
from sparkscore.testing.models import Times, packaged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.spark.source import OpenedSource

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "x": [1.0, 2.0, 3.0]})


@dataclass(frozen=True)
class World:
    """A source, a champion that doubles, and a shadow that triples."""

    folder: Path
    engine: SparkEngine
    source: OpenedSource

    @property
    def alone(self) -> ScoringPlan:
        """The champion without a shadow."""
        model = packaged(Times(2.0), self.folder / "champion", inputs=X)
        return plan_scoring(model, self.source.table, request(self.folder / "scores"))

    @property
    def plan(self) -> ScoringPlan:
        """Both."""
        alone = self.alone
        model = packaged(Times(3.0), self.folder / "challenger", inputs=X)
        spec = PanelSpec((alone.model,), (Challenger(model, SHADOW_LABEL),), ModelsAs.APART)
        shadow = plan_scoring(model, self.source.table, request(self.folder / "aside"))
        both = plan_panel(spec, self.source.table, alone.request)
        return replace(both, shadow=Shadow(shadow))

    def run(self, run_id: str = "a") -> Outcome:
        facts = RunFacts(run_id * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        sink = DeltaSink(self.engine.spark, str(self.folder / "scores"))
        outcome = self.engine.run(self.plan, self.source, sink, facts)
        outcome.check_books()
        return outcome

    def rows(self, table: str) -> list[tuple[int, float]]:
        found = deltalake.DeltaTable(self.folder / table).to_pyarrow_table().sort_by("id")
        return [(row["id"], row["prediction"]) for row in found.to_pylist()]


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    deltalake.write_deltalake(tmp_path / "rows", ROWS)
    engine = SparkEngine(spark, trust=TRUST)
    return World(tmp_path, engine, engine.open(SourceSpec(str(tmp_path / "rows"))))


def test_table_that_takes_no_rows_of_the_shadow_costs_no_score(world: World) -> None:
    deltalake.write_deltalake(world.folder / "aside", pa.table({"quite": ["other"]}))
    n_files = len(list((world.folder / "aside").rglob("*")))
    outcome = world.run()
    assert "quite" in str(outcome.shadow_failure)
    assert world.rows("scores") == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert len(list((world.folder / "aside").rglob("*"))) == n_files
