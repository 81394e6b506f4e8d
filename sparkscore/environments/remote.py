"""A model in an environment of its own, as its own worker sees it: a predictor like any other."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, Timer
from typing import IO, BinaryIO

import pyarrow as pa

from sparkscore import errors
from sparkscore.environments.child import ANSWER, PARAMS, read_frame, write_frame
from sparkscore.errors import (
    BatchDeadlineError,
    EnvironmentBuildError,
    SparkscoreError,
    WorkerCrashError,
    shown,
)
from sparkscore.flavors.base import Runtime, TreeRuntime
from sparkscore.flavors.functions import asked_by
from sparkscore.flavors.load import LoadedPredictor, flavor_of, n_outputs
from sparkscore.package.layout import Package
from sparkscore.package.params import plain_params
from sparkscore.package.signature import Signature
from sparkscore.package.signing import check_signed
from sparkscore.package.trust import TrustPolicy

_START = (
    "import sys; sys.path[:0] = {path!r}; from sparkscore.environments.child import main; main()"
)
_MAX_SAID = 2000
"""Bytes that are kept of what a child said last, to find its last line in."""
_PATIENCE_S = 1.0
"""Wait for a dead child's last words; a process that it left behind may hold its stderr."""


class RemotePredictor:
    """A predictor whose model lives in a child process; the process ends with this object."""

    def __init__(
        self,
        python: Path,
        path: Sequence[str],
        package: Package,
        trust: TrustPolicy,
        tree: TreeRuntime,
        predict: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._is_late = False
        command = [str(python), "-I", "-c", _START.format(path=list(path))]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as exc:
            raise EnvironmentBuildError(
                f"the environment's interpreter {shown(str(python))} does not start here: {exc}; "
                "nodes need the same base Python at the same place as where it was built"
            ) from exc
        self._said = bytearray()
        assert self._process.stderr is not None
        self._listening = Thread(
            target=_listen, args=(self._process.stderr, self._said), daemon=True
        )
        self._listening.start()
        weakref.finalize(self, _end, self._process)
        asked = {
            "folder": str(package.folder),
            "allow_code": trust.allow_code,
            "types": list(trust.types),
            "tree_runtime": tree.value,
            "predict": predict,
        }
        self.runtime = self._begun(asked)

    @property
    def takes_params(self) -> bool:
        """Whether params may be given; what the model says to them, the child knows."""
        return True

    def with_params(self, params: Mapping[str, object]) -> ParametricRemote:
        """This predictor, with `params` sent beside each batch; see `Parametric`."""
        return ParametricRemote(self, json.dumps(plain_params(params)))

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The declared prediction columns for a batch, as the child's model gives them.

        Raises:
            SparkscoreError: What the child raised, or its end.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        with self._deadline():
            try:
                write_frame(self._stdin, memoryview(sink.getvalue()))
                frame = read_frame(self._stdout)
            except OSError:  # The pipe is broken.
                frame = None
        if frame is None:
            self._refuse_late()
            raise WorkerCrashError(f"the model's own process ended{self._last_words()}")
        if frame[:1] != ANSWER:
            raise _error_of(json.loads(frame[1:]))
        with pa.ipc.open_stream(pa.py_buffer(frame)[1:]) as stream:
            return stream.read_next_batch()

    def _begun(self, asked: Mapping[str, object]) -> Runtime:
        with self._deadline():
            try:
                self._stdin.write(json.dumps(asked).encode() + b"\n")
                self._stdin.flush()
                line = self._stdout.readline()
            except OSError:
                line = b""
        if not line:
            self._refuse_late()
            raise EnvironmentBuildError(
                f"the model's own process did not begin{self._last_words()}"
            )
        told = json.loads(line)
        if "class" in told:
            raise _error_of(told)
        return Runtime(told["name"], told["reason"])

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """End the child if it takes longer than it may for what the block asks of it."""
        if self._deadline_s is None:
            yield
            return
        timer = Timer(self._deadline_s, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _refuse_late(self) -> None:
        if self._is_late:
            raise BatchDeadlineError(
                f"the model did not answer in {self._deadline_s:g} s; mend it, or give it more "
                "time (scoring.batch_deadline_s)"
            )

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]  # a binary pipe

    @property
    def _stdout(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]  # a binary pipe

    def _last_words(self) -> str:
        code = self._process.wait()
        self._listening.join(_PATIENCE_S)
        lines = self._said.decode(errors="replace").strip().splitlines()
        return f" with code {code}{': ' + lines[-1] if lines else ''}"


@dataclass(frozen=True)
class ParametricRemote:
    """A remote predictor and params for its model, as JSON."""

    remote: RemotePredictor
    params: str

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `RemotePredictor.predict`."""
        return self.remote.predict(batch.replace_schema_metadata({PARAMS: self.params}))


def load_remotely(
    python: Path,
    source: Path,
    package: Package,
    trust: TrustPolicy,
    tree: TreeRuntime,
    predict: str | None = None,
) -> LoadedPredictor:
    """A predictor for a package whose bytes were verified before, in another environment.

    Args:
        python: The environment's interpreter.
        source: The zip with sparkscore's source.
        package: The opened package.
        trust: What the operator allows it to load.
        tree: Whether compiled trees may stand in for the library, if the environment can.
        predict: The function to ask; None: the packaged one.

    Raises:
        UnsignedPackageError: `trust` demands a signature that the package does not have.
        EnvironmentBuildError: The interpreter does not start, or lacks what sparkscore needs.
        SparkscoreError: What loading raised there.
    """
    return _loaded(python, [str(source)], package, trust, tree, predict)


def load_apart(
    package: Package,
    trust: TrustPolicy,
    tree: TreeRuntime,
    predict: str | None = None,
    *,
    deadline_s: float,
) -> LoadedPredictor:
    """A predictor by this interpreter and its path, in a process that may crash or hang alone.

    Args:
        package: The opened package; its bytes were verified before.
        trust: What the operator allows it to load.
        tree: Whether compiled trees may stand in for the library.
        predict: The function to ask; None: the packaged one.
        deadline_s: Longest wait, in seconds, for the model to load, and for each answer.

    Raises:
        UnsignedPackageError: `trust` demands a signature that the package does not have.
        BatchDeadlineError: It takes longer; the process is ended. An answer may raise this too.
        WorkerCrashError: The process ended while it loaded the model.
        SparkscoreError: What loading raised there.
    """
    path = [entry or str(Path.cwd()) for entry in sys.path]
    try:
        return _loaded(Path(sys.executable), path, package, trust, tree, predict, deadline_s)
    except EnvironmentBuildError as exc:  # Nothing was built for it: the model itself is why.
        raise WorkerCrashError(str(exc)) from exc


def _loaded(
    python: Path,
    path: Sequence[str],
    package: Package,
    trust: TrustPolicy,
    tree: TreeRuntime,
    predict: str | None,
    deadline_s: float | None = None,
) -> LoadedPredictor:
    check_signed(package.folder, trust)  # Here, where the library for it is.
    trust = trust.for_package(package.folder)
    if predict is not None:
        package = asked_by(package, flavor_of(package), predict)
    remote = RemotePredictor(python, path, package, trust, tree, predict, deadline_s)
    assert isinstance(package.description.signature, Signature)  # As the child has seen.
    return LoadedPredictor(remote, remote.runtime, n_outputs(package.description.signature))


def _error_of(told: Mapping[str, str]) -> Exception:
    """The error that a child tells of: one of ours, memory that ran out, or the model's own."""
    kind = getattr(errors, told["class"], None)
    if isinstance(kind, type) and issubclass(kind, SparkscoreError):
        return kind(told["message"])
    if told["class"] in ("MemoryError", "ArrowMemoryError"):
        return MemoryError(told["message"])
    # A class of the model's own libraries may not be there to be raised; its name is.
    kind = type(told["class"], (RuntimeError,), {})
    error: RuntimeError = kind(told["message"])
    return error


def _listen(stderr: IO[bytes], said: bytearray) -> None:
    """Keep the last of what a child says until it has ended, however much that is."""
    with stderr:
        while chunk := stderr.read1(_MAX_SAID):  # type: ignore[attr-defined]  # a BufferedReader
            said += chunk
            del said[:-_MAX_SAID]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout):
        if file is not None:
            file.close()
