"""Faults, injected from outside into real jobs: what was lost, doubled, or seen in part.

Each trial is one fault in a job of its own, over a table of 600,000 rows in six files and with a
model that takes 50 ms a batch, in a driver, a JVM and two workers. Then the same command is run
again, and the table is compared with the scores that the source asks for, key by key. A reader
reads the table ten times a second meanwhile.

    python -m benchmarks.faults --trials 100 F01 F02 F03
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import drivers, inputs, machines, races, workers
from benchmarks.faults.trials import Fault, Trial, tried
from benchmarks.faults.world import World

FAULTS: dict[str, Fault] = {
    "F01": drivers.killed_at_random,
    "F01x5": drivers.killed_again_and_again,
    "F02": drivers.killed_while_scoring,
    "F02arrow": drivers.killed_while_spark_feeds,
    "F02merge": drivers.killed_before_a_merge,
    "F03": drivers.killed_after_its_commit,
    "F04": workers.worker_ends,
    "F05": workers.task_fails_first,
    "F06": workers.poisoned_rows,
    "F07": workers.model_hangs,
    "F08": inputs.source_changes,
    "F09": machines.disk_fills,
    "F10": machines.database_is_away,
    "F11": races.same_key,
    "F12": races.different_partitions,
    "F18": inputs.alias_moves,
    "F19": inputs.artifacts_go,
    "F20": inputs.package_damaged,
    "F24": inputs.doubled_rows,
    "F25": drivers.told_to_end,
    "F27": drivers.stopped_and_woken,
}
"""By their numbers in the list of faults."""
_HEAD = (
    "| fault | trials | lost | doubled | extra commits | partial reads | recovery p50, p99 s | "
    "not as promised | 95 % bound |\n|---|---|---|---|---|---|---|---|---|"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Try faults and print a table; 1 where one trial was not as promised."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=summary)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"Default: {', '.join(FAULTS)}.")
    parser.add_argument("--trials", type=int, default=1, help="Trials of each fault.")
    parser.add_argument("--seed", type=int, default=1, help="Number of the first trial.")
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    args = parser.parse_args(argv)
    names = args.faults or list(FAULTS)
    unknown = sorted(set(names) - set(FAULTS))
    if unknown:
        parser.error(f"there is no fault {unknown[0]!r}")
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-faults-", dir=args.folder))
    world = World(folder)
    is_right = True
    try:
        world.build()
        print(f"An undisturbed job takes {world.job_s:.1f} s.\n\n{_HEAD}", flush=True)
        for name in names:
            trials = []
            for seed in range(args.seed, args.seed + args.trials):
                trials.append(tried(world, name, FAULTS[name], seed))
                print(f"{name} {seed}: {trials[-1]}", file=sys.stderr, flush=True)
            print(_row(name, FAULTS[name], trials), flush=True)
            is_right = is_right and all(trial.is_right for trial in trials)
    finally:
        world.clear()
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_right else 1


def _row(name: str, fault: Fault, trials: Sequence[Trial]) -> str:
    what = (fault.__doc__ or "").partition("\n")[0].partition(": ")[2].strip().rstrip(".")
    recoveries = sorted(t.recovery_s for t in trials if t.recovery_s is not None)
    spread = "-"
    if recoveries:
        spread = f"{_quantile(recoveries, 0.5):.1f}, {_quantile(recoveries, 0.99):.1f}"
    n_wrong = sum(not trial.is_right for trial in trials)
    bound = "-" if n_wrong else f"{min(1.0, 3 / len(trials)):.0%}"
    numbers = [
        len(trials),
        sum(trial.lost for trial in trials),
        sum(trial.doubled for trial in trials),
        sum(trial.extra_commits for trial in trials),
        f"{sum(t.partial_reads for t in trials)} of {sum(t.n_reads for t in trials)}",
        spread,
        n_wrong,
        bound,
    ]
    return " | ".join([f"| {name} {what}", *map(str, numbers)]) + " |"


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    sys.exit(main())
