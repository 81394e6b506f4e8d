"""Disks that fill, and a tracking database that breaks."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.faults.trials import Ended, repeated
from benchmarks.faults.world import World, expect, expect_exit
from sparkscore.errors import TargetError

_DISK_MB = 64


def disk_fills(world: World, target: str, rng: random.Random) -> Ended:
    """F09: the disk of the table, or of the tracking database, is full; needs root for a tmpfs."""
    with _small_disk(world.folder / "disk") as disk:
        free = rng.randrange(2 * 2**20)
        if rng.random() < 1 / 2:
            return Ended(recovery_s=_full_table(world, target, disk, free))
        _full_database(world, target, disk, free // 100)
        return Ended()


def database_is_away(world: World, target: str, rng: random.Random) -> Ended:
    """F10: the tracking database is moved away, or locked by another process, during a job."""
    folder = world.folder / "tracking"
    folder.mkdir(exist_ok=True)
    tracking = {"TRACKING__URI": f"sqlite:///{folder}/tracking.db"}
    world.tell("hold")
    job = world.start(*world.batch(target, model="./line"), **tracking)
    expect(job.await_sign(lambda: world.is_told("held")), job.said())
    is_moved = rng.random() < 1 / 2
    with _moved(folder) if is_moved else _locked(folder / "tracking.db"):
        (world.gate / "hold").unlink()
        answer = job.answer()
    expect_exit(answer, 0)
    _check_record(world, str(answer.result["run_id"]), tracking)
    return Ended()


@contextmanager
def _moved(folder: Path) -> Iterator[None]:
    away = folder.with_name("away")
    folder.rename(away)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        away.rename(folder)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _full_table(world: World, target: str, disk: Path, free: int) -> float:
    """Seconds that the same command takes when there is room again."""
    with _ballast(disk, free):
        answer = world.run(*world.batch("disk/scores"))
    said = answer.result["message"]
    expect_exit(answer, TargetError.exit_code, "a job on a full disk")
    expect(str(disk) in said, f"the message does not name the place: {said}")
    expect(world.commits("disk/scores") == 0, "something was committed")
    _, seconds = repeated(world, "disk/scores")
    expect(world.staged("disk/scores") == [], "something is left beside the table")
    shutil.copytree(disk / "scores", world.folder / "copy")
    (world.folder / "copy").rename(world.folder / target)
    return seconds


def _full_database(world: World, target: str, disk: Path, free: int) -> None:
    tracking = {"TRACKING__URI": f"sqlite:///{disk}/tracking.db"}
    first = world.run("runs", "list", **tracking)
    expect_exit(first, 0)
    world.tell("hold")
    job = world.start(*world.batch(target, model="./line"), **tracking)
    expect(job.await_sign(lambda: world.is_told("held")), job.said())
    with _ballast(disk, free):
        (world.gate / "hold").unlink()
        answer = job.answer()
    expect_exit(answer, 0)
    _check_record(world, str(answer.result["run_id"]), tracking)


def _check_record(world: World, run_id: str, tracking: dict[str, str]) -> None:
    """The run is on record as finished, once what waited was delivered."""
    replayed = world.run("outbox", "replay", **tracking)
    expect_exit(replayed, 0)
    runs = world.run("runs", "list", "-o", "json", **tracking).rows
    states = {str(run["run_id"]): str(run["status"]) for run in runs}
    expect(states.get(run_id) == "FINISHED", f"the run is on record as {states.get(run_id)}")


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    size = f"size={_DISK_MB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def _ballast(disk: Path, free: int) -> Iterator[None]:
    """A disk with no more than so many bytes free, for the duration of a block."""
    ballast = disk / "ballast"
    facts = os.statvfs(disk)
    ballast.write_bytes(b"\0" * max(0, facts.f_bavail * facts.f_frsize - free))
    try:
        yield
    finally:
        ballast.unlink()
