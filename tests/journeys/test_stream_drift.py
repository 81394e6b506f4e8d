"""A stream whose rows move from its first ones says so, and begins to after a restart too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

JOB = """
model: models:/linear@champion
source: {uri: ./coming}
target: {uri: ./scores}
key: [id]
stream:
  checkpoint: ./checkpoint
  drift: {columns: [prediction], rows: 100}
  alerts: {drift: {x: 0.5}, empty_share: {x: 0}}
"""


def test_rows_that_move_are_told_of(world: World, run: Run) -> None:
    (world.folder / "telemetry.yaml").write_text(JOB)
    arguments = ("score", "stream", "--job", "telemetry.yaml", "--trust-code")
    health = world.folder / "health.json"
    for start, slope in ((0, 0.5), (100, 0.5), (200, 7.0)):
        ids = range(start, start + 100)
        xs = [(i % 100) * slope for i in ids]
        rows = pa.table({"id": pa.array(ids, pa.int64()), "x": xs})
        write_deltalake(world.folder / "coming", rows, mode="append")
        answer = run(*arguments, "--health-file", str(health))
        assert answer.exit_code == 0, answer.stderr
        metrics = answer.result["metrics"]
        is_first = start == 0
        assert ("drift.x" in metrics) == ("drift.prediction" in metrics) == (not is_first)
        if start == 100:
            assert metrics["drift.x"] < 0.1
            assert json.loads(health.read_text())["alerts"] == []
    assert metrics["drift.x"] > 0.5
    assert metrics["drift.prediction"] > 0.5
    assert metrics["empty_share.x"] == 0
    assert json.loads(health.read_text())["alerts"] == ["drift.x"]
    assert '"name": "drift.x", "is_begun": true' in answer.stderr


def test_columns_that_the_model_does_not_know_are_refused(world: World, run: Run) -> None:
    (world.folder / "telemetry.yaml").write_text(JOB)
    arguments = ("score", "stream", "--job", "telemetry.yaml", "--trust-code")
    for more, named in (
        (("--source", "./rows", "--drift", "y"), "neither reads nor predicts"),
        (("--source", "./rows", "--mode", "merge"), "it does not merge"),
    ):
        refused = run(*arguments, *more)
        assert refused.exit_code == 2
        assert named in refused.stderr
    assert not (world.folder / "checkpoint").exists()
