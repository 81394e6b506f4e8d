"""Whole jobs within the cores and the memory that their tasks have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from sparkscore import Workspace, infer_signature, save_model
from sparkscore.spark.launch import LAUNCH_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from tests.journeys.conftest import Answer, Batch, World

MEMORY = {"spark.conf.spark.executor.pyspark.memory": "2g"}
"""An address space that holds a worker with its libraries, and little more than a GiB besides."""


def save_hungry(folder: Path, bytes_a_row: int = 0, bytes_loaded: int = 0) -> None:
    """Package the model x + 0, which takes memory for each row, and when it is loaded."""

    class Hungry:  # Local, so that it is pickled by value.
        def load_context(self, context: object) -> None:  # noqa: ARG002
            import numpy as np

            self.weights = np.zeros(bytes_loaded, dtype=np.int8)

        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import numpy as np

            taken = np.zeros((len(model_input), bytes_a_row + 1), dtype=np.int8)
            return model_input["x"].to_numpy() + taken[:, -1]

    inputs = pa.table({"x": [0.5]})
    outputs = pa.table({"prediction": [2.0]})
    signature = infer_signature(inputs, outputs)
    save_model(Hungry(), folder, flavor="python_function", signature=signature)


def save_forest(folder: Path, before_fork: str) -> None:
    """Package a forest that scores with OpenMP, and does something of note when it is loaded."""

    class Forest:  # Local, so that it is pickled by value.
        def __init__(self) -> None:
            import numpy as np
            from sklearn.ensemble import HistGradientBoostingRegressor

            x = np.arange(200.0).reshape(-1, 1)
            self.trees = HistGradientBoostingRegressor(max_iter=5).fit(x, x[:, 0])

        def load_context(self, context: object) -> None:  # noqa: ARG002
            import os
            import threading

            import pyarrow as pa
            import pyarrow.compute as pc
            from threadpoolctl import threadpool_limits

            if before_fork == "prints":
                print("loaded")  # noqa: T201 - stdout is where Spark awaits the daemon's port
            elif before_fork == "fails" and "SPARKSCORE_PRELOAD" in os.environ:
                raise ConnectionError("only workers reach the service")
            elif before_fork == "scores with OpenMP":
                threadpool_limits(2)
                self.trees.predict([[0.5]] * 10_000)
            elif before_fork == "uses the pool of pyarrow":
                pa.set_cpu_count(2)
                table = pa.table({"k": list(range(100_000)) * 10})
                pc.sum(table.group_by("k").aggregate([("k", "count")])["k_count"])
            elif before_fork == "starts a thread":
                threading.Thread(target=threading.Event().wait, daemon=True).start()

        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            return self.trees.predict(model_input[["x"]].to_numpy())

    inputs = pa.table({"x": [0.5]})
    outputs = pa.table({"prediction": [2.0]})
    signature = infer_signature(inputs, outputs)
    save_model(Forest(), folder, flavor="python_function", signature=signature)


def answer_of(world: World, settings: dict[str, str], words: list[str]) -> Answer:
    options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    return world.start(*options, "score", "batch", *words).answer()


@pytest.mark.parametrize("n_cores", ["1", "2"])
def test_record_says_how_many_threads_a_task_had(n_cores: str, world: World, batch: Batch) -> None:
    settings = {"spark.master": "local[2]", "spark.conf.spark.task.cpus": n_cores}
    answer = answer_of(world, settings, batch())
    assert answer.exit_code == 0, answer.stderr
    (run,) = Workspace.open().runs.list_runs()
    assert run.tags["sparkscore.threads_per_task"] == n_cores


@pytest.mark.parametrize("engine", ["files", "arrow"])
def test_batches_that_a_worker_cannot_hold_are_split(
    engine: str, world: World, batch: Batch
) -> None:
    save_hungry(world.folder / "hungry", bytes_a_row=80 * 2**20)
    answer = answer_of(world, MEMORY, [*batch("./hungry"), "--engine", engine])
    assert answer.exit_code == 0, answer.stderr
    assert answer.result["metrics"]["batches_split"] > 0
    assert world.scores("scores")["prediction"].to_pylist() == [i / 8 for i in range(2000)]


@pytest.mark.parametrize(
    ("bytes_a_row", "bytes_loaded", "says"),
    [
        (2**40, 0, "model 'hungry' ran out of memory on a batch of 1 row"),
        (0, 3 * 2**30, f"does not fit into the {2 * 2**30} bytes of memory"),
    ],
    ids=["row", "model"],
)
def test_what_a_worker_cannot_hold_is_one_message_and_no_commit(
    bytes_a_row: int, bytes_loaded: int, says: str, world: World, batch: Batch
) -> None:
    save_hungry(world.folder / "hungry", bytes_a_row, bytes_loaded)
    answer = answer_of(world, MEMORY, batch("./hungry"))
    assert answer.exit_code == 4
    message, step = answer.stderr.strip().splitlines()[-2:]
    assert message.startswith("error [MODEL_TOO_LARGE]: ")
    assert step.startswith("next: ")
    assert says in message
    assert "Unable to allocate" in message
    assert world.commits("scores") == []


@pytest.mark.parametrize("engine", ["files", "arrow"])
def test_preloaded_model_is_in_each_worker_from_the_start(
    engine: str, world: World, batch: Batch
) -> None:
    settings = {"spark.master": "local[2]"}
    words = [*batch(), "--engine", engine, "--preload"]
    answer = answer_of(world, settings, words)
    assert answer.exit_code == 0, answer.stderr
    assert answer.result["metrics"]["model_loads"] == 0
    assert answer.result["metrics"]["model_loads_max_per_worker"] == 1
    assert world.scores("scores")["prediction"].to_pylist() == [i / 4 + 1 for i in range(2000)]


def test_daemons_of_a_cluster_preload_what_spark_has_brought_them(
    world: World, batch: Batch, standalone_master: str
) -> None:
    settings = {
        "spark.master": standalone_master,
        "spark.conf.spark.executor.memory": "512m",
        "spark.conf.spark.executor.extraJavaOptions": os.environ[LAUNCH_OPTIONS],
    }
    options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    job = world.start(
        *options,
        *("score", "batch", *batch(), "--preload"),
        environ={"SPARK_LOCAL_IP": "127.0.0.1"},
    )
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    assert answer.result["metrics"]["model_loads"] == 0
    assert world.scores("scores")["prediction"].to_pylist() == [i / 4 + 1 for i in range(2000)]


@pytest.mark.parametrize(
    ("before_fork", "is_preloaded"),
    [
        ("prints", True),
        ("fails", False),
        ("scores with OpenMP", False),
        ("uses the pool of pyarrow", False),
        ("starts a thread", False),
    ],
)
def test_worker_never_waits_for_threads_that_a_fork_has_left_behind(
    before_fork: str, is_preloaded: bool, world: World, batch: Batch
) -> None:
    save_forest(world.folder / "forest", before_fork)
    settings = {"spark.master": "local[2]", "spark.conf.spark.task.cpus": "2"}
    answer = answer_of(world, settings, [*batch("./forest"), "--preload"])
    assert answer.exit_code == 0, answer.stderr
    assert (answer.result["metrics"]["model_loads"] == 0) == is_preloaded
    assert ("no model is preloaded" in answer.stderr) == (not is_preloaded)
    assert answer.result["output"]["rows"] == 2000
