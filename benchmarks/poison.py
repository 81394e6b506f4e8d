"""What one row costs on which the model raises, among a million.

Whole jobs of the files engine over the same table and model; rounds are interleaved, and the
medians are compared: the policy to fail over rows without poison, the same under quarantine, and
quarantine with one poisoned row, of which it is checked that it alone was set aside.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.main_job import workspace_in
from benchmarks.workloads import write_files
from sparkscore import infer_signature, save_model
from sparkscore.batch_job import run_batch_job
from sparkscore.package import TrustPolicy
from sparkscore.workspace import Workspace

N_COLUMNS = 16
N_FILES = 16
POISON = 13.0


class Scorecard:
    """A product of a matrix and weights, as costly a row as a small forest; refuses the poison."""

    def __init__(self, width: int) -> None:
        self.hidden = np.random.default_rng(0).normal(size=(N_COLUMNS, width))

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row.

        Raises:
            ValueError: A row begins with the poison.
        """
        rows = model_input.to_numpy()
        if (rows[:, 0] == POISON).any():
            raise ValueError("the first column is 13")
        answer: np.ndarray = np.tanh(rows @ self.hidden).mean(axis=1)
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7, help="Rounds that count.")
    parser.add_argument("--width", type=int, default=64, help="Work a row.")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-"))
    workspace = workspace_in(folder, f"local[{len(os.sched_getaffinity(0))}]")
    try:
        tables = {name: table(folder / name, args.rows, name) for name in ("clean", "poisoned")}
        model = package(folder / "model", args.width)
        cases = {
            "fail, clean": ("clean", "fail"),
            "quarantine, clean": ("clean", "quarantine"),
            "quarantine, one poisoned row": ("poisoned", "quarantine"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        names = count()
        for number in range(args.rounds + 1):
            for case, (name, policy) in cases.items():
                target = folder / f"scores-{next(names)}"
                started = perf_counter()
                score(workspace, model, tables[name], target, policy)
                taken = perf_counter() - started
                check(target, args.rows, n_poisoned=int(name == "poisoned"))
                shutil.rmtree(target)
                if number:
                    seconds[case].append(taken)
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(seconds["fail, clean"])
    print(f"{args.rows:,} rows x {N_COLUMNS}, medians of {args.rounds} rounds")
    for case, times in seconds.items():
        middle = statistics.median(times)
        print(f"{case:32}{middle:7.3f} s{middle / base - 1:+8.1%}  {min(times):.3f} at best")


def table(path: Path, n_rows: int, name: str) -> Path:
    rng = np.random.default_rng(1)
    numbers = rng.normal(size=(N_COLUMNS, n_rows))
    if name == "poisoned":
        numbers[0, n_rows // 2] = POISON
    columns = {f"x{i}": numbers[i] for i in range(N_COLUMNS)}
    rows = pa.table({"id": pa.array(range(n_rows), pa.int64()), **columns})
    step = -(-n_rows // N_FILES)
    write_files(path, (rows.slice(start, step) for start in range(0, n_rows, step)))
    return path


def package(path: Path, width: int) -> Path:
    example = pd.DataFrame({f"x{i}": [0.5] for i in range(N_COLUMNS)})
    signature = infer_signature(example, pd.DataFrame({"prediction": [0.5]}))
    trust = TrustPolicy(allow_code=True)
    save_model(Scorecard(width), path, flavor="python_function", signature=signature, trust=trust)
    return path


def score(workspace: Workspace, model: Path, source: Path, target: Path, policy: str) -> None:
    job = workspace.job(
        None,
        {
            "name": "poison",
            "model": str(model),
            "source.uri": str(source),
            "target.uri": str(target),
            "key": ["id"],
            "engine": "files",
            "on_invalid": policy,
        },
    )
    run_batch_job(workspace, job.values, None, lambda _: None)


def check(target: Path, n_rows: int, n_poisoned: int) -> None:
    n_scored = DeltaTable(target).to_pyarrow_dataset().count_rows()
    assert n_scored == n_rows - n_poisoned, n_scored
    rejects = target.with_name(f"{target.name}_rejects")
    if not n_poisoned:
        assert not rejects.exists()
        return
    (row,) = DeltaTable(rejects).to_pyarrow_table().to_pylist()
    assert row["id"] == n_rows // 2, row
    assert row["reject_message"] == "ValueError: the first column is 13", row


if __name__ == "__main__":
    main()
