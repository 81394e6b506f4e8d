"""The peers of streams, in an environment of their own: JSON lines in and out.

The first line is the Spark conf. Each further one is a stream from a Delta table into another:
contender, package, source, columns, files (of a micro-batch), target, checkpoint. With `runs` it
goes on until a line says that it shall end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TextIO

import mlflow
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

Job = Mapping[str, object]


def main() -> None:
    """Answer each job with one line, at its end: {} or {"error": text}."""
    builder = SparkSession.builder
    for key, value in json.loads(sys.stdin.readline()).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    answers, sys.stdout = sys.stdout, sys.stderr  # MLflow's own prints must not be answers.
    tell(answers, {})
    for line in sys.stdin:
        try:
            run(spark, json.loads(line), partial(tell, answers))
        except Exception as exc:  # noqa: BLE001 - told to the process that asked
            tell(answers, {"error": f"{type(exc).__name__}: {exc}"})
    spark.stop()


def tell(answers: TextIO, answer: Mapping[str, object]) -> None:
    """Write a line."""
    print(json.dumps(answer), file=answers, flush=True)


def run(spark: SparkSession, job: Job, answer: Callable[[Mapping[str, object]], None]) -> None:
    """Run a stream until it has read its source, or until it shall end."""
    source = spark.readStream.format("delta").option("maxFilesPerTrigger", str(job["files"]))
    frame = source.load(str(job["source"]))
    writer = _CONTENDERS[str(job["contender"])](spark, frame, job)
    writer = writer.option("checkpointLocation", str(job["checkpoint"]))
    if not job["runs"]:
        writer.trigger(availableNow=True).start().awaitTermination()
        answer({})
        return
    query = writer.trigger(processingTime="0 seconds").start()
    answer({})
    sys.stdin.readline()
    query.stop()
    answer({})


def _mlflow(spark: SparkSession, frame: DataFrame, job: Job) -> DataStreamWriter:
    """MLflow's column, and Delta's own sink, which is exactly-once by query and batch."""
    columns = job["columns"]
    assert isinstance(columns, list)
    predict = mlflow.pyfunc.spark_udf(spark, str(job["package"]), env_manager="local")
    scored = frame.select("id", "tick", predict(*columns).alias("prediction"))
    return scored.writeStream.format("delta").option("path", str(job["target"]))


def _copy(spark: SparkSession, frame: DataFrame, job: Job) -> DataStreamWriter:  # noqa: ARG001 - as all
    """No model: Delta to Delta by Spark alone."""
    return frame.select("id", "tick").writeStream.format("delta").option("path", str(job["target"]))


_CONTENDERS: Mapping[str, Callable[[SparkSession, DataFrame, Job], DataStreamWriter]] = {
    "mlflow.pyfunc.spark_udf": _mlflow,
    "Spark, no model": _copy,
}


if __name__ == "__main__":
    main()
