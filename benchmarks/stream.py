"""Streams from a Delta table into another, beside the same stream with MLflow's UDF.

- `fixed`: what a micro-batch of one row costs, beside one of Spark that does nothing.
- `sustained`: rows a second, where all rows are there already.
- `latency`: from a row's commit in the source to its score's commit in the target, where rows come
  at half of the sustained rate.
- `growth`: what a stream of many micro-batches leaves, and whether they take longer in the end.
- `state`: how large the histories of keys become, of which each micro-batch brings new ones.

Contenders run in turn and never at once, warm; the first round is not counted. Times are those of
files that Spark and Delta write, so that all are measured alike. Spark that does nothing runs in
sparkscore's own session, as long and as warm. sparkscore's stream verifies its model, writes five
columns of origin a row and records itself; the others predict and write.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.transaction import AddAction
from lightgbm import LGBMRegressor

from benchmarks.main_job import Peers, workspace_in
from benchmarks.workloads import numbers, write_files
from sparkscore.flavors import save_model
from sparkscore.job_result import JobResult
from sparkscore.package.signature import infer_signature
from sparkscore.stream_job import run_stream_job
from sparkscore.workspace import Workspace

OURS, BASE, COPY, FLOOR = (
    "sparkscore",
    "mlflow.pyfunc.spark_udf",
    "Spark, no model",
    "Spark, no model, no target",
)
N_COLUMNS = 28
N_TREES = 100
COLUMNS = [f"x{i}" for i in range(N_COLUMNS)]
_SKIPPED = 5
"""First batches of a stream, in which code is compiled and workers start."""
_TICK_S = 0.5
_BATCHES_A_ROUND = 4
_FIRST_TIME = np.datetime64("2026-01-01T00:00:00", "us")
_LATE_S = 120.0


@dataclass(frozen=True)
class Place:
    """Where one stream of one contender writes."""

    root: Path

    @property
    def target(self) -> Path:
        """Its scores."""
        return self.root / "scores"

    @property
    def checkpoint(self) -> Path:
        """Its memory."""
        return self.root / "checkpoint"

    def ended_at(self) -> list[float]:
        """When each batch was done, as Spark's checkpoint says, in seconds since 1970."""
        files = [path for path in (self.checkpoint / "commits").iterdir() if path.name.isdecimal()]
        return [path.stat().st_mtime for path in sorted(files, key=lambda path: int(path.name))]

    def periods(self) -> list[float]:
        """Seconds from the end of a batch to that of the next."""
        return np.diff(self.ended_at()).tolist()


@dataclass
class Contenders:
    """All of them, with one model, each in a session that stays.

    Attributes:
        package: The model.
        results: What sparkscore's streams said of themselves.
    """

    workspace: Workspace
    peers: Peers
    package: Path
    results: list[JobResult] = field(default_factory=list)

    def score(self, contender: str, source: Path, place: Place, files: int) -> None:
        """Score a table, as many of its files a micro-batch, to its end."""
        if contender == OURS:
            self.results.append(self._run(source, place, files, "available-now"))
        elif contender == FLOOR:
            self._idle(source, place, files)
        else:
            self._ask(contender, source, place, files, runs=False)

    def serve(
        self, contender: str, source: Path, place: Place, files: int, feed: Callable[[], None]
    ) -> None:
        """Score a table as its rows come, which `feed` brings; end when it returns."""
        if contender != OURS:
            self._ask(contender, source, place, files, runs=True)
            feed()
            self.peers.talk.tell({"end": True})
            self.peers.talk.answer()
            return

        def bring() -> None:
            try:
                feed()
            finally:
                os.kill(os.getpid(), signal.SIGUSR1)

        former = signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
        other = threading.Thread(target=bring)
        other.start()
        self._run(source, place, files, "continuous-service")
        other.join()
        signal.signal(signal.SIGUSR1, former)

    def _idle(self, source: Path, place: Place, files: int) -> None:
        spark = self.workspace.spark_engine("arrow").spark
        frame = spark.readStream.format("delta").option("maxFilesPerTrigger", str(files))
        writer = frame.load(str(source)).writeStream.foreachBatch(lambda _batch, _number: None)
        writer = writer.option("checkpointLocation", str(place.checkpoint))
        writer.trigger(availableNow=True).start().awaitTermination()

    def remember(self, source: Path, place: Place) -> JobResult:
        """Score what has come to a table, file by file, with what is remembered of each `key`."""
        features = {
            "features.watermark.column": "ts",
            "features.watermark.delay": "1 hour",
            "features.state.by": ["key"],
            "features.state.columns": {"before": "lag(x0, 1)", "mean5": "mean(x1, 5)"},
        }
        return self._run(source, place, 1, "available-now", features)

    def _run(
        self,
        source: Path,
        place: Place,
        files: int,
        trigger: str,
        more: Mapping[str, object] | None = None,
    ) -> JobResult:
        job = self.workspace.job(
            None,
            {
                **(more or {}),
                "name": "bench",
                "model": str(self.package),
                "source.uri": str(source),
                "source.options": {"maxFilesPerTrigger": str(files)},
                "target.uri": str(place.target),
                "key": ["id"],
                "keep": ["tick"],
                "stream.checkpoint": str(place.checkpoint),
                "stream.trigger": trigger,
            },
        )
        return run_stream_job(self.workspace, job.values, lambda _: None)

    def _ask(self, contender: str, source: Path, place: Place, files: int, *, runs: bool) -> None:
        self.peers.talk.tell(
            {
                "contender": contender,
                "package": str(self.package),
                "source": str(source),
                "columns": COLUMNS,
                "files": files,
                "target": str(place.target),
                "checkpoint": str(place.checkpoint),
                "runs": runs,
            }
        )
        self.peers.talk.answer()


