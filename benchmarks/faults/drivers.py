"""Drivers that are killed, stopped, or told to end."""

from __future__ import annotations

import random
import signal
import time

from benchmarks.faults.trials import Ended, repeated
from benchmarks.faults.world import World, expect, expect_exit

_N_SLOTS = 2
_ORDER_S = 30
"""What orchestrators wait between SIGTERM and SIGKILL."""


def killed_at_random(world: World, target: str, rng: random.Random) -> Ended:
    """F01: kill -9 at any moment of the time that the job takes."""
    world.start(*world.batch(target)).kill_after(rng.uniform(0, world.job_s))
    _, seconds = repeated(world, target)
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended(recovery_s=seconds)


def killed_while_scoring(world: World, target: str, rng: random.Random) -> Ended:
    """F02: kill -9 between the first new data file and the commit."""
    return _killed_while_scoring(world, target, rng)


def killed_while_spark_feeds(world: World, target: str, rng: random.Random) -> Ended:
    """F02arrow: the same, where Spark reads."""
    return _killed_while_scoring(world, target, rng, "--engine", "arrow")


def killed_before_a_merge(world: World, target: str, rng: random.Random) -> Ended:
    """F02merge: the same, where Spark reads, and takes into the table what Python has written."""
    return _killed_while_scoring(world, target, rng, "--mode", "merge")


def _killed_while_scoring(world: World, target: str, rng: random.Random, *more: str) -> Ended:
    root = world.folder / target
    n_records = rng.randrange(3)
    job = world.start(*world.batch(target, *more))
    job.await_sign(lambda: any(root.glob("*.parquet")) and world.records(target) >= n_records)
    job.kill()
    n_finished = world.records(target)
    listed = world.run("score", "clean", f"./{target}", "--older-than", "0", "-o", "json")
    n_staged = len(world.staged(target))
    expect(len(listed.rows) == n_staged, f"{n_staged} files are staged, listed: {listed.stdout}")
    result, seconds = repeated(world, target, *more)
    if world.commits(target) == 1 and result["status"] == "succeeded":
        resumed = result["output"]["chunks_resumed"]
        # A worker may finish its chunk before it sees that the JVM is gone.
        is_all = n_finished <= resumed <= n_finished + _N_SLOTS
        expect(is_all, f"{n_finished} chunks were finished, {resumed} were used")
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended(recovery_s=seconds)


def killed_after_its_commit(world: World, target: str, rng: random.Random) -> Ended:  # noqa: ARG001 - as all faults
    """F03: kill -9 between the commit and the job's own record."""
    commit = world.folder / target / "_delta_log" / f"{0:020}.json"
    job = world.start(*world.batch(target))
    job.await_sign(commit.exists)
    job.kill()
    result, seconds = repeated(world, target)
    said = result["message"]
    expect(said == "already scored at table version 0", f"the same command said {said!r}")
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended(recovery_s=seconds)


def killed_again_and_again(world: World, target: str, rng: random.Random) -> Ended:
    """F01x5: kill -9 at any moment, five times in a row."""
    for _ in range(5):
        world.start(*world.batch(target)).kill_after(rng.uniform(0, world.job_s))
    _, seconds = repeated(world, target)
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended(recovery_s=seconds)


def told_to_end(world: World, target: str, rng: random.Random) -> Ended:
    """F25: SIGTERM in any phase."""
    step = rng.choice(["Resolving", "Opening Spark", "Planned", "Scoring"])
    job = world.start(*world.batch(target))
    job.await_sign(lambda: step in job.said())
    time.sleep(rng.uniform(0, 2))
    job.send(signal.SIGTERM)
    code = job.answer(_ORDER_S).exit_code
    expect(
        code in (0, 128 + signal.SIGTERM),
        f"SIGTERM after {step!r} ended it with {code}: {job.said()}",
    )
    _, seconds = repeated(world, target)
    return Ended(recovery_s=seconds)


def stopped_and_woken(world: World, target: str, rng: random.Random) -> Ended:
    """F27: SIGSTOP; another job with the same key finishes; SIGCONT."""
    n_records = rng.randrange(3)
    world.tell("hold")
    zombie = world.start(*world.batch(target))
    zombie.await_sign(lambda: world.is_told("held") and world.records(target) >= n_records)
    zombie.send_all(signal.SIGSTOP)
    (world.gate / "hold").unlink()
    result, seconds = repeated(world, target)
    expect(result["status"] == "succeeded", f"the second job said {result['message']!r}")
    zombie.send_all(signal.SIGCONT)
    answer = zombie.answer()
    expect_exit(answer, 0, "the woken job")
    said = answer.result["message"]
    expect(said == "already scored at table version 0", f"the woken job said {said!r}")
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended(recovery_s=seconds)
