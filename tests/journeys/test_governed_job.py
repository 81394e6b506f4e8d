"""Whole jobs within the cores and the memory that their tasks have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from sparkscore import Workspace, infer_signature, save_model

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from tests.journeys.conftest import Answer, Batch, World

MEMORY = {"spark.conf.spark.executor.pyspark.memory": "2g"}
"""An address space that holds a worker with its libraries, and little more than a GiB besides."""


def save_hungry(folder: Path, bytes_a_row: int) -> None:
    """Package the model x + the number of a matrix's bytes that it does not fill."""

    class Hungry:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import numpy as np

            empty = np.zeros((len(model_input), bytes_a_row), dtype=np.int8)
            return model_input["x"].to_numpy() + empty[:, -1]

    inputs = pa.table({"x": [0.5]})
    outputs = pa.table({"prediction": [2.0]})
    signature = infer_signature(inputs, outputs)
    save_model(Hungry(), folder, flavor="python_function", signature=signature)


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


def test_row_that_a_worker_cannot_hold_is_one_message_and_no_commit(
    world: World, batch: Batch
) -> None:
    save_hungry(world.folder / "hungry", bytes_a_row=2**40)
    answer = answer_of(world, MEMORY, batch("./hungry"))
    assert answer.exit_code == 4
    message = answer.stderr.strip().splitlines()[-1]
    assert message.startswith("error [MODEL_TOO_LARGE]: model 'hungry' ran out of memory")
    assert "Unable to allocate 1.00 T" in message
    assert world.commits("scores") == []
