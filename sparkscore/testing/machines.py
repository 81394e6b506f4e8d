"""Machines that tell how they are once a second, and of which some go wrong: load for streams.

    python -m sparkscore.testing.machines data/telemetry --format delta --rate 1000 --rows 100000

What a machine tells depends on the seed and the time alone: the same arguments give the same rows,
however they are cut into files.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from sparkscore.whole_files import write_whole

SENSORS = ("vibration", "temperature", "pressure", "load")
"""In mm/s, degrees Celsius, bar, and as a share of the largest load."""

_MEANS = np.array([2.0, 60.0, 5.0, 0.6])
_SPREADS = np.array([0.2, 1.5, 0.1, 0.1])
_AT_BREAKDOWN = np.array([9.0, 35.0, -2.0, 0.0])
"""What a fault adds when it has grown to its end."""
_SHARE_OF_NULLS = 0.01
_FIRST_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Machines:
    """Some machines, each of which goes wrong again and again.

    A fault grows from nothing to a breakdown within `ramp_s` seconds; then the machine is mended.
    The machines' faults begin at different times.

    Attributes:
        n_machines: Each tells one row a second.
        seed: Of all that is random.
        fault_every_s: Seconds from the begin of a machine's fault to that of its next.
        ramp_s: Seconds that a fault takes.
    """

    n_machines: int = 100
    seed: int = 0
    fault_every_s: int = 1800
    ramp_s: int = 300

    def rows(self, first_s: int, n_s: int) -> pa.Table:
        """What all of them tell in some seconds, second by second.

        Args:
            first_s: The first, counted from 2026-01-01 in UTC.
            n_s: How many.

        Returns:
            `machine` (text), `ts` (UTC), SENSORS (doubles, one in a hundred null) and `severity`:
            how far a fault has grown, from 0 to 1.
        """
        seconds = np.arange(first_s, first_s + n_s)
        severity = self._severity(seconds)
        told = np.stack([self._noise(int(second)) for second in seconds])
        values = _MEANS + _SPREADS * told + _AT_BREAKDOWN * severity[:, :, None] ** 2
        names = [f"m{i:05d}" for i in range(self.n_machines)]
        start_us = int(_FIRST_TIME.timestamp()) * 1_000_000
        times = np.repeat(start_us + seconds * 1_000_000, self.n_machines)
        is_null = np.stack([self._is_null(int(second)) for second in seconds])
        columns = {
            name: pa.array(values[:, :, i].ravel(), mask=is_null[:, :, i].ravel())
            for i, name in enumerate(SENSORS)
        }
        return pa.table(
            {
                "machine": pa.array(names * n_s),
                "ts": pa.array(times, pa.timestamp("us", "UTC")),
                **columns,
                "severity": severity.ravel(),
            }
        )

    def _severity(self, seconds: np.ndarray) -> np.ndarray:
        first = np.random.default_rng(self.seed).integers(0, self.fault_every_s, self.n_machines)
        since = (seconds[:, None] - first) % self.fault_every_s
        return np.where(since < self.ramp_s, since / self.ramp_s, 0.0)

    def _noise(self, second: int) -> np.ndarray:
        return self._random(second, 1).standard_normal((self.n_machines, len(SENSORS)))

    def _is_null(self, second: int) -> np.ndarray:
        chances = self._random(second, 2).random((self.n_machines, len(SENSORS)))
        return chances < _SHARE_OF_NULLS

    def _random(self, second: int, use: int) -> np.random.Generator:
        """Random numbers of one second, which no other second's depend on."""
        return np.random.Generator(
            np.random.Philox(key=[self.seed, use], counter=[0, 0, 0, second])
        )


@dataclass(frozen=True)
class Pace:
    """How fast rows come.

    Attributes:
        rows_per_s: None: as fast as they can be made.
        every_s: Seconds between two files.
        clock: Seconds that never go back.
        sleep: Waits for some seconds.
    """

    rows_per_s: float | None = None
    every_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def files(self, machines: Machines, n_rows: int) -> Iterator[pa.Table]:
        """Rows for one file after the other, each when it is due; whole seconds of the machines.

        Args:
            machines: Who tells them.
            n_rows: In all, rounded up to whole seconds.
        """
        n_seconds = -(-n_rows // machines.n_machines)
        rate = self.rows_per_s or float(n_rows)
        n_s = max(1, round(rate * self.every_s / machines.n_machines))
        started = self.clock()
        for number, first_s in enumerate(range(0, n_seconds, n_s)):
            if self.rows_per_s is not None:
                due = started + number * n_s * machines.n_machines / rate
                self.sleep(max(0.0, due - self.clock()))
            yield machines.rows(first_s, min(n_s, n_seconds - first_s))


def append_delta(rows: pa.Table, folder: Path) -> None:
    """Add rows to a Delta table, which is made if it is not there."""
    write_deltalake(folder, rows, mode="append")


def append_json(rows: pa.Table, folder: Path) -> None:
    """Add a file with a line of JSON for each row; it is seen when all of it is there."""
    lines = (json.dumps(row | {"ts": row["ts"].isoformat()}) for row in rows.to_pylist())
    first = rows["ts"][0].as_py()
    name = f"told-{first:%Y-%m-%dT%H%M%S}.json"
    write_whole(folder / name, "".join(f"{line}\n" for line in lines))


_FORMATS = {"delta": append_delta, "json": append_json}


def main(argv: Sequence[str] | None = None) -> int:
    """Write rows of machines into a folder."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m sparkscore.testing.machines", description=summary
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=_FORMATS, default="delta")
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--rate", type=float, help="Rows a second; default: as fast as can be.")
    parser.add_argument("--rows", type=int, default=100_000, help="In all.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    machines = Machines(args.machines, args.seed)
    for rows in Pace(args.rate).files(machines, args.rows):
        _FORMATS[args.format](rows, args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
