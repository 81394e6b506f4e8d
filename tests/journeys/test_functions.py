"""A job that asks a model by another function than the packaged one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from deltalake import DeltaTable
from sklearn.linear_model import LogisticRegression

from sparkscore.flavors import save_model
from tests.journeys.conftest import register

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

JOB = """\
model: models:/late@champion
source: {uri: ./rows}
target: {uri: ./scores}
key: [id]
predict: predict_proba
"""


def test_chosen_function_is_planned_scored_by_all_engines_and_on_record(
    world: World, run: Run
) -> None:
    rows = pd.DataFrame({"x": [0.0, 100.0, 150.0, 250.0]})
    model = LogisticRegression().fit(rows, [0, 0, 1, 1])
    save_model(model, world.folder / "late-package", input_example=rows)
    assert register(world.folder / "late-package", "late") == 0
    job = world.folder / "late.yaml"
    job.write_text(JOB, "utf-8")
    planned = run("score", "plan", "--job", str(job), "-o", "json")
    assert planned.exit_code == 0, planned.stderr
    facts = json.loads(planned.stdout)
    assert facts["predict"] == "predict_proba"
    assert facts["score_columns"][:2] == ["id", "predict_proba"]
    answers, run_ids = [], []
    for engine in ("files", "arrow", "pandas"):
        target = f"scores-{engine}"
        done = run("score", "batch", "--job", str(job), "--target", target, "--engine", engine)
        assert done.exit_code == 0, done.stderr
        answers.append(DeltaTable(target).to_pyarrow_table().sort_by("id"))
        run_ids.append(done.result["run_id"])
    scores = answers[0]["predict_proba"].to_pylist()
    assert all(len(each) == 2 and abs(sum(each) - 1) < 1e-12 for each in scores)
    assert all(answer["predict_proba"].to_pylist() == scores for answer in answers)
    record = json.loads(run("runs", "show", run_ids[-1], "-o", "json").stdout)
    assert record["params"]["predict"] == "predict_proba"
    wrong = run("score", "batch", "--job", str(job), "--predict", "predict_prob")
    assert wrong.result["error"]["code"] == "CONFIG_INVALID"
    assert "did you mean 'predict_proba'" in wrong.result["message"]
