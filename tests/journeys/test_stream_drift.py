"""A stream whose rows move from its first ones says so, and begins to after a restart too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

if TYPE_CHECKING:
    from tests.journeys.conftest import Answer, Run, World

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


def scored(world: World, run: Run, slope: float) -> Answer:
    """What the stream says once a hundred more rows have come."""
    rows = pa.table({"id": range(100), "x": [i * slope for i in range(100)]})
    write_deltalake(world.folder / "coming", rows, mode="append")
    job = ("--job", "telemetry.yaml", "--health-file", "health.json", "--trust-code")
    answer = run("score", "stream", *job)
    assert answer.exit_code == 0, answer.stderr
    return answer


def test_rows_that_move_are_told_of(world: World, run: Run) -> None:
    (world.folder / "telemetry.yaml").write_text(JOB)
    assert "drift.x" not in scored(world, run, 0.5).result["metrics"]
    like_the_first = scored(world, run, 0.5)
    assert like_the_first.result["metrics"]["drift.x"] < 0.1
    assert "alert " not in like_the_first.stderr
    moved = scored(world, run, 7.0)
    metrics = moved.result["metrics"]
    assert metrics["drift.x"] > 0.5
    assert metrics["drift.prediction"] > 0.5
    assert metrics["empty_share.x"] == 0
    assert '"name": "drift.x", "is_begun": true' in moved.stderr
    assert json.loads((world.folder / "health.json").read_text())["alerts"] == ["drift.x"]


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
