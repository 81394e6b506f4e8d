"""MLflow's side of the benchmark: JSON lines in, seconds out; runs in MLflow's own environment.

The first line is the Spark conf; each further one a job: package, source, columns, target.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping

import mlflow
from pyspark.sql import SparkSession


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


def score(spark: SparkSession, job: Mapping[str, object]) -> float:
    """Seconds of one whole job, Delta to Delta, as MLflow's documentation writes it."""
    started = time.perf_counter()
    predict = mlflow.pyfunc.spark_udf(spark, str(job["package"]), env_manager="local")
    columns = job["columns"]
    assert isinstance(columns, list)
    source = spark.read.format("delta").load(str(job["source"]))
    scored = source.select("id", predict(*columns).alias("prediction"))
    scored.write.format("delta").save(str(job["target"]))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
