"""The peers on Spark, in an environment of their own: JSON lines in, seconds out.

The first line is the Spark conf. Each further one is a job: contender, package, pickled, source,
columns, keep, target. All read the table as a Spark DataFrame and write a Delta table.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import DoubleType

Job = Mapping[str, object]


def main() -> None:
    """Answer each job with one line: {"seconds": s} or {"error": text}."""
    builder = SparkSession.builder
    for key, value in json.loads(sys.stdin.readline()).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    answers, sys.stdout = sys.stdout, sys.stderr  # MLflow's own prints must not be answers.
    print(json.dumps({"seconds": 0.0}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer: Mapping[str, object] = {"seconds": score(spark, json.loads(line))}
        except Exception as exc:  # noqa: BLE001 - told to the process that asked
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers, flush=True)
    spark.stop()


def score(spark: SparkSession, job: Job) -> float:
    """Seconds of one whole job, Delta to Delta."""
    started = time.perf_counter()
    prediction = _CONTENDERS[str(job["contender"])](spark, job)
    source = spark.read.format("delta").load(str(job["source"]))
    scored = source.select("id", *_names(job, "keep"), prediction.alias("prediction"))
    scored.write.format("delta").save(str(job["target"]))
    return time.perf_counter() - started


def _mlflow(spark: SparkSession, job: Job) -> Column:
    """As MLflow's documentation writes it."""
    predict = mlflow.pyfunc.spark_udf(spark, str(job["package"]), env_manager="local")
    column: Column = predict(*_names(job, "columns"))
    return column


def _predict_batch(_spark: SparkSession, job: Job) -> Column:
    """As Spark's documentation writes it: one array column, numpy in and out."""
    pickled, columns = str(job["pickled"]), _names(job, "columns")

    def make_predict() -> Callable[[np.ndarray], np.ndarray]:
        model = pickle.loads(Path(pickled).read_bytes())
        return lambda inputs: np.asarray(model.predict(inputs), dtype=np.float64)

    predict = predict_batch_udf(
        make_predict,
        return_type=DoubleType(),
        batch_size=10_000,
        input_tensor_shapes=[[len(columns)]],
    )
    column: Column = predict(sf.array(*columns))
    return column


def _pandas_udf(_spark: SparkSession, job: Job) -> Column:
    """An iterator of tuples of series, which loads the model once a task."""
    pickled, columns = str(job["pickled"]), _names(job, "columns")

    @pandas_udf("double")  # type: ignore[call-overload, untyped-decorator]  # so its stubs
    def predict(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.Series]:
        model = pickle.loads(Path(pickled).read_bytes())
        for series in batches:
            one_column = len(columns) == 1  # It comes without its tuple.
            frame = pd.DataFrame(
                dict(zip(columns, [series] if one_column else series, strict=True))
            )
            yield pd.Series(np.asarray(model.predict(frame), dtype=np.float64))

    column: Column = predict(*columns)
    return column


def _names(job: Job, key: str) -> list[str]:
    names = job[key]
    assert isinstance(names, list)
    return names


_CONTENDERS: Mapping[str, Callable[[SparkSession, Job], Column]] = {
    "mlflow.pyfunc.spark_udf": _mlflow,
    "predict_batch_udf": _predict_batch,
    "pandas_udf": _pandas_udf,
}


if __name__ == "__main__":
    main()
