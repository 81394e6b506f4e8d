"""What it costs that a killed job can go on: jobs that keep a ledger beside jobs that keep none.

Each pair takes turns in each round; the first round is a warm-up. The one without a ledger reads
the same table as a source whose version nobody has pinned. For a merge, the other one has Spark
write the scores at once, without files of Python's in between.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.main_job import workspace_in
from benchmarks.workloads import Workload, Workshop
from sparkscore.errors import EngineUnfitError
from sparkscore.files.ledger import Ledger
from sparkscore.files.writing import WrittenFile
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, WriteMode, plan_scoring
from sparkscore.spark.delta import DeltaSink
from sparkscore.spark.engine import SparkEngine
from sparkscore.spark.score_files import TaskResult
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.files.sink import FilesSink
    from sparkscore.scoring.facts import SourceTable
    from sparkscore.spark.frame_files import CrossingColumns
    from sparkscore.spark.source import OpenedSource
    from sparkscore.spark.staged_files import StagedSink

WORKLOAD = "linear 4M x 28"
SMALL_CHUNK = 2 * 2**20

Job = Callable[[], object]

_N_CHUNKS = 1000
_FILES = (WrittenFile("part-0", 10**7, 10**6, {}, '{"numRecords": 1000000}', 0),)


class AtOnce(SparkEngine):
    """The engine where Spark writes the scores itself."""

    def _by_python(
        self, plan: ScoringPlan, source: OpenedSource, sink: DeltaSink
    ) -> tuple[FilesSink | StagedSink, CrossingColumns]:
        raise EngineUnfitError(f"{plan.request.target}, {sink.uri}, {source.table.uri}: at once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="Times the rows of the table.")
    parser.add_argument("--rounds", type=int, default=7, help="Rounds that count.")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-"))
    workspace = workspace_in(folder, f"local[{len(os.sched_getaffinity(0))}]")
    try:
        workload = Workshop(folder, args.scale).workload(WORKLOAD)
        pairs = _pairs(workspace, workload, folder)
        print(_calls(folder / "calls"), flush=True)
        print(f"\n{WORKLOAD}, {workload.n_rows:,} rows, medians of {args.rounds} rounds\n")
        print("| job | s | s without | ratio, median (min-max) |\n|---|---|---|---|")
        for name, jobs in pairs.items():
            seconds = [[_seconds(job) for job in jobs] for _ in range(args.rounds + 1)][1:]
            kept, plain = (statistics.median(each) for each in zip(*seconds, strict=True))
            ratios = sorted(a / b for a, b in seconds)
            spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
            print(f"| {name} | {kept:.2f} | {plain:.2f} | {spread} |", flush=True)
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)


def _calls(folder: Path) -> str:
    """What the ledger itself takes on this disk, by the chunks of a run."""
    folder.mkdir()
    result = TaskResult(_FILES, (), 1.0, 1.0, 1.0).to_json()
    first, second = (Ledger(folder, "run", letter * 32, letter, "inputs") for letter in "ab")
    first.claim(1)
    kept = [_seconds(partial(first.record, f"{i:032}", result)) for i in range(_N_CHUNKS)]
    found = _seconds(lambda: second.claim(1))
    removed = _seconds(lambda: second.remove([first.attempt]))
    return (
        f"A chunk is recorded in {statistics.median(kept) * 1000:.2f} ms; {_N_CHUNKS} are found in "
        f"{found * 1000:.0f} ms and removed in {removed * 1000:.0f} ms"
    )


def _seconds(job: Job) -> float:
    started = perf_counter()
    job()
    return perf_counter() - started


def _pairs(workspace: Workspace, workload: Workload, folder: Path) -> dict[str, tuple[Job, Job]]:
    """A job with a ledger and one without, by what they do."""
    spec = SourceSpec(str(workload.source))
    model = workspace.model(str(workload.package))
    targets = (str(folder / f"scores-{i}") for i in count())
    facts = RunFacts("ledger", dt.datetime.now(dt.UTC))
    files, arrow = workspace.files_engine, workspace.spark_engine("arrow")
    at_once = AtOnce(arrow.spark, "arrow", arrow.trust, arrow.limits)

    def plan(table: SourceTable, mode: WriteMode, *, is_pinned: bool) -> ScoringPlan:
        asked = ScoringRequest("ledger", next(targets), keys=("id",), keep=workload.keep, mode=mode)
        made = plan_scoring(model, table, asked)
        return made if is_pinned else replace(made, source=replace(table, version=""))

    def by_files(max_chunk_bytes: int, *, is_pinned: bool = True) -> None:
        engine = replace(files, max_chunk_bytes=max_chunk_bytes)
        source = engine.open(spec)
        made = plan(source.table, WriteMode.APPEND, is_pinned=is_pinned)
        engine.run(made, source, workspace.files_sink(made.request.target), facts)

    def by_spark(
        engine: SparkEngine, mode: WriteMode = WriteMode.APPEND, *, is_pinned: bool = True
    ) -> None:
        source = engine.open(spec)
        made = plan(source.table, mode, is_pinned=is_pinned)
        engine.run(made, source, DeltaSink(engine.spark, made.request.target), facts)

    small = replace(arrow, max_chunk_bytes=SMALL_CHUNK)
    return {
        "files": (
            lambda: by_files(files.max_chunk_bytes),
            lambda: by_files(files.max_chunk_bytes, is_pinned=False),
        ),
        "files, chunks of 2 MiB": (
            lambda: by_files(SMALL_CHUNK),
            lambda: by_files(SMALL_CHUNK, is_pinned=False),
        ),
        "arrow": (lambda: by_spark(arrow), lambda: by_spark(arrow, is_pinned=False)),
        "arrow, chunks of 2 MiB": (
            lambda: by_spark(small),
            lambda: by_spark(small, is_pinned=False),
        ),
        "arrow, merge into a new table": (
            lambda: by_spark(arrow, WriteMode.MERGE),
            lambda: by_spark(at_once, WriteMode.MERGE),
        ),
    }


if __name__ == "__main__":
    main()
