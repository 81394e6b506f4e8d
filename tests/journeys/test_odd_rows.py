"""What a model was never fitted on, and answers that are no numbers: scored, told and recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType
from sparkscore.testing.models import Third, one_hot_model, packaged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

ROWS = pa.table(
    {
        "id": pa.array(range(4), pa.int64()),
        "x": [1.0, float("nan"), float("inf"), 3.0],
        "word": ["a", "new", None, "new"],
    }
)


def scored(run: Run, world: World, model: Path) -> tuple[dict[str, object], dict[str, object]]:
    """The result of a job over ROWS, and what its run keeps in outcome.json."""
    write_deltalake(str(world.folder / "odd"), ROWS)
    args = ("--model", str(model), "--source", "odd", "--target", "out", "--key", "id")
    answer = run("score", "batch", *args, "--trust-code")
    assert answer.exit_code == 0, answer.stderr
    run_id = answer.result["run_id"]
    (kept,) = world.folder.glob(f"**/{run_id}/artifacts/outcome.json")
    return answer.result, json.loads(kept.read_text("utf-8"))


def test_values_unknown_to_the_model_are_told_with_the_first_of_them(
    run: Run, world: World
) -> None:
    result, kept = scored(run, world, one_hot_model(world.folder / "model").folder)
    levels = {"word": {"n_rows": 2, "first": "'new'"}}
    output, metrics = result["output"], result["metrics"]
    assert isinstance(output, dict)
    assert isinstance(metrics, dict)
    assert output["unknown_levels"] == kept["unknown_levels"] == levels
    assert metrics["values_unknown"] == 2
    told = "scored 4 rows at table version 0, values of 'word' unknown to the model: 2, such as"
    assert result["message"] == f"{told} 'new'"


def test_predictions_that_are_not_finite_are_told(run: Run, world: World) -> None:
    inputs = ColumnSchema((ColumnSpec("x", ScalarType.DOUBLE),))
    model = packaged(Third(), world.folder / "model", inputs=inputs).folder
    result, _ = scored(run, world, model)
    output = result["output"]
    assert isinstance(output, dict)
    assert output["not_finite"] == 2
    told = "scored 4 rows at table version 0, NaN or infinite predictions: 2"
    assert result["message"] == told
