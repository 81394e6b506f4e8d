"""The first job of a new process: from the start of `sparkscore score batch` to its end.

Beside it MLflow's job, as a script with a session of its own; both in turn, on the same small
table, from files that the warm-up has brought into the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.main_job import BASE, Peers, workspace_in
from benchmarks.workloads import Workload, Workshop
from sparkscore.workspace import Workspace

WORKLOAD = "linear 4M x 28"
SCALE = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", type=Path, required=True, help="Python with MLflow.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds that count.")
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-", dir=args.folder))
    try:
        workload = Workshop(folder, SCALE).workload(WORKLOAD)
        workspace = workspace_in(folder, f"local[{len(os.sched_getaffinity(0))}]")
        ours, theirs = [], []
        for number in range(args.rounds + 1):
            ours.append(_sparkscore(workload, workspace, folder / f"ours-{number}"))
            theirs.append(_mlflow(workload, workspace, args.peers_python, folder / f"{number}"))
            print(f"round {number}: {ours[-1]:.1f} s, MLflow {theirs[-1]:.1f} s", file=sys.stderr)
        print(
            f"| sparkscore score batch | {_spread(ours[1:])} |\n| {BASE} | {_spread(theirs[1:])} |"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sparkscore(workload: Workload, workspace: Workspace, target: Path) -> float:
    spark = workspace.settings.spark
    environ = {
        **os.environ,
        "SPARKSCORE__TRACKING__URI": f"sqlite:///{target}.db",
        "SPARKSCORE__ARTIFACTS__URI": f"{target}-artifacts",
        "SPARKSCORE__SPARK__MASTER": spark.master,
    }
    options = {
        "--model": workload.package,
        "--source": workload.source,
        "--target": target,
        "--key": "id",
    }
    flags = [str(part) for option in options.items() for part in option]
    command = [sys.executable, "-m", "sparkscore.cli", "score", "batch", *flags]
    started = perf_counter()
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return perf_counter() - started


def _mlflow(workload: Workload, workspace: Workspace, python: Path, target: Path) -> float:
    started = perf_counter()
    peers = Peers(python, workspace, with_class_archive=False)
    peers.score(workload, BASE, target)
    peers.close()
    return perf_counter() - started


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


if __name__ == "__main__":
    main()
