"""The driver's time to commit many files of one run, by each of its two writers of logs.

No data file exists: the commit names them with sizes, partition values and statistics, as those of
a large job would be named. A round is a new table, one commit that makes it, and one that appends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import deltalake
import pyarrow as pa

from benchmarks.big_log import added
from benchmarks.main_job import workspace_in
from sparkscore.files import rust_log
from sparkscore.files.change import TableChange
from sparkscore.files.writing import WrittenFile
from sparkscore.spark.delta_log import JvmLogWriter

SCHEMA = deltalake.Schema.from_arrow(
    pa.schema([("day", pa.int32()), ("id", pa.int64()), ("x", pa.float64()), ("y", pa.float64())])
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-"))
    workspace = workspace_in(folder, f"local[{len(os.sched_getaffinity(0))}]")
    try:
        jvm = JvmLogWriter(workspace.spark)
        print(f"{'files':>10}{'deltalake s':>14}{'Delta, JVM s':>14}")
        for n_files in args.files:
            rust: list[float] = []
            java: list[float] = []
            for number in range(args.rounds):
                table = folder / f"{n_files}-{number}"
                made = TableChange(0, "made", 1, "{}", (written(0),))
                rust_log.create_table(str(table), made, SCHEMA, ["day"])
                rust.append(timed_by_rust(table, change_of(n_files, version=0, app_id="rust")))
                started = perf_counter()
                jvm.commit(str(table), change_of(n_files, version=1, app_id="jvm"))
                java.append(perf_counter() - started)
            seconds = f"{statistics.median(rust):14.2f}{statistics.median(java):14.2f}"
            print(f"{n_files:10,}{seconds}", flush=True)
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)


def timed_by_rust(table: Path, change: TableChange) -> float:
    opened = deltalake.DeltaTable(table)
    started = perf_counter()
    rust_log.commit(opened, change, SCHEMA, ["day"])
    return perf_counter() - started


def change_of(n_files: int, version: int, app_id: str) -> TableChange:
    files = tuple(written(i) for i in range(n_files))
    metrics = {"numFiles": n_files, "numOutputRows": sum(file.n_rows for file in files)}
    return TableChange(version, app_id, 1, "{}", files, metrics=metrics)


def written(i: int) -> WrittenFile:
    """A file as the simulated log of many files has it."""
    facts = added(i)
    partition = facts["partitionValues"]
    assert isinstance(partition, dict)
    return WrittenFile(
        path=str(facts["path"]),
        n_bytes=256 * 2**20,
        n_rows=1_000_000,
        partition=partition,
        statistics=str(facts["stats"]),
        modified_ms=0,
    )


if __name__ == "__main__":
    main()
