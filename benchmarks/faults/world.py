"""A small world that faults are tried in: a source, models, and jobs as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from benchmarks.faults.line import MARK, POISON, save_line

N_ROWS = 600_000
N_FILES = 6
N_POISONED = 6
"""Rows that the model `line` refuses while the file `poison` is at the gate: one in 100,000."""
_START_S = 300
_POLL_S = 0.01


class WrongError(Exception):
    """A trial did not end as promised."""


def expect(is_right: bool, what: str) -> None:
    """Go on where a promise was kept.

    Raises:
        WrongError: It was not.
    """
    if not is_right:
        raise WrongError(what)


@dataclass(frozen=True)
class Answer:
    """What a job left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line of stdout.

        Raises:
            WrongError: There is none.
        """
        expect(bool(self.stdout), f"the job ended with {self.exit_code} and no result")
        result: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return result

    @property
    def error_code(self) -> str:
        """The stable code of the error; empty: there was none."""
        error = self.result["error"]
        return "" if error is None else str(error["code"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A list that was asked for as JSON."""
        rows: list[dict[str, Any]] = json.loads(self.stdout)
        return rows


def expect_exit(answer: Answer, code: int, case: str = "the job") -> None:
    """Go on where a job ended with this code.

    Raises:
        WrongError: It did not.
    """
    expect(answer.exit_code == code, f"{case} ended with {answer.exit_code}: {answer.stderr}")


class Job:
    """A job in a process group of its own: Python, JVM and workers."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        name = f"job-{time.monotonic_ns()}"
        self._streams = [folder / f"{name}.out", folder / f"{name}.err"]
        with self._streams[0].open("wb") as out, self._streams[1].open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def said(self) -> str:
        """What it has written to stderr so far."""
        return self._streams[1].read_text(errors="replace")

    def await_sign(self, sign: Callable[[], bool]) -> bool:
        """Wait until a sign is seen, or the job has ended; whether it was seen."""
        deadline = time.monotonic() + _START_S
        while not sign():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return sign()
            time.sleep(_POLL_S)
        return True

    def send(self, number: signal.Signals) -> None:
        """A signal to the process that was started, as an orchestrator sends it."""
        self.process.send_signal(number)

    def send_all(self, number: signal.Signals) -> None:
        """A signal to all of its processes, if there are any left."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill -9 of driver, JVM and workers at once."""
        self.send_all(signal.SIGKILL)
        self.process.wait(_START_S)

    def kill_after(self, seconds: float) -> None:
        """Kill -9 of all after so many seconds, unless it ends before."""
        end = time.monotonic() + seconds
        self.await_sign(lambda: time.monotonic() > end)
        self.kill()

    def answer(self, timeout_s: float = _START_S) -> Answer:
        """What the ended job left behind.

        Raises:
            WrongError: It does not end.
        """
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise WrongError(f"the job did not end within {timeout_s:g} s") from exc
        texts = [path.read_text(errors="replace") for path in self._streams]
        return Answer(code, *texts)

    def clear(self) -> None:
        """End what is left of it, and remove what it has written."""
        if self.process.poll() is None:
            self.send_all(signal.SIGKILL)
            self.process.wait()
        for path in self._streams:
            path.unlink(missing_ok=True)


class World:
    """A working folder with the source `rows` and the models `line` and `other`.

    Attributes:
        folder: Everything lies below it.
        job_s: Seconds of an undisturbed job.
        gate: Files that tell the model what to do; see `line.Line`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.gate = folder, folder / "gate"
        self.jobs: list[Job] = []
        self.job_s = 0.0

    def build(self) -> None:
        """Make source and models."""
        self.gate.mkdir(parents=True)
        self.write_source("rows")
        for name, slope in (("line", 2.0), ("other", 3.0)):
            save_line(self.folder / name, slope, self.gate)
            self.register(name, self.folder / name)
        for target in ("warm", "undisturbed"):  # The first job fills the caches.
            started = time.monotonic()
            answer = self.run(*self.batch(target))
            expect_exit(answer, 0)
            self.job_s = time.monotonic() - started

    def write_source(self, name: str) -> None:
        """The source anew: ids from 0, random x with one marked and six poisoned rows."""
        ids = np.arange(N_ROWS)
        rows = pa.table({"id": ids, "part": ids % 2, "x": source_x()})
        for start in range(0, N_ROWS, N_ROWS // N_FILES):
            part = rows.slice(start, N_ROWS // N_FILES)
            write_deltalake(self.folder / name, part, mode="append")

    def register(self, name: str, package: Path) -> None:
        """A further version of a model, as champion."""
        answer = self.run("models", "register", str(package), "--name", name, "--alias", "champion")
        expect_exit(answer, 0)

    def batch(self, target: str, *more: str, model: str = "models:/line@champion") -> list[str]:
        """The arguments of a job that scores the source into a target, under the key k1."""
        return [
            *("score", "batch", "--model", model, "--source", "./rows", "--target", f"./{target}"),
            *("--key", "id", "--trust-code", "--run-key", "k1", *more),
        ]

    def start(self, *args: str, **settings: str) -> Job:
        """`sparkscore ARGS` in processes of its own, with settings such as SPARK__MASTER."""
        kept = ("PYSPARK_", "SPARK", "MLFLOW_")
        environ = {name: v for name, v in os.environ.items() if not name.startswith(kept)}
        ours = {"SPARK__MASTER": "local[2,3]", "SCORING__MAX_ROWS_PER_BATCH": "25000"} | settings
        environ |= {f"SPARKSCORE__{name}": value for name, value in ours.items()}
        environ["SPARKSCORE_NODE_CACHE"] = str(self.folder / "node")
        job = Job([sys.executable, "-m", "sparkscore.cli", *args], self.folder, environ)
        self.jobs.append(job)
        return job

    def run(self, *args: str, **settings: str) -> Answer:
        """The same, to its end."""
        return self.start(*args, **settings).answer()

    def tell(self, *orders: str) -> None:
        """Give orders to the model."""
        for order in orders:
            (self.gate / order).touch()

    def is_told(self, order: str) -> bool:
        """Whether an order is at the gate."""
        return (self.gate / order).exists()

    def clear(self) -> None:
        """End the jobs of a trial, and take back all orders."""
        for job in self.jobs:
            job.clear()
        self.jobs.clear()
        for order in self.gate.iterdir():
            order.unlink(missing_ok=True)

    def commits(self, target: str) -> int:
        """Commits of the target's table."""
        return len(list((self.folder / target / "_delta_log").glob("*.json")))

    def staged(self, target: str) -> list[Path]:
        """Files in the target's folder that its table does not name."""
        root = self.folder / target
        named = set()
        if self.commits(target):
            uris = DeltaTable(root).file_uris()
            named = {Path(uri.removeprefix("file://")) for uri in uris}
        # Hadoop keeps the checksum of each file that Spark writes to a disk beside it.
        named |= {path.with_name(f".{path.name}.crc") for path in named}
        files = [path for path in root.rglob("*") if path.is_file()]
        return [path for path in files if path not in named and "_delta_log" not in path.parts]

    def records(self, target: str) -> int:
        """Finished chunks in the target's ledgers."""
        return len(list((self.folder / target).glob("_sparkscore/*/chunk-*")))


def source_x() -> np.ndarray:
    """The source's x: random numbers, which do not compress."""
    x = np.random.default_rng(20131001).random(N_ROWS)
    x[0] = MARK
    x[N_ROWS // N_POISONED // 2 :: N_ROWS // N_POISONED] = POISON
    return x
