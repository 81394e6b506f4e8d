"""Two jobs at once."""

from __future__ import annotations

import random

from benchmarks.faults.trials import Ended
from benchmarks.faults.world import World, expect


def same_key(world: World, target: str, rng: random.Random) -> Ended:  # noqa: ARG001 - as all faults
    """F11: two jobs with one key: one commits, the other says so."""
    jobs = [world.start(*world.batch(target)) for _ in range(2)]
    answers = [job.answer() for job in jobs]
    said = sorted(str(answer.result["status"]) for answer in answers)
    expect(said == ["skipped", "succeeded"], f"they said {said}: {answers[0].stderr}")
    expect(world.staged(target) == [], f"left beside the table: {world.staged(target)}")
    return Ended()


def different_partitions(world: World, target: str, rng: random.Random) -> Ended:  # noqa: ARG001 - as all faults
    """F12: two jobs, each of which replaces a partition of its own."""
    jobs = [
        world.start(
            *world.batch(target, "--keep", "part", "--partition-by", "part"),
            *(
                "--where",
                f"part = {part}",
                "--mode",
                "replace",
                "--replace-where",
                f"part = {part}",
            ),
            *("--name", f"part-{part}"),
        )
        for part in (0, 1)
    ]
    answers = [job.answer() for job in jobs]
    said = [str(answer.result["status"]) for answer in answers]
    expect(said == ["succeeded"] * 2, f"they said {said}: {answers[0].stderr} {answers[1].stderr}")
    return Ended(n_commits=2)