def save_trees(folder: Path) -> Path:
    """Package LightGBM's trees over COLUMNS."""
    frame = pd.DataFrame(numbers(20_000, N_COLUMNS, 1))
    label = frame["x0"] * frame["x1"] + np.sin(frame["x2"])
    model = LGBMRegressor(n_estimators=N_TREES, random_state=0, verbose=-1, n_jobs=1)
    outputs = pd.DataFrame({"prediction": [0.5]})
    signature = infer_signature(frame, outputs)
    save_model(model.fit(frame, label), folder, signature=signature, input_example=frame.head(3))
    return folder


def source_of(folder: Path, n_files: int, n_rows: int) -> Path:
    """A Delta table of so many files of so many rows: `id`, `tick` and COLUMNS."""
    columns = {name: pa.array(values) for name, values in numbers(n_rows, N_COLUMNS, 2).items()}
    write_files(
        folder,
        (
            pa.table(
                {
                    "id": np.arange(i * n_rows, (i + 1) * n_rows),
                    "tick": np.full(n_rows, i),
                    **columns,
                }
            )
            for i in range(n_files)
        ),
    )
    return folder


def fixed(them: Contenders, folder: Path, n_rounds: int, n_batches: int) -> str:
    """What a micro-batch of one row costs."""
    source = source_of(folder / "drops", n_batches, 1)
    names = (FLOOR, COPY, BASE, OURS)
    periods: dict[str, list[float]] = {name: [] for name in names}
    them.results.clear()
    for number in range(n_rounds + 1):
        for name in names:
            place = Place(folder / f"fixed-{number}-{names.index(name)}")
            them.score(name, source, place, 1)
            if number:
                periods[name].append(1000 * statistics.median(place.periods()[_SKIPPED:]))
            shutil.rmtree(place.root)
    lines = [
        "| contender | ms a micro-batch, median (min-max) | above Spark's own |",
        "|---|---|---|",
    ]
    for name, taken in periods.items():
        above = [mine - own for mine, own in zip(taken, periods[FLOOR], strict=True)]
        spread = f"{statistics.median(taken):.0f} ({min(taken):.0f}-{max(taken):.0f})"
        lines.append(f"| {name} | {spread} | {statistics.median(above):.0f} |")
    return "\n".join([*lines, "", _split_text(them.results[1:])])


def _split_text(results: Sequence[JobResult]) -> str:
    """Where the time of a micro-batch goes: medians of the last ones of all rounds."""
    medians = {
        name: 1000 * statistics.median(result.metrics[name] for result in results)
        for name in results[0].metrics
        if name.startswith(("batch_", "seconds_"))
    }
    shown = (
        f"{name.removesuffix('_seconds')} {milliseconds:.0f}"
        for name, milliseconds in sorted(medians.items())
    )
    return f"sparkscore's, ms: {', '.join(shown)}"


def sustained(
    them: Contenders, folder: Path, n_rounds: int, n_files: int, n_rows: int
) -> tuple[str, dict[str, float]]:
    """Rows a second, and the same as numbers; a micro-batch takes four files."""
    source = source_of(folder / "waiting", n_files, n_rows)
    rates: dict[str, list[float]] = {name: [] for name in (BASE, OURS)}
    for number in range(n_rounds + 1):
        for name, taken in rates.items():
            place = Place(folder / f"sustained-{number}-{len(name)}")
            them.score(name, source, place, 4)
            ended_at = place.ended_at()
            n_after_first = (len(ended_at) - 1) * 4 * n_rows
            if number:
                taken.append(n_after_first / (ended_at[-1] - ended_at[0]))
            shutil.rmtree(place.root)
    medians = {name: statistics.median(taken) for name, taken in rates.items()}
    lines = ["| contender | rows/s, median (min-max) | times MLflow's |", "|---|---|---|"]
    for name, taken in rates.items():
        spread = f"{medians[name]:,.0f} ({min(taken):,.0f}-{max(taken):,.0f})"
        gain = statistics.median(a / b for a, b in zip(taken, rates[BASE], strict=True))
        lines.append(f"| {name} | {spread} | {gain:.2f} |")
    return "\n".join(lines), medians


