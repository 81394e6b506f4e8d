"""Params of a job: from its file and from flags, to the model, and on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sparkscore.flavors import save_model
from sparkscore.package.signature import infer_signature
from tests.journeys.conftest import register

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

SCRIPT = """
import sparkscore


def predict(rows, params):
    return rows["x"] * params["slope"] + len(params["word"])


sparkscore.set_model(predict)
"""
JOB = """\
model: models:/line@champion
source: {uri: ./rows}
target: {uri: ./scores}
key: [id]
params: {slope: 3, word: abc}
"""


@pytest.fixture
def job(world: World) -> Path:
    """A job for a registered script that takes two params."""
    (world.folder / "line.py").write_text(SCRIPT, "utf-8")
    signature = infer_signature(
        pa.table({"x": [0.5]}), pa.table({"prediction": [2.0]}), {"slope": 1.0, "word": ""}
    )
    save_model("line.py", world.folder / "line-package", signature=signature)
    assert register(world.folder / "line-package", "line") == 0
    path = world.folder / "line.yaml"
    path.write_text(JOB, "utf-8")
    return path


def first_scores(target: str) -> list[object]:
    table = DeltaTable(target).to_pyarrow_table().sort_by("id")
    scores: list[object] = table["prediction"].slice(0, 3).to_pylist()
    return scores


def test_params_of_file_and_flags_reach_the_model_and_the_record(run: Run, job: Path) -> None:
    args = ("score", "batch", "--job", str(job), "--trust-code")
    answer = run(*args, "--run-key", "k1", "--param", "word=0123")
    assert answer.exit_code == 0, answer.stderr
    assert first_scores("scores") == [4.0, 4.375, 4.75]
    shown = run("runs", "show", answer.result["run_id"], "-o", "json")
    recorded = json.loads(shown.stdout)["params"]["params"]
    assert json.loads(recorded) == {"slope": 3.0, "word": "0123"}
    other = run(*args, "--run-key", "k1")
    assert other.result["error"]["code"] == "RUN_KEY_CONFLICT"


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("slope=steep", "param 'slope' is 'steep', but the model's signature declares double"),
        ("slop=2", "param 'slop' is unknown to the model (did you mean 'slope'?)"),
        ("slope", "--param 'slope' is not of the form NAME=VALUE"),
    ],
)
def test_param_that_does_not_fit_ends_with_2(run: Run, job: Path, param: str, said: str) -> None:
    answer = run("score", "batch", "--job", str(job), "--trust-code", "--param", param)
    assert (answer.exit_code, answer.result["error"]["code"]) == (2, "CONFIG_INVALID")
    assert said in answer.result["error"]["message"]
    assert not Path("scores").exists()


def test_script_of_a_package_is_not_run_without_trust(run: Run, job: Path) -> None:
    answer = run("score", "batch", "--job", str(job))
    assert (answer.exit_code, answer.result["error"]["code"]) == (4, "PACKAGE_UNTRUSTED")
    assert "line.py is a script" in answer.result["error"]["message"]
