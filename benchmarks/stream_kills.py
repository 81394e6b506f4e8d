"""A stream of a million rows, killed again and again: what was lost, doubled, or mixed.

The stream reads a Delta table file by file and commits a batch for each. At random moments its
driver, JVM and workers get kill -9, some while it starts, and the same command is started again;
the alias of its model moves to and fro meanwhile. In the end each key must be there once, with the
score of the model that its row names, in one commit a batch, and each batch must have one model.

    python -m benchmarks.stream_kills --kills 50
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from benchmarks.faults.line import save_line
from benchmarks.faults.world import Job, World, expect_exit
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.workspace import Workspace

_SLOPES = {1: 2.0, 2: 3.0}
"""Of the model's versions, between which its alias moves."""
_STREAM = ("score", "stream", "--job", "killed.yaml", "--trust-code")
_START_S = 15.0
_SHARE_AT_START = 0.2
"""Of the kills, which come at any moment of the start, or soon after it."""
_LONGEST_DELAY_S = 1.0
_LONGEST_LIFE_S = 3600.0
_HEAD = (
    "| rows | batches | kills | lives without a commit | lost | doubled | extra commits | "
    "batches of two models | wrong scores | models | restart to commit, p50, max s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Found:
    """What the table says when the stream has come to its end."""

    n_rows: int
    n_batches: int
    lost: int
    doubled: int
    extra_commits: int
    mixed_batches: int
    wrong_scores: int
    n_models: int

    @property
    def is_right(self) -> bool:
        """Whether all is as promised."""
        wrong = (self.lost, self.doubled, self.extra_commits)
        return not any((*wrong, self.mixed_batches, self.wrong_scores))


class KilledStream(World):
    """A working folder with a source of `n_files` files, a model of two versions and a stream.

    Attributes:
        n_killed: Kills that hit the stream while it ran.
        n_idle: Lives that were killed before they committed a batch.
        starts_s: Seconds from each start to the first commit after it.
    """

    def __init__(self, folder: Path, n_rows: int, n_files: int) -> None:
        super().__init__(folder)
        self.n_rows, self.n_files = n_rows, n_files
        self.n_killed = self.n_idle = 0
        self.starts_s: list[float] = []

    def build(self) -> None:
        """Make source, model and job."""
        self.gate.mkdir(parents=True)
        rows = pa.table({"id": np.arange(self.n_rows), "x": _x(self.n_rows)})
        size = -(-self.n_rows // self.n_files)
        for start in range(0, self.n_rows, size):
            write_deltalake(self.folder / "rows", rows.slice(start, size), mode="append")
        for version, slope in _SLOPES.items():
            save_line(self.folder / f"line-{version}", slope, self.gate)
            self.register("line", self.folder / f"line-{version}")
        job = {
            "name": "killed",
            "model": "models:/line@champion",
            "source": {"uri": "./rows", "options": {"maxFilesPerTrigger": "1"}},
            "target": {"uri": "./scores"},
            "key": ["id"],
            "stream": {"checkpoint": "./checkpoint", "watch_s": 1},
        }
        (self.folder / "killed.yaml").write_text(json.dumps(job), encoding="utf-8")

    def run_to_its_end(self, n_kills: int, rng: random.Random) -> None:
        """Start the stream until it ends by itself; kill it `n_kills` times before.

        Raises:
            WrongError: It ends badly by itself.
        """
        while self.n_killed < n_kills and self.n_left > 1:
            n_before = self.commits("scores")
            job = self.start(*_STREAM)
            if rng.random() < _SHARE_AT_START:
                job.kill_after(rng.uniform(0.0, _START_S))
            else:
                self._kill_at_a_batch(
                    job, n_before, self.n_left / (n_kills - self.n_killed + 1), rng
                )
            if job.process.returncode >= 0:
                expect_exit(job.answer(), 0)
            else:
                self.n_killed += 1
                self.n_idle += self.commits("scores") == n_before
            job.clear()
            print(f"{self.n_killed} kills, {self.n_left} files left", file=sys.stderr, flush=True)
        expect_exit(self.start(*_STREAM).answer(_LONGEST_LIFE_S), 0)
        expect_exit(self.run(*_STREAM), 0)  # Once more, which must find nothing to do.

    def _kill_at_a_batch(self, job: Job, n_before: int, share: float, rng: random.Random) -> None:
        """Kill a stream some batches after its start, on average about `share` of them."""
        started = time.monotonic()
        job.await_sign(lambda: self.commits("scores") > n_before)
        self.starts_s.append(time.monotonic() - started)
        self.move_alias(rng)
        n_wanted = n_before + 1 + int(rng.uniform(0.0, 1.6) * share)
        job.await_sign(lambda: self.commits("scores") >= min(n_wanted, self.n_files - 1))
        job.kill_after(rng.uniform(0.0, _LONGEST_DELAY_S))

    @property
    def n_left(self) -> int:
        """Batches that are still to be committed."""
        return self.n_files - self.commits("scores")

    def move_alias(self, rng: random.Random) -> None:
        """Let the alias mean either version, whether the stream runs or not."""
        place = {"tracking.uri": f"sqlite:///{self.folder / 'sparkscore.db'}"}
        workspace = Workspace.open(overrides=place)
        try:
            version = rng.choice(list(_SLOPES))
            workspace.registry.set_alias(parse_model_name("line"), parse_alias("champion"), version)
        finally:
            workspace.close()

    def found(self) -> Found:
        """The table, compared with what the source asks for."""
        table = DeltaTable(self.folder / "scores")
        batches = Counter(str(commit["inputs"]["batch"]) for commit in _commits(table))
        rows = table.to_pyarrow_table().sort_by("id")
        ids = rows["id"].to_numpy()
        versions = pc.cast(rows["model_version"], pa.int64()).to_numpy()
        slopes = np.array([_SLOPES[version] for version in versions.tolist()])
        want = _x(self.n_rows)[ids] * slopes + 1.0
        by_batch = rows.group_by("scored_at").aggregate([("model_digest", "count_distinct")])
        return Found(
            n_rows=len(ids),
            n_batches=len(batches),
            lost=self.n_rows - len(np.unique(ids)),
            doubled=len(ids) - len(np.unique(ids)),
            extra_commits=table.version() + 1 - len(batches),
            mixed_batches=int((by_batch["model_digest_count_distinct"].to_numpy() > 1).sum()),
            wrong_scores=int((rows["prediction"].to_numpy() != want).sum()),
            n_models=pc.count_distinct(rows["model_digest"]).as_py(),
        )


def _x(n_rows: int) -> np.ndarray:
    return np.random.default_rng(8).random(n_rows)


def _commits(table: DeltaTable) -> Iterator[dict[str, Any]]:
    """What the stream's commits say of themselves."""
    for entry in table.history():
        if "userMetadata" in entry:
            yield json.loads(entry["userMetadata"])


def main(argv: Sequence[str] | None = None) -> int:
    """Kill a stream and print a table; 1 where something was not as promised."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream_kills", description=summary)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=400, help="Of the source; a batch reads one.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="Of all that is random.")
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-kills-", dir=args.folder))
    world = KilledStream(folder, args.rows, args.files)
    try:
        world.build()
        world.run_to_its_end(args.kills, random.Random(args.seed))
        found = world.found()
        print(_HEAD, _row(world, found), sep="\n", flush=True)
    finally:
        world.clear()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if found.is_right and world.n_killed == args.kills else 1


def _row(world: KilledStream, found: Found) -> str:
    starts = sorted(world.starts_s) or [0.0]
    cells = (
        f"{found.n_rows:,}",
        found.n_batches,
        world.n_killed,
        world.n_idle,
        found.lost,
        found.doubled,
        found.extra_commits,
        found.mixed_batches,
        found.wrong_scores,
        found.n_models,
        f"{statistics.median(starts):.1f}, {starts[-1]:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