@dataclass
class Feed:
    """A Delta table to which files of as many rows are added at a rate.

    All are links to one file, so that bringing rows costs a commit and no more.

    Attributes:
        source: The table.
        n_ticks: Commits in all.
    """

    source: Path
    n_rows: int
    n_ticks: int

    def __post_init__(self) -> None:
        self.source.mkdir(parents=True)
        columns = {name: pa.array(v) for name, v in numbers(self.n_rows, N_COLUMNS, 3).items()}
        rows = pa.table({"id": np.arange(self.n_rows), **columns})
        self._drop = self.source.with_name(f"{self.source.name}.parquet")
        pq.write_table(rows, self._drop)
        self._schema = Schema.from_arrow(rows.schema.append(pa.field("tick", pa.int64())))
        DeltaTable.create(self.source, self._schema, partition_by=["tick"])

    def bring(self, target: Path) -> None:
        """Add a file each half second, and wait until all of its rows are scored.

        Raises:
            SystemExit: They never are.
        """
        table, started = DeltaTable(self.source), time.monotonic()
        for tick in range(self.n_ticks):
            time.sleep(max(0.0, started + tick * _TICK_S - time.monotonic()))
            path = self.source / f"tick={tick}" / "part.parquet"
            path.parent.mkdir()
            os.link(self._drop, path)
            size = path.stat().st_size
            stats = json.dumps({"numRecords": self.n_rows})
            name = str(path.relative_to(self.source))
            values: dict[str, str | None] = {"tick": str(tick)}
            add = AddAction(name, size, values, int(time.time() * 1000), True, stats)
            table.create_write_transaction([add], "append", self._schema, ["tick"])
            table.update_incremental()
        deadline = time.monotonic() + _LATE_S
        while sum(n_rows for _, n_rows in self.latencies(target)) < self.n_ticks * self.n_rows:
            if time.monotonic() > deadline:
                raise SystemExit(f"rows of {self.source} were not scored within {_LATE_S:g} s")
            time.sleep(1)

    def latencies(self, target: Path) -> list[tuple[float, int]]:
        """Seconds from commit to commit, and of how many rows."""
        came = {version - 1: at for version, at, _ in _commits(self.source)}
        found = []
        for _, at, files in _commits(target):
            for file in files:
                ticks = pq.ParquetFile(target / file).read(["tick"])["tick"].to_numpy()
                numbers_of, counts = np.unique(ticks, return_counts=True)
                pairs = zip(numbers_of.tolist(), counts.tolist(), strict=True)
                found += [(at - came[tick], n_rows) for tick, n_rows in pairs]
        return found


def _commits(root: Path) -> list[tuple[int, float, list[str]]]:
    """Version, time and added files of each commit."""
    commits = []
    for path in sorted((root / "_delta_log").glob("*.json")):
        actions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        files = [action["add"]["path"] for action in actions if "add" in action]
        commits.append((int(path.stem), path.stat().st_mtime, files))
    return commits


def latency(them: Contenders, folder: Path, rates: Mapping[str, float], n_ticks: int) -> str:
    """How old rows are when they are scored, at half of each contender's own rate and MLflow's."""
    lines = ["| contender | rows/s that come | p50 s | p99 s |", "|---|---|---|---|"]
    slow = rates[BASE] / 2
    for name, rate in ((BASE, slow), (OURS, slow), (OURS, rates[OURS] / 2)):
        at = folder / f"latency-{len(lines)}"
        feed, place = Feed(at / "rows", int(rate * _TICK_S), n_ticks), Place(at)
        them.serve(name, feed.source, place, 1000, lambda f=feed, p=place: f.bring(p.target))  # type: ignore[misc]
        ages = feed.latencies(place.target)
        p50, p99 = (_quantile(ages, share) for share in (0.5, 0.99))
        lines.append(f"| {name} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")
        shutil.rmtree(at)
    return "\n".join(lines)


def _quantile(ages: Sequence[tuple[float, int]], share: float) -> float:
    """The age that this share of all rows does not exceed."""
    wanted, seen = share * sum(n_rows for _, n_rows in ages), 0
    for age, n_rows in sorted(ages):
        seen += n_rows
        if seen >= wanted:
            return age
    raise ValueError("no row")


