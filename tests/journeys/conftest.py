"""A small world for whole jobs: models, a Delta source, a registry, and jobs as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore import infer_signature, save_model
from sparkscore.cli import main
from sparkscore.spark.jars import JarSource
from sparkscore.spark.java import find_java, spark_home
from sparkscore.spark.launch import LAUNCH_OPTIONS, prepare_environment

if TYPE_CHECKING:
    import pandas as pd

REPOSITORY = Path(__file__).parents[2]
N_ROWS = 2000
N_FILES = 40
_START_S = 240
_STOP_S = 30


@dataclass(frozen=True)
class Answer:
    """What a job left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line of stdout."""
        result: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return result


class Job:
    """A job in a process group of its own."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._out = (folder / "job.out").open("wb+")
        self._err = (folder / "job.err").open("wb+")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )
        self._family: set[psutil.Process] = set()

    def await_sign(self, sign: Callable[[], bool]) -> None:
        """Wait until `sign` is seen; the job must be alive until then."""
        deadline = time.monotonic() + _START_S
        while not sign():
            assert self.process.poll() is None, self.answer().stderr
            assert time.monotonic() < deadline, "the job never came to the awaited point"
            time.sleep(0.02)  # Looks at files of another process: nothing here can notify us.
        me = psutil.Process(self.process.pid)
        self._family = {me, *me.children(recursive=True)}

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started, and to no other."""
        self.process.send_signal(number)

    def kill_group(self) -> None:
        """kill -9 of the driver: Python and JVM at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_STOP_S)

    def kill_jvm(self) -> None:
        """kill -9 of Spark's driver below the process that was started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        next(child for child in children if child.name() == "java").kill()

    def answer(self, timeout_s: float = _START_S) -> Answer:
        """What the ended job left behind."""
        code = self.process.wait(timeout_s)
        texts = []
        for stream in (self._out, self._err):
            stream.seek(0)
            texts.append(stream.read().decode())
        return Answer(code, *texts)

    def survivors(self) -> list[str]:
        """Processes that the job had at the awaited sign, and that outlive it by 30 s."""
        _, alive = psutil.wait_procs(list(self._family), timeout=_STOP_S)
        return [" ".join(process.cmdline()) for process in alive]

    def clear(self) -> None:
        """End what a failed test left running."""
        for process in self._family:
            if process.is_running():
                process.kill()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._out.close()
        self._err.close()


@dataclass
class World:
    """One working folder with a source table and registered models."""

    folder: Path
    cache: Path
    jobs: list[Job] = field(default_factory=list)

    @property
    def gate(self) -> Path:
        """While the file `hold` is here, the model `slow` waits in `predict`."""
        return self.folder / "gate"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a job's process: this machine's, with settings of this world."""
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key == LAUNCH_OPTIONS or not key.startswith(("PYSPARK_", "SPARK", "MLFLOW_"))
        }
        return inherited | self.settings

    @property
    def settings(self) -> dict[str, str]:
        """Settings as environment variables."""
        return {
            "SPARKSCORE__CACHE__FOLDER": str(self.cache),
            "SPARKSCORE__SPARK__MASTER": "local[1]",
            "SPARKSCORE_NODE_CACHE": str(self.folder / "node"),
        }

    def start(self, *args: str, environ: Mapping[str, str] | None = None) -> Job:
        """`sparkscore ARGS`, in a process of its own."""
        command = [sys.executable, "-m", "sparkscore.cli", *args]
        return self._started(command, self.environ | dict(environ or {}))

    def submit(self, *args: str) -> Job:
        """`spark-submit jobs/score_batch.py ARGS`; its process is the JVM, as for orchestrators."""
        environ = self.environ
        prepare_environment(find_java(self.cache, environ), environ, self.cache)
        script = str(REPOSITORY / "jobs" / "score_batch.py")
        launcher = str(spark_home() / "bin" / "spark-submit")
        command = [launcher, "--master", "local[1]", script, *args]
        return self._started(command, environ | {"PYTHONPATH": str(REPOSITORY)})

    def hold(self) -> None:
        """Let the model `slow` wait at its next batch."""
        (self.gate / "hold").touch()

    def release(self) -> None:
        """Let the model `slow` go on."""
        (self.gate / "hold").unlink(missing_ok=True)
        (self.gate / "started").unlink(missing_ok=True)

    def is_scoring(self) -> bool:
        """Whether the model `slow` was given a batch since the gate was closed."""
        return (self.gate / "started").exists()

    def scores(self, target: str) -> pa.Table:
        """What must not depend on how often the job was cut off, in the order of the key."""
        table = DeltaTable(self.folder / target).to_pyarrow_table()
        return table.select(["id", "prediction", "model_digest"]).sort_by("id")

    def commits(self, target: str) -> list[dict[str, Any]]:
        """User metadata of the target's commits that sparkscore made, oldest first."""
        if not any((self.folder / target / "_delta_log").glob("*.json")):
            return []
        history = reversed(DeltaTable(self.folder / target).history())
        texts = (entry.get("userMetadata") for entry in history)
        return [json.loads(text) for text in texts if text]

    def _started(self, command: Sequence[str], environ: Mapping[str, str]) -> Job:
        self.jobs.append(Job(command, self.folder, environ))
        return self.jobs[-1]


