"""A whole job on a real cluster whose executors have no sparkscore."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable

from sparkscore import infer_signature, save_model
from sparkscore.environments.source import zipped_source
from sparkscore.spark.launch import LAUNCH_OPTIONS

if TYPE_CHECKING:
    import pandas as pd

    from tests.journeys.conftest import Batch, World

_N_FILES = 40


def bare_python(folder: Path) -> Path:
    """An interpreter with all installed libraries, but without what .pth files link in."""
    script = folder / "bare-python"
    site = sysconfig.get_paths()["purelib"]
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{site}:$PYTHONPATH" exec "{sys.executable}" -S "$@"\n'
    )
    script.chmod(0o755)
    return script


def save_witness(folder: Path) -> None:
    """Package a model that answers 2 * x + 1, and where its worker has sparkscore from."""

    class Witness:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import pandas

            import sparkscore

            values = {"prediction": model_input["x"] * 2.0 + 1.0, "code": sparkscore.__file__}
            return pandas.DataFrame(values)

    signature = infer_signature(
        pa.table({"x": [0.5]}), pa.table({"prediction": [2.0], "code": ["somewhere"]})
    )
    save_model(Witness(), folder, flavor="python_function", signature=signature)


def test_executors_without_sparkscore_score_40_partitions_with_one_load_a_worker(
    world: World, batch: Batch, standalone_master: str
) -> None:
    python = bare_python(world.folder)
    hidden = subprocess.run(
        [python, "-c", "import pyarrow, sparkscore"],
        cwd=world.folder,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'sparkscore'" in hidden.stderr
    save_witness(world.folder / "witness")
    settings = {
        "spark.master": standalone_master,
        "spark.conf.spark.pyspark.python": str(python),
        "spark.conf.spark.pyspark.driver.python": sys.executable,
        "spark.conf.spark.executor.memory": "512m",
        "spark.conf.spark.executor.extraJavaOptions": os.environ[LAUNCH_OPTIONS],
        # Spark's 200 and Delta's 50 tasks are for larger tables than these.
        "spark.conf.spark.sql.shuffle.partitions": "2",
        "spark.conf.spark.databricks.delta.snapshotPartitions": "2",
        # A file weighs as much as a partition may, so that each makes one.
        "spark.conf.spark.sql.files.openCostInBytes": "134217728",
    }
    options = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
    job = world.start(
        *options,
        *("score", "batch", *batch("./witness")),
        environ={"SPARK_LOCAL_IP": "127.0.0.1"},
    )
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    metrics = answer.result["metrics"]
    assert metrics["batches"] == _N_FILES
    assert metrics["model_loads_max_per_worker"] == 1
    assert 1 <= metrics["python_workers"] <= 2
    scores = world.scores("scores")
    assert scores["prediction"].to_pylist() == [i / 8 * 2.0 + 1.0 for i in range(2000)]
    table = DeltaTable(world.folder / "scores").to_pyarrow_table()
    (origin,) = set(table["code"].to_pylist())
    assert Path(origin).parents[1].suffix == ".zip"


def test_the_zip_of_our_source_is_the_same_each_time_and_holds_source_only(tmp_path: Path) -> None:
    room = tmp_path / "room"
    (room / "__pycache__").mkdir(parents=True)
    (room / "b.py").write_text("B = 1\n")
    (room / "a.py").write_text("A = 1\n")
    (room / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    first = zipped_source(room)
    (room / "a.py").touch()
    assert zipped_source(room) == first
    (tmp_path / "room.zip").write_bytes(first)
    assert zipfile.ZipFile(tmp_path / "room.zip").namelist() == ["room/a.py", "room/b.py"]
