"""Models and workers that end, raise, hang or print."""

from __future__ import annotations

import random
import time

import numpy as np
from deltalake import DeltaTable

from benchmarks.faults.line import POISON
from benchmarks.faults.trials import Ended, repeated
from benchmarks.faults.world import N_ROWS, World, expect, expect_exit, source_x
from sparkscore.errors import ModelError

_N_TRIES = 3
"""Of a task, by the master `local[2,3]`."""
_DEADLINE_S = 5


def worker_ends(world: World, target: str, rng: random.Random) -> Ended:
    """F04: a Python worker ends once, twice, or at each try of its task."""
    how, n_times = rng.choice(["KILL", "TERM", "segfault", "exit"]), rng.randrange(1, _N_TRIES + 1)
    world.tell(*(f"die-{how}-{i}" for i in range(n_times)))
    answer = world.run(*world.batch(target))
    case = f"{how} {n_times} times"
    if n_times < _N_TRIES:
        expect_exit(answer, 0, case)
        return Ended()
    expect_exit(answer, ModelError.exit_code, case)
    expect(world.commits(target) == 0, f"{case}: something was committed")
    said = answer.result["message"]
    expect("line" in said, f"{case}: the message does not name the model: {said}")
    _, seconds = repeated(world, target)
    return Ended(recovery_s=seconds)


def task_fails_first(world: World, target: str, rng: random.Random) -> Ended:
    """F05: a task's first tries fail, with speculation on."""
    world.tell(*(f"raise-{i}" for i in range(rng.randrange(1, _N_TRIES))))
    conf = ("spark.speculation=true", "spark.speculation.multiplier=1.1")
    flags = [part for one in conf for part in ("--set", f"spark.conf.{one}")]
    answer = world.run(*flags, *world.batch(target))
    expect_exit(answer, 0)
    loads = answer.result["metrics"]["model_loads_max_per_worker"]
    expect(loads == 1, f"a worker loaded the model {loads} times")
    return Ended()


def poisoned_rows(world: World, target: str, rng: random.Random) -> Ended:
    """F06: the model raises for one row in 100,000, which fail the job or are set aside."""
    world.tell("poison")
    if rng.random() < 1 / 2:
        return _set_aside(world, target)
    answer = world.run(*world.batch(target))
    expect_exit(answer, ModelError.exit_code)
    expect(world.commits(target) == 0, "something was committed")
    (world.gate / "poison").unlink()
    _, seconds = repeated(world, target)
    return Ended(recovery_s=seconds)


def _set_aside(world: World, target: str) -> Ended:
    """Poisoned rows in a table of their own, and replayed when the model takes them."""
    answer = world.run(*world.batch(target, "--on-invalid", "quarantine"))
    expect_exit(answer, 0, "a job that sets rows aside")
    poisoned = np.flatnonzero(source_x() == POISON)
    scores = DeltaTable(world.folder / target).to_pyarrow_table(columns=["id"])
    rejects = DeltaTable(world.folder / f"{target}_rejects").to_pyarrow_table()
    kept, aside = (np.sort(rows["id"].to_numpy()) for rows in (scores, rejects))
    expect(np.array_equal(kept, np.setdiff1d(np.arange(N_ROWS), poisoned)), "other rows are scored")
    expect(np.array_equal(aside, poisoned), f"rows {aside} are set aside, and not {poisoned}")
    codes = set(rejects["reject_code"].to_pylist())
    expect(codes == {"MODEL_RAISED"}, f"they are set aside for {codes}")
    (world.gate / "poison").unlink()
    started = time.monotonic()
    run_id = str(answer.result["run_id"])
    replayed = world.run("score", "replay", "--run", run_id, "--trust-code")
    expect_exit(replayed, 0, "the replay")
    return Ended(n_commits=2, recovery_s=time.monotonic() - started)


def model_hangs(world: World, target: str, rng: random.Random) -> Ended:
    """F07: the model never answers, or prints 100 MB."""
    if rng.random() < 1 / 2:
        world.tell("print")
        answer = world.run(*world.batch(target))
        expect_exit(answer, 0, "a job that prints")
        expect(len(answer.stderr) + len(answer.stdout) < 8 * 2**20, "the prints came through")
        return Ended()
    world.tell("hang")
    deadline = {"SCORING__BATCH_DEADLINE_S": str(_DEADLINE_S), "SPARK__MASTER": "local[2,1]"}
    answer = world.run(*world.batch(target), **deadline)
    expect(answer.error_code == "BATCH_DEADLINE", f"a hang ended with: {answer.stderr}")
    expect(world.commits(target) == 0, "something was committed")
    (world.gate / "hang").unlink()
    _, seconds = repeated(world, target)
    return Ended(recovery_s=seconds)
