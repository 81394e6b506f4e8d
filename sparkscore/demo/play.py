"""The demo's steps, through the same Python calls that anybody would use."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.batch_job import run_batch_job
from sparkscore.demo.flights import october_flights, read_flights, training_flights
from sparkscore.demo.models import package, train_lightgbm, train_pipeline
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.provenance import run_origin
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings

NIGHTS = ("2013-10-01", "2013-10-02", "2013-10-03")
NEXT_NIGHT = "2013-10-04"
N_STEPS = 11

_MODEL = parse_model_name("flight-delay")
_CHAMPION = parse_alias("champion")
_EXPERIMENT = "flight-delay"


@dataclass
class Step:
    """One step of the demo; `status` says in a few words what came of it."""

    name: str
    n_rows: int | None = None
    status: str = "done"
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float | None:
        """Rows a second over the whole step; None where it has no rows."""
        return self.n_rows / self.seconds if self.n_rows and self.seconds else None


class Watcher(Protocol):
    """Who is told how far the demo is."""

    def begin(self, name: str) -> None:
        """A step begins."""
        ...

    def end(self, step: Step) -> None:
        """It ended well."""
        ...


@dataclass
class Demo:
    """One demo in one folder.

    Attributes:
        workspace: Its stores lie in the folder; one Spark session serves all steps.
        job_file: The nightly job.
        folder: Absolute; where packages, source and scores go.
        watcher: Told of every step.
        announce: Told in one line what a step is at.
    """

    workspace: Workspace
    job_file: Path
    folder: Path
    watcher: Watcher
    announce: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)

    def play(self) -> None:
        """Take all steps; what each did is in `steps`.

        Raises:
            SparkscoreError: A step failed; the ones before it keep what they made.
        """
        self.job(NIGHTS[0])  # A broken job file is told before minutes are spent.
        with self._step("read flights") as step:
            flights = read_flights()
            step.n_rows = flights.num_rows
        self._make_versions(training_flights(flights))
        with self._step("open Spark"):
            self.workspace.spark  # noqa: B018 - opened here, so that no other step pays for it
        self._write_source(october_flights(flights))
        for night in NIGHTS:
            self._score(f"score {night}", night)
        self._score(f"score {NIGHTS[-1]} again", NIGHTS[-1])

    def job(self, night: str) -> JobSettings:
        """The job file for one night, with its tables in this demo's folder.

        Raises:
            ConfigError: The file is no job file.
        """
        source, target = self.folder / "flights", self.folder / "scores"
        tables = {"source.uri": str(source), "target.uri": str(target)}
        return self.workspace.job(self.job_file, tables, run_key=night).values

    def table_options(self) -> dict[str, str]:
        """The options that give the job file this demo's tables, where its own are others."""
        written = self.workspace.job(self.job_file, run_key=NEXT_NIGHT).values
        played = self.job(NEXT_NIGHT)
        options = {
            "--source": (written.source.uri, played.source.uri),
            "--target": (written.target.uri, played.target.uri),
        }
        return {
            flag: ours
            for flag, (theirs, ours) in options.items()
            if str(Path(theirs).absolute()) != ours
        }

    def _make_versions(self, flights: pa.Table) -> None:
        for number, train in enumerate((train_pipeline, train_lightgbm), start=1):
            tracking, origin = self.workspace.tracking, run_origin()
            with tracking.start_run("train", _EXPERIMENT, origin=origin) as run:
                with self._step(f"train version {number}") as step:
                    model = train(flights)
                    step.n_rows, step.status = flights.num_rows, type(model).__name__
                run.log_params({"model": type(model).__name__, "rows": flights.num_rows})
                with self._step(f"register version {number}") as step:
                    package(model, flights, self.folder / "packages" / str(number))
                    step.status = self._register(number, run.run_id)

    def _register(self, number: int, run_id: str) -> str:
        version = self.workspace.registry.register(
            self.folder / "packages" / str(number),
            _MODEL,
            # Version 1 is what the nights are scored with; moving the alias is for a person.
            alias=_CHAMPION if number == 1 else None,
            run_id=run_id,
        )
        aliases = "".join(f", alias {alias}" for alias in version.aliases)
        return f"{version.status.value}{aliases}"

    def _write_source(self, flights: pa.Table) -> None:
        with self._step("write October as a Delta table") as step:
            with tempfile.TemporaryDirectory() as landing:
                # As rows in the plan, October would be more than a Spark task likes to carry.
                pq.write_table(flights, f"{landing}/october.parquet")
                frame = self.workspace.spark.read.parquet(landing)
                frame.write.format("delta").save(str(self.folder / "flights"))
            step.n_rows = flights.num_rows

    def _score(self, name: str, night: str) -> None:
        with self._step(name) as step:
            result = run_batch_job(self.workspace, self.job(night), night, self.announce)
            n_rows = result.output["rows"]
            assert isinstance(n_rows, int)
            step.n_rows, step.status = n_rows, result.message

    @contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        step = Step(name)
        self.watcher.begin(name)
        started = time.perf_counter()
        yield step
        step.seconds = time.perf_counter() - started
        self.steps.append(step)
        self.watcher.end(step)
