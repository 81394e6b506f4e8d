"""Driver memory and time for planning over a table of many files, whose log is simulated.

No data file exists: the log names them with sizes, partition values and statistics, as a checkpoint
of that table would. Timed are reading the log, choosing files by a filter, and cutting tasks.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from sparkscore.files.log import read_snapshot
from sparkscore.files.planning import plan_tasks
from sparkscore.files.sql import parse_predicate

N_DAYS = 1000
FILE_BYTES = 256 * 2**20
SCHEMA = {
    "type": "struct",
    "fields": [
        {"name": name, "type": kind, "nullable": True, "metadata": {}}
        for name, kind in (("day", "integer"), ("id", "long"), ("x", "double"), ("y", "double"))
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    n_files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_log(root, n_files)
        before = peak_mib()
        started = perf_counter()
        snapshot = read_snapshot(root, None)
        read = perf_counter()
        columns = tuple(column.column for column in snapshot.columns)
        chosen = snapshot.files(parse_predicate("day = 7 AND id >= 0", columns, "UTC"))
        filtered = perf_counter()
        everything = snapshot.files(None)
        listed = perf_counter()
        tasks = plan_tasks(everything, 64)
        planned = perf_counter()
    names = ("files", "chosen", "tasks", "open s", "choose s", "list s", "cut s", "MiB")
    print("".join(f"{name:>10}" for name in names))
    moments = (started, read, filtered, listed, planned)
    seconds = "".join(f"{end - start:10.2f}" for start, end in pairwise(moments))
    counts = "".join(f"{count:10}" for count in (n_files, len(chosen), len(tasks)))
    print(f"{counts}{seconds}{peak_mib() - before:10.0f}")


def write_log(root: Path, n_files: int) -> None:
    """A log of one checkpoint at version 0."""
    log = root / "_delta_log"
    log.mkdir()
    protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
    metadata = {
        "id": "00000000-0000-0000-0000-000000000000",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps(SCHEMA),
        "partitionColumns": ["day"],
        "configuration": {},
        "createdTime": 0,
    }
    with (log / f"{0:020}.json").open("w") as commit:
        commit.write(json.dumps({"protocol": protocol}) + "\n")
        commit.write(json.dumps({"metaData": metadata}) + "\n")
        for i in range(n_files):
            commit.write(json.dumps({"add": added(i)}) + "\n")


def added(i: int) -> dict[str, object]:
    statistics = {
        "numRecords": 1_000_000,
        "minValues": {"id": i * 1_000_000, "x": -4.5, "y": 0.25},
        "maxValues": {"id": (i + 1) * 1_000_000 - 1, "x": 4.5, "y": 7.75},
        "nullCount": {"id": 0, "x": 0, "y": 12},
    }
    day = i % N_DAYS
    return {
        "path": f"day={day}/part-{i:08}-c000.snappy.parquet",
        "partitionValues": {"day": str(day)},
        "size": FILE_BYTES,
        "modificationTime": 0,
        "dataChange": True,
        "stats": json.dumps(statistics),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