def growth(them: Contenders, folder: Path, n_batches: int) -> str:
    """What many micro-batches of a row leave, and whether they become slower."""
    source = source_of(folder / "many", n_batches, 1)
    lines = [
        "| contender | batches | ms, first tenth | ms, last tenth | checkpoint | target's log |",
        "|---|---|---|---|---|---|",
    ]
    for name in (FLOOR, BASE, OURS):
        place = Place(folder / f"growth-{len(lines)}")
        them.score(name, source, place, 1)
        periods = [1000 * period for period in place.periods()[_SKIPPED:]]
        tenth = len(periods) // 10
        first, last = statistics.median(periods[:tenth]), statistics.median(periods[-tenth:])
        sizes = [_size(place.checkpoint), _size(place.target / "_delta_log")]
        cells = (name, f"{n_batches}", f"{first:.0f}", f"{last:.0f}", *sizes)
        lines.append(f"| {' | '.join(cells)} |")
        shutil.rmtree(place.root)
    return "\n".join(lines)


def state(them: Contenders, folder: Path, n_rounds: int, n_rows: int) -> str:
    """How the histories of keys grow, where half of a micro-batch's rows are of new keys."""
    source, place = folder / "keyed", Place(folder / "state")
    columns = {name: pa.array(values) for name, values in numbers(n_rows, N_COLUMNS, 4).items()}
    half = n_rows // 2
    lines = [
        "| micro-batches | keys | ms a micro-batch | memory, MiB | files, MiB | bytes a key |",
        "|---|---|---|---|---|---|",
    ]
    n_batches = 0
    for _ in range(n_rounds):
        for _ in range(_BATCHES_A_ROUND):
            ids = np.arange(n_batches * n_rows, (n_batches + 1) * n_rows)
            keys = np.concatenate([np.arange(half), np.arange(half) + n_batches * half])
            at = np.full(n_rows, _FIRST_TIME + np.timedelta64(n_batches, "m"))
            facts = {"id": ids, "tick": np.full(n_rows, n_batches), "key": keys, "ts": at}
            rows = pa.table({**facts, **columns})
            rows = rows.set_column(3, "ts", rows["ts"].cast(pa.timestamp("us", "UTC")))
            write_deltalake(source, rows, mode="append")
            n_batches += 1
        metrics = them.remember(source, place).metrics
        period = 1000 * statistics.median(place.periods()[-_BATCHES_A_ROUND + 1 :])
        n_keys, held, kept = (metrics[f"state_{name}"] for name in ("rows", "bytes", "disk_bytes"))
        sizes = f"{held / 2**20:.1f} | {kept / 2**20:.1f} | {kept / n_keys:.0f}"
        lines.append(f"| {n_batches} | {n_keys:,.0f} | {period:.0f} | {sizes} |")
    return "\n".join(lines)


def _size(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)} files, {sum(sizes) / 1024:,.0f} KiB"


def main() -> int:
    args = _parse()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-", dir=args.folder))
    workspace = workspace_in(folder, f"local[{args.cores}]")
    peers = None
    try:
        peers = Peers(args.peers_python.absolute(), workspace, script="stream_peers.py")
        them = Contenders(workspace, peers, save_trees(folder / "trees"))
        print(
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, `local[{args.cores}]`, {platform.machine()}, "
            f"Python {platform.python_version()}, {args.rounds} rounds after a warm-up, load "
            f"{os.getloadavg()[0]:.1f} at the start",
            flush=True,
        )
        if "fixed" in args.parts:
            print(f"\n{fixed(them, folder, args.rounds, args.batches)}", flush=True)
        if "sustained" in args.parts or "latency" in args.parts:
            text, rates = sustained(them, folder, args.rounds, args.files, args.rows)
            print(f"\n{text}", flush=True)
            if "latency" in args.parts:
                print(f"\n{latency(them, folder, rates, args.ticks)}", flush=True)
        if "growth" in args.parts:
            print(f"\n{growth(them, folder, args.many)}", flush=True)
        if "state" in args.parts:
            print(f"\n{state(them, folder, args.rounds, args.rows)}", flush=True)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    finally:
        if peers is not None:
            peers.close()
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("fixed", "sustained", "latency", "growth", "state")
    parser.add_argument("--peers-python", type=Path, required=True, help="Python with MLflow.")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--batches", type=int, default=40, help="Of a round of `fixed`.")
    parser.add_argument("--files", type=int, default=24, help="That `sustained` reads.")
    parser.add_argument("--rows", type=int, default=50_000, help="Of each of them.")
    parser.add_argument("--ticks", type=int, default=60, help="Half seconds of `latency`.")
    parser.add_argument("--many", type=int, default=1000, help="Micro-batches of `growth`.")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
