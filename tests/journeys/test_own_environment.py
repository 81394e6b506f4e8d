"""Whole jobs with a model whose library is nowhere but in an environment of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sparkscore import Workspace, infer_signature, save_model
from sparkscore.spark.launch import LAUNCH_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from tests.journeys.conftest import Batch, Run, World

LIBRARY, VERSION = "humanize", "4.9.0"


@pytest.fixture
def witness(world: World) -> Path:
    """A package whose model answers with the version of a library that is not installed here."""

    class Witness:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import humanize  # type: ignore[import-not-found]
            import pandas

            values = {"prediction": model_input["x"] * 3.0, "version": humanize.__version__}
            return pandas.DataFrame(values)

    folder = world.folder / "witness"
    outputs = pa.table({"prediction": [0.5], "version": ["1"]})
    save_model(
        Witness(),
        folder,
        flavor="python_function",
        signature=infer_signature(pa.table({"x": [0.5]}), outputs),
        extra_requirements=[f"{LIBRARY}=={VERSION}"],
    )
    return folder


def check_scores(world: World) -> None:
    table = DeltaTable(world.folder / "scores").to_pyarrow_table().sort_by("id")
    assert table["prediction"].to_pylist() == [i / 8 * 3.0 for i in range(2000)]
    assert set(table["version"].to_pylist()) == {VERSION}


@pytest.mark.parametrize("engine", ["files", "arrow", "pandas"])
def test_model_is_scored_in_its_own_environment(
    engine: str, world: World, batch: Batch, witness: Path
) -> None:
    words = [*batch(str(witness)), "--engine", engine, "--env-manager", "virtualenv"]
    answer = world.start("score", "batch", *words).answer()
    assert answer.exit_code == 0, answer.stderr
    check_scores(world)
    (run,) = Workspace.open().runs.list_runs()
    assert run.params["environment"]


def test_executors_get_the_environment_as_an_archive(
    world: World, batch: Batch, witness: Path, standalone_master: str
) -> None:
    settings = {
        "spark.master": standalone_master,
        "spark.conf.spark.pyspark.python": sys.executable,
        "spark.conf.spark.executor.memory": "512m",
        "spark.conf.spark.executor.extraJavaOptions": os.environ[LAUNCH_OPTIONS],
    }
    options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    words = [*batch(str(witness)), "--env-manager", "virtualenv"]
    job = world.start(*options, "score", "batch", *words, environ={"SPARK_LOCAL_IP": "127.0.0.1"})
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    check_scores(world)


def test_what_workers_lack_is_told_before_the_first_row(
    world: World, batch: Batch, witness: Path
) -> None:
    answer = world.start("score", "batch", *batch(str(witness))).answer()
    assert answer.exit_code == 4
    lacking = f"{LIBRARY}: the package needs {LIBRARY}=={VERSION}, here it is not installed"
    assert lacking in answer.stderr
    assert answer.stderr.index(lacking) < answer.stderr.index("Scoring into")
    strict = ["--set", "scoring.environment_check=fail"]
    refused = world.start(*strict, "score", "batch", *batch(str(witness))).answer()
    assert refused.exit_code == 4
    assert refused.result["error"]["code"] == "ENVIRONMENT_MISMATCH"
    assert lacking in refused.stderr
    assert "Scoring into" not in refused.stderr
    assert world.commits("scores") == []


def test_environment_is_checked_and_built_by_name(run: Run, witness: Path) -> None:
    checked = run("env", "check", str(witness), "-o", "json")
    assert checked.exit_code == 4
    assert json.loads(checked.stdout) == [
        {
            "where": "here",
            "name": LIBRARY,
            "needed": f"{LIBRARY}=={VERSION}",
            "found": "not installed",
        }
    ]
    built = run("env", "build", str(witness), "-o", "json")
    assert built.exit_code == 0
    assert json.loads(built.stdout) == json.loads(
        run("env", "build", str(witness), "-o", "json").stdout
    )
    assert run("env", "check", "models:/linear@champion").exit_code == 0
