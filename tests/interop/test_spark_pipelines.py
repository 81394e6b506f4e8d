"""Pipelines of Spark ML pass between MLflow's flavor `spark` and ours, in both directions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.signature import ArrayType, ScalarType
from sparkscore.spark.java import find_java

if TYPE_CHECKING:
    pass

ROWS = pd.DataFrame(
    {
        "x": np.linspace(-3, 3, 40),
        "n": np.arange(40, dtype=np.int32) % 7,
        "word": ["left", "right", "middle", "right"] * 10,
    }
)

_PEER = """
import sys
import mlflow, numpy as np, pandas as pd
import pyspark.sql
from mlflow.models import infer_signature
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.ml.functions import array_to_vector

what, package, rows, answers, scratch = sys.argv[1:]
spark = (
    pyspark.sql.SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false").config("spark.sql.warehouse.dir", scratch).getOrCreate()
)
given = pd.read_parquet(rows)
if what == "pipeline":
    frame = spark.createDataFrame(given)
    model = Pipeline(stages=[
        StringIndexer(inputCol="word", outputCol="nth"),
        VectorAssembler(inputCols=["x", "n", "nth"], outputCol="features"),
        LogisticRegression(maxIter=5),
    ]).fit(frame.selectExpr("*", "cast(x > 0 as double) as label"))
    signature = infer_signature(given, model.transform(frame).select("prediction").toPandas())
if what == "vectors":
    frame = spark.createDataFrame(given).select(array_to_vector("features").alias("features"))
    labelled = frame.selectExpr("features", "cast(rand(1) > 0.5 as double) as label")
    model = LogisticRegression(maxIter=5).fit(labelled)
    signature = infer_signature(frame, model.transform(frame).select("probability", "prediction"))
if what != "read":
    how = {"dfs_tmpdir": scratch, "pip_requirements": ["pyspark"]}
    mlflow.spark.save_model(model, package, signature=signature, **how)
if what == "vectors":  # MLflow itself answers one column at most.
    answer = [row.prediction for row in model.transform(frame).collect()]
else:
    answer = mlflow.pyfunc.load_model(package).predict(given)
np.save(answers, answer)
"""


def peer(what: str, package: Path, rows: pd.DataFrame, folder: Path) -> np.ndarray:
    """What MLflow answers for rows by a package, which it writes before unless told to read."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    assert python, "SPARKSCORE_MLFLOW_PYTHON must name a Python with MLflow; make test does"
    rows.to_parquet(folder / "rows.parquet")
    answers, scratch = folder / "answers.npy", folder / "scratch"
    # PySpark takes a process without a file of its own for a doctest, and ends it.
    script = folder / "peer.py"
    script.write_text(_PEER, "utf-8")
    # The peer has a Spark of its own, and takes our Java.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYSPARK", "SPARK"))}
    env["JAVA_HOME"] = str(find_java(folder, os.environ).home)
    arguments = [what, package, folder / "rows.parquet", answers, scratch]
    done = subprocess.run(
        [python, "-W", "ignore", str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=env,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    answer: np.ndarray = np.load(answers)
    return answer


def answered(package: Path, rows: pd.DataFrame) -> object:
    opened = open_package(package)
    assert opened.description.signature is not None
    batch = record_batch(rows, column_inputs(opened.description.signature))
    return load_predictor(opened, TrustPolicy()).predict(batch)


@pytest.mark.usefixtures("spark")
def test_pipeline_of_mlflow_answers_the_same_without_any_trust(tmp_path: Path) -> None:
    expected = peer("pipeline", tmp_path / "p", ROWS, tmp_path)
    assert np.asarray(answered(tmp_path / "p", ROWS)).tolist() == expected.tolist()


@pytest.mark.usefixtures("spark")
def test_vectors_of_mlflow_are_lists_of_doubles(tmp_path: Path) -> None:
    rows = pd.DataFrame({"features": [[float(i % 3), float(i)] for i in range(20)]})
    expected = peer("vectors", tmp_path / "p", rows, tmp_path)
    signature = open_package(tmp_path / "p").description.signature
    assert signature is not None
    assert isinstance(signature.inputs, ColumnSchema)
    assert isinstance(signature.outputs, ColumnSchema)
    assert signature.inputs.columns[0].type == ArrayType(ScalarType.DOUBLE)
    assert signature.outputs.names == ("probability", "prediction")
    answer = answered(tmp_path / "p", rows)
    assert answer["prediction"].to_pylist() == expected.tolist()  # type: ignore[index]  # an Arrow table
    assert [sum(row) for row in answer["probability"].to_pylist()] == pytest.approx([1.0] * 20)  # type: ignore[index]


@pytest.mark.usefixtures("spark")
def test_own_pipeline_answers_the_same_in_mlflow(tmp_path: Path) -> None:
    from pyspark.ml.feature import Bucketizer

    model = Bucketizer(splits=[-9, -1, 1, 9], inputCol="x", outputCol="prediction")
    package = save_model(model, tmp_path / "p", input_example=ROWS[["x"]])
    expected = peer("read", package.folder, ROWS[["x"]], tmp_path)
    assert np.asarray(answered(package.folder, ROWS[["x"]])).tolist() == expected.tolist()
    assert len(set(expected.tolist())) == 3
