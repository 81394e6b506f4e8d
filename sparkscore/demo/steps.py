"""What the demos have in common: one folder, one Spark session, and steps that are told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import pyarrow as pa

from sparkscore.names import parse_alias
from sparkscore.package import Package
from sparkscore.provenance import run_origin
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.names import AliasName, ModelName


CHAMPION = parse_alias("champion")


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


@dataclass(frozen=True)
class Place:
    """A folder of a demo that its job's file names by another path.

    Attributes:
        what: What lies there.
        option: The option of `sparkscore score` that names it.
        key: The key of the job's file that names it.
        name: What the demo calls the folder.
    """

    what: str
    option: str
    key: str
    name: str


@dataclass
class Demo(ABC):
    """One demo in one folder.

    Attributes:
        workspace: Its stores lie in the folder; one Spark session serves all steps.
        job_file: The job that the demo plays.
        folder: Absolute; where packages, source and scores go.
        watcher: Told of every step.
        announce: Told in one line what a step is at.
        steps: What each step did that has ended.
    """

    model: ClassVar[ModelName]
    n_steps: ClassVar[int]
    tables: ClassVar[tuple[Place, ...]]

    workspace: Workspace
    job_file: Path
    folder: Path
    watcher: Watcher
    announce: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)

    @abstractmethod
    def play(self) -> None:
        """Take all steps; what each did is in `steps`.

        Raises:
            SparkscoreError: A step failed; the ones before it keep what they made.
        """

    def job(self, run_key: str | None = None) -> JobSettings:
        """The job of the file, with its tables in this demo's folder.

        Raises:
            ConfigError: The file is no job file.
        """
        ours = {place.key: str(self.folder / place.name) for place in self.tables}
        return self.workspace.job(self.job_file, ours, run_key=run_key).values

    def places(self) -> dict[str, Path]:
        """What lies where in the demo's folder."""
        return {
            "database": self.folder / "sparkscore.db",
            "artifacts": self.folder / "artifacts",
            "packages": self.folder / "packages",
            **{place.what: self.folder / place.name for place in self.tables},
        }

    def table_options(self, run_key: str | None = None) -> dict[str, str]:
        """The options that give the job file this demo's tables, where its own are others."""
        written = self.workspace.job(self.job_file, run_key=run_key).values
        found = {}
        for place in self.tables:
            ours = str(self.folder / place.name)
            if str(Path(_value_of(written, place.key)).absolute()) != ours:
                found[place.option] = ours
        return found

    def make_version(
        self,
        number: int,
        rows: pa.Table,
        train: Callable[[pa.Table], object],
        package: Callable[[object, pa.Table, Path], Package],
        alias: AliasName | None = None,
    ) -> None:
        """Train and register a version of the model: two steps, and a run on record.

        Args:
            number: Of the version.
            rows: What it is trained on.
            train: Gives the fitted model.
            package: Saves it with the rows that it was trained on.
            alias: That shall mean it.
        """
        tracking, origin = self.workspace.tracking, run_origin()
        with tracking.start_run("train", str(self.model), origin=origin) as run:
            with self.step(f"train version {number}") as step:
                fitted = train(rows)
                step.n_rows, step.status = rows.num_rows, type(fitted).__name__
            run.log_params({"model": type(fitted).__name__, "rows": rows.num_rows})
            with self.step(f"register version {number}") as step:
                folder = self.folder / "packages" / str(number)
                package(fitted, rows, folder)
                version = self.workspace.registry.register(
                    folder, self.model, alias=alias, run_id=run.run_id
                )
                aliases = "".join(f", alias {alias}" for alias in version.aliases)
                step.status = f"{version.status.value}{aliases}"

    def open_spark(self) -> None:
        """Open the session in a step of its own, so that no other one pays for it."""
        with self.step("open Spark"):
            self.workspace.spark  # noqa: B018 - opened, and kept by the workspace

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step that counts and is told once its block has ended well."""
        step = Step(name)
        self.watcher.begin(name)
        started = time.perf_counter()
        yield step
        step.seconds = time.perf_counter() - started
        self.steps.append(step)
        self.watcher.end(step)


def _value_of(job: JobSettings, key: str) -> str:
    return str(reduce(getattr, key.split("."), job))
