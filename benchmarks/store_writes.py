"""How fast a record store takes what runs log, by many threads or processes at once.

Each writer has a run of its own, as in a sweep. Timed are calls until they are acknowledged; then
all points are read back and counted, so that a store that loses one fails here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from sparkscore.names import RunId
from sparkscore.records import Metric
from sparkscore.stores.base import RunStore
from sparkscore.stores.sql import open_sql
from sparkscore.testing.postgres_server import running_postgres

_BUSY_TIMEOUT_S = 120.0
_N_POINTS = 100


@dataclass(frozen=True)
class Load:
    """What each writer does: so many calls, each with so many points."""

    name: str
    n_calls: int
    n_points: int


LOADS = (Load("one point", 200, 1), Load(f"{_N_POINTS} points", 20, _N_POINTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--processes", action="store_true", help="in the place of threads")
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite"])
    parser.add_argument("--rounds", type=int, default=3, help="the best one is told")
    args = parser.parse_args()
    kind = "processes" if args.processes else "threads"
    heads = ("store", "a call", kind, "calls/s", "points/s", "p50 ms", "p99 ms")
    print("".join(f"{head:>12}" for head in heads))
    for store in args.stores:
        for load in LOADS:
            for n_writers in args.writers:
                rounds = []
                for _ in range(args.rounds):
                    with opened(store) as url:
                        rounds.append(measured(url, load, n_writers, args.processes))
                elapsed_s, calls_s = min(rounds)
                n_calls = n_writers * load.n_calls
                cuts = quantiles(calls_s, n=100)
                print(
                    f"{store:>12}{load.name:>12}{n_writers:>12}{n_calls / elapsed_s:>12.0f}"
                    f"{n_calls * load.n_points / elapsed_s:>12.0f}"
                    f"{cuts[49] * 1000:>12.1f}{cuts[98] * 1000:>12.1f}",
                    flush=True,
                )


@contextmanager
def opened(store: str) -> Iterator[str]:
    """The URL of a new database."""
    if store == "postgresql":
        with running_postgres() as server:
            yield server.new_database("bench")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'records.db'}"


def measured(url: str, load: Load, n_writers: int, is_processes: bool) -> tuple[float, list[float]]:
    """Seconds of the whole, and of each call."""
    stores = open_sql(url, "file:///a", busy_timeout_s=_BUSY_TIMEOUT_S)
    stores.runs.list_experiments()
    write: Callable[[int], list[float]]
    executor: Executor
    if is_processes:
        write = partial(write_to, url, load)
        executor = ProcessPoolExecutor(n_writers, mp_context=get_context("spawn"))
    else:
        write = partial(write_all, stores.runs, load)
        executor = ThreadPoolExecutor(n_writers)
    with executor:
        # Once before the clock runs: processes take a second to start.
        list(executor.map(write, range(n_writers, 2 * n_writers)))
        started = perf_counter()
        calls_s = [seconds for found in executor.map(write, range(n_writers)) for seconds in found]
        elapsed_s = perf_counter() - started
    for number in range(2 * n_writers):
        kept = stores.runs.metric_history(RunId(f"r{number}"), "loss")
        assert len(kept) == load.n_calls * load.n_points
    stores.close()
    return elapsed_s, calls_s


def write_to(url: str, load: Load, number: int) -> list[float]:
    """`write_all` in a process of its own."""
    stores = open_sql(url, "file:///a", busy_timeout_s=_BUSY_TIMEOUT_S)
    try:
        return write_all(stores.runs, load, number)
    finally:
        stores.close()


def write_all(runs: RunStore, load: Load, number: int) -> list[float]:
    """Log what one writer logs; seconds of each call."""
    run_id = RunId(f"r{number}")
    runs.create_run("0", run_id=run_id, run_name="", user_id="", start_time_ms=1)
    calls_s = []
    for call in range(load.n_calls):
        steps = range(call * load.n_points, (call + 1) * load.n_points)
        points = [Metric("loss", 1.0 / (1 + step), step, step) for step in steps]
        started = perf_counter()
        runs.log_batch(run_id, metrics=points)
        calls_s.append(perf_counter() - started)
    return calls_s


if __name__ == "__main__":
    main()
