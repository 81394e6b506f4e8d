"""The peers of streams, in an environment of their own: JSON lines in and out.

The first line is the Spark conf. Each further one is a stream from a Delta table into another:
contender, package, source, columns, keep, files (of a micro-batch), target, checkpoint. With
`runs` true it goes on until a line comes that says `end`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import mlflow
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

Job = Mapping[str, object]


def main() -> None:
    """Answer each job with one line: {"periods": seconds between batches} or {"error": text}."""
    builder = SparkSession.builder
    for key, value in json.loads(sys.stdin.readline()).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    answers, sys.stdout = sys.stdout, sys.stderr  # MLflow's own prints must not be answers.
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer: Mapping[str, object] = score(spark, json.loads(line))
        except Exception as exc:  # noqa: BLE001 - told to the process that asked
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers, flush=True)
    spark.stop()