Batch = Callable[..., list[str]]
Run = Callable[..., Answer]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages and a source table, made once."""
    folder = tmp_path_factory.mktemp("template")
    ids = pa.array(range(N_ROWS), pa.int64())
    source = pa.table({"id": ids, "x": pa.array([i / 8 for i in range(N_ROWS)], pa.float64())})
    for start in range(0, N_ROWS, N_ROWS // N_FILES):
        part = source.slice(start, N_ROWS // N_FILES)
        write_deltalake(folder / "rows", part, mode="append")
    DeltaTable(folder / "rows").create_checkpoint()  # One file to read instead of one a commit.
    return folder


@pytest.fixture
def world(
    template: Path, delta_jars: JarSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A fresh working folder: source `rows`, models `linear` and `slow` with alias `champion`."""
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    world = World(tmp_path, delta_jars.cache)
    for name, value in world.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").symlink_to(template / "rows")
    world.gate.mkdir()
    for name, gate in (("linear", None), ("slow", world.gate)):
        package = tmp_path / f"{name}-package"
        save_line(package, 2.0, gate)
        assert register(package, name) == 0
    yield world
    world.release()
    for job in world.jobs:
        job.clear()


def save_line(folder: Path, slope: float, gate: Path | None = None) -> None:
    """Package the model slope * x + 1, which waits at `gate` if there is one."""

    class Line:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import time

            if gate is not None and (gate / "hold").exists():
                (gate / "started").touch()
                while (gate / "hold").exists():
                    time.sleep(0.05)
            return model_input["x"].to_numpy() * slope + 1.0

    inputs = pa.table({"x": [0.5]})
    outputs = pa.table({"prediction": [2.0]})
    save_model(Line(), folder, flavor="python_function", signature=infer_signature(inputs, outputs))


def register(package: Path, name: str) -> int:
    """Register through the command, with the alias champion."""
    return main(
        ["--quiet", "models", "register", str(package), "--name", name, "--alias", "champion"]
    )


@pytest.fixture
def batch() -> Batch:
    """The arguments of `score batch` for a model, a target and a run key."""

    def batch(model: str = "linear", target: str = "scores", key: str = "k1") -> list[str]:
        uri = model if "/" in model else f"models:/{model}@champion"
        return [
            *("--model", uri, "--source", "./rows", "--target", f"./{target}", "--key", "id"),
            *("--run-key", key, "--trust-code"),
        ]

    return batch


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the session of all tests where it needs Spark."""
    assert world.folder == Path.cwd()

    def run(*args: str) -> Answer:
        capsys.readouterr()
        exit_code = main(args)
        captured = capsys.readouterr()
        return Answer(exit_code, captured.out, captured.err)

    return run
