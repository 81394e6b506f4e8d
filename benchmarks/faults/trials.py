"""One trial of a fault: what was promised of it, and what its table and readers then say."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from benchmarks.faults.world import N_POISONED, N_ROWS, World, WrongError, expect_exit, source_x

_READS_A_SECOND = 10


@dataclass(frozen=True)
class Ended:
    """What should be there after a trial.

    Attributes:
        n_commits: In the target's log.
        ids: Rows that should be in the table; None: all of the source.
        slope: Of the model that should have scored them.
        recovery_s: From the fault's end to the job's.
    """

    n_commits: int = 1
    ids: np.ndarray | None = None
    slope: float = 2.0
    recovery_s: float | None = None


Fault = Callable[[World, str, random.Random], Ended]
"""Does it to jobs that score into a target; raises WrongError where one does not do as promised."""


@dataclass(frozen=True)
class Trial:
    """What became of one trial; `wrong` is empty where all was as promised."""

    lost: int = 0
    doubled: int = 0
    extra_commits: int = 0
    partial_reads: int = 0
    n_reads: int = 0
    recovery_s: float | None = None
    wrong: str = ""

    @property
    def is_right(self) -> bool:
        """Whether all was as promised."""
        found = (self.lost, self.doubled, self.extra_commits, self.partial_reads)
        return not any(found) and not self.wrong


@dataclass
class Reader:
    """Reads a table ten times a second: all of it, or nothing, may be seen.

    Attributes:
        legal: Numbers of rows that are whole.
    """

    root: Path
    legal: frozenset[int]
    n_reads: int = 0
    n_partial: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Reader:
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read_on(self) -> None:
        while not self._ended.wait(1 / _READS_A_SECOND):
            self.n_reads += 1
            try:
                ids = DeltaTable(self.root).to_pyarrow_table(columns=["id"])["id"].to_numpy()
            except TableNotFoundError:
                continue
            except (DeltaError, OSError, pa.ArrowException):  # A named file is not there.
                self.n_partial += 1
                continue
            if len(ids) not in self.legal or len(np.unique(ids)) != len(ids):
                self.n_partial += 1


def tried(world: World, name: str, fault: Fault, seed: int) -> Trial:
    """One trial of a fault in a target of its own.

    Args:
        world: Where.
        name: What the target is called after.
        fault: What happens.
        seed: Of all that is random in it.
    """
    target = f"scores-{name}-{seed}"
    root = world.folder / target
    rng = random.Random(f"{name} {seed}")
    legal = frozenset({0, N_ROWS, N_ROWS // 2, N_ROWS - N_POISONED})
    with Reader(root, legal) as reader:
        try:
            ended = fault(world, target, rng)
            wrong = ""
        except WrongError as exc:
            ended, wrong = Ended(), str(exc)
        finally:
            world.clear()
    found = _compared(world, target, ended)
    for path in world.folder.glob(f"{target}*"):
        shutil.rmtree(path, ignore_errors=True)
    return Trial(
        lost=found.lost,
        doubled=found.doubled,
        extra_commits=found.extra_commits,
        partial_reads=reader.n_partial,
        n_reads=reader.n_reads,
        recovery_s=ended.recovery_s,
        wrong=wrong or found.wrong,
    )


def repeated(
    world: World, target: str, *more: str, **settings: str
) -> tuple[dict[str, Any], float]:
    """The result of the same command after a fault, and the seconds that it took.

    Raises:
        WrongError: It fails.
    """
    started = time.monotonic()
    answer = world.run(*world.batch(target, *more), **settings)
    expect_exit(answer, 0, "the same command")
    return answer.result, time.monotonic() - started


def _compared(world: World, target: str, ended: Ended) -> Trial:
    n_commits = world.commits(target)
    extra = max(0, n_commits - ended.n_commits)
    if n_commits == 0:
        lost = 0 if ended.n_commits == 0 else N_ROWS
        return Trial(lost=lost, wrong="" if ended.n_commits == 0 else "nothing was committed")
    rows = (
        DeltaTable(world.folder / target)
        .to_pyarrow_table(columns=["id", "prediction"])
        .sort_by("id")
    )
    ids = rows["id"].to_numpy()
    expected = np.arange(N_ROWS) if ended.ids is None else ended.ids
    lost = len(np.setdiff1d(expected, ids))
    doubled = len(ids) - len(np.unique(ids))
    want = source_x()[ids] * ended.slope + 1.0
    is_same = np.array_equal(rows["prediction"].to_numpy(), want)
    n_more = len(np.setdiff1d(ids, expected))
    wrong = "" if is_same and not n_more else f"other scores, or {n_more} rows too many"
    return Trial(lost=lost, doubled=doubled, extra_commits=extra, wrong=wrong)
