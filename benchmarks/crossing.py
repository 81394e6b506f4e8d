"""Where the time of a Spark-fed job goes: each piece of its way, timed by itself.

Reading in the JVM, packing the doubles into one array, crossing to Python, scoring, and writing: by
Python, and by Spark as Parquet and as Delta, with and without the five columns of origin. Pieces
take turns in each round; the first round is a warm-up.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import Observation
from pyspark.sql import functions as sf

from benchmarks.main_job import workspace_in
from benchmarks.workloads import Workload, Workshop
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.spark.file_scores import score_files_job
from sparkscore.spark.frame_files import crossing_columns
from sparkscore.spark.frame_scoring import FrameScoring
from sparkscore.spark.score_rows import scored_frame
from sparkscore.spark.shipped_task import shipped_task
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WORKLOAD = "linear 4M x 28"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.25, help="Times the rows of the table.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds that count.")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-"))
    workspace = workspace_in(folder, f"local[{len(os.sched_getaffinity(0))}]")
    try:
        workload = Workshop(folder, args.scale).workload(WORKLOAD)
        pieces = _pieces(workspace, workload, folder)
        seconds: dict[str, list[float]] = {name: [] for name in pieces}
        for number in range(args.rounds + 1):
            for name, run in pieces.items():
                started = perf_counter()
                run()
                if number:
                    seconds[name].append(perf_counter() - started)
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{WORKLOAD}, {workload.n_rows:,} rows, medians of {args.rounds} rounds")
    for name, taken in seconds.items():
        print(f"{name:44}{statistics.median(taken):7.2f} s")


def _pieces(
    workspace: Workspace, workload: Workload, folder: Path
) -> dict[str, Callable[[], None]]:
    engine = workspace.spark_engine("arrow")
    source = engine.open(SourceSpec(str(workload.source)))
    model = workspace.model(str(workload.package))
    asked = ScoringRequest("crossing", target="nowhere", keys=("id",), keep=workload.keep)
    plan = plan_scoring(model, source.table, asked)
    task = shipped_task(workspace.spark, plan, engine.rules)
    facts = RunFacts("crossing", dt.datetime.now(dt.UTC))
    limit = str(engine.limits.max_rows)
    workspace.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", limit)

    def scored() -> DataFrame:
        observations = Observation(), Observation()
        return scored_frame(plan, source.frame, task, facts, "arrow", observations)

    names = [binding.source.name for binding in plan.bindings if binding.source is not None]
    read = source.frame.select("id", *names)
    array = read.select("id", sf.array(*names).alias("packed"))
    targets = (folder / f"piece-{i}" for i in count())

    def score_into_files() -> None:
        sink = workspace.files_sink(str(next(targets)))
        job = score_files_job(plan, sink, task, facts, max_reports=16)
        crossing = crossing_columns(plan, source.frame)
        FrameScoring(source.frame, crossing, job, {}).run(None)

    def write(frame: DataFrame, kind: str) -> None:
        frame.write.format(kind).mode("append").save(str(next(targets)))

    return {
        "read in the JVM": lambda: write(read, "noop"),
        "... and pack": lambda: write(array, "noop"),
        "... and cross, the id back": lambda: write(array.mapInArrow(_id, "id long"), "noop"),
        "... and score into files by Python": score_into_files,
        "... and score, all columns back": lambda: write(scored(), "noop"),
        "... and write id and prediction as Parquet": lambda: write(
            scored().select("id", "prediction"), "parquet"
        ),
        "... and write all columns as Parquet": lambda: write(scored(), "parquet"),
        "... and write id and prediction as Delta": lambda: write(
            scored().select("id", "prediction"), "delta"
        ),
        "... and write all columns as Delta": lambda: write(scored(), "delta"),
    }


def _id(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.select(["id"])


if __name__ == "__main__":
    main()
