"""What the outbox keeps on disk: one file of JSON lines a run, and the files that go with it.

```
<folder>/                 0700
  <run id>.jsonl          first line {"journal": 1, ...}, then one line an operation, in order
  <run id>.files/         artifacts that wait, under the names that the lines give
  refused/                journals that a store will never take, each with <run id>.reason.txt
  .lock, .replay.lock     held while a journal changes, and while a replay goes on
```
A line counts once its newline is on disk; what a crash left behind the last newline was never
acknowledged and is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from sparkscore.errors import SparkscoreError, StoreUnavailableError, UsageError, shown
from sparkscore.names import ArtifactPath, RunId, parse_artifact_path
from sparkscore.records import Dataset, DatasetInput, Metric, ModelOutput, RunStatus
from sparkscore.stores.base import Clock
from sparkscore.stores.local_files import LocalArtifactStore

_FORMAT = 1
_LOCK_TIMEOUT_S = 60.0
_MAX_STEM_CHARS = 200
_EMPTY_HEAD = json.dumps({"journal": _FORMAT}).encode()


@dataclass(frozen=True)
class CreateRun:
    """A call of RunStore.create_run."""

    experiment_id: str
    run_name: str
    user_id: str
    start_time_ms: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LogBatch:
    """A call of RunStore.log_batch."""

    metrics: Sequence[Metric] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateRun:
    """A call of RunStore.update_run."""

    status: RunStatus
    end_time_ms: int | None


@dataclass(frozen=True)
class RenameRun:
    """A call of RunStore.rename_run."""

    name: str


@dataclass(frozen=True)
class DeleteRunTag:
    """A call of RunStore.delete_run_tag."""

    key: str


@dataclass(frozen=True)
class LogInputs:
    """A call of RunStore.log_inputs."""

    datasets: Sequence[DatasetInput] = ()
    model_ids: Sequence[str] = ()


@dataclass(frozen=True)
class LogOutputs:
    """A call of RunStore.log_outputs."""

    models: Sequence[ModelOutput] = ()


@dataclass(frozen=True)
class PutArtifact:
    """A call of ArtifactStore.put; the bytes wait as `file` in the run's folder of files."""

    path: ArtifactPath
    file: ArtifactPath


RunWrite = CreateRun | LogBatch | UpdateRun | RenameRun | DeleteRunTag | LogInputs | LogOutputs
Operation = RunWrite | PutArtifact


class Journal:
    """Queued operations by run, safe between threads and processes.

    Every method raises StoreUnavailableError if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def is_waiting(self, run_id: RunId) -> bool:
        """Whether anything of the run is queued."""
        with self._guarded():
            return self._path(run_id).exists()

    def waiting(self) -> list[RunId]:
        """Runs with something queued, the longest waiting first."""
        with self._guarded():
            heads = [_head(path) for path in self._folder.glob("*.jsonl")]
        return [run_id for _, run_id in sorted(heads)]

    def append(self, run_id: RunId, operation: Operation) -> None:
        """Queue an operation behind those of its run; on disk when this returns."""
        with self._locked():
            self._append(run_id, operation)

    def append_artifact(self, run_id: RunId, local: Path, path: ArtifactPath) -> None:
        """Queue a copy of a local file or folder to become the artifact `path`.

        Raises:
            RecordNotFoundError: `local` does not exist.
            UsageError: It is, or holds, something else than regular files.
        """
        file = ArtifactPath(uuid.uuid4().hex)
        # One lock over both: a replay in between would clear the file away before its line.
        with self._locked():
            LocalArtifactStore(self._files(run_id)).put(local, file)
            self._append(run_id, PutArtifact(path, file))

    def operations(self, run_id: RunId) -> list[Operation]:
        """What is queued of a run, in order.

        Raises:
            UsageError: The journal was written by a newer release, or damaged.
        """
        path = self._path(run_id)
        with self._guarded():
            head, *lines = _whole_lines(path) or [_EMPTY_HEAD]
        _check_head(head, path)
        return [_decode(line, f"{path} line {number}") for number, line in enumerate(lines, 2)]

    def artifact_file(self, run_id: RunId, operation: PutArtifact) -> Path:
        """Where the bytes of a queued artifact wait."""
        return self._files(run_id) / operation.file

    def remove(self, run_id: RunId, n_operations: int) -> bool:
        """Forget a run of which `n_operations` were delivered; False if there are more by now."""
        with self._locked():
            if len(_whole_lines(self._path(run_id))) > n_operations + 1:
                return False
            self._path(run_id).unlink(missing_ok=True)
            shutil.rmtree(self._files(run_id), ignore_errors=True)
            return True

    def set_aside(self, run_id: RunId, reason: str) -> Path:
        """Move what is queued of a run to `refused/`, with the reason; returns the new path."""
        with self._locked():
            refused = self._folder / "refused"
            refused.mkdir(mode=0o700, exist_ok=True)
            stem = _stem(run_id)
            while (refused / f"{stem}.jsonl").exists():
                stem = f"{_stem(run_id)}-{uuid.uuid4().hex[:8]}"
            (refused / f"{stem}.reason.txt").write_text(f"{reason}\n", encoding="utf-8")
            if self._files(run_id).exists():
                self._files(run_id).rename(refused / f"{stem}.files")
            return self._path(run_id).rename(refused / f"{stem}.jsonl")

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Held by one replay at a time; others wait."""
        with self._lock(".replay.lock"):
            yield

    def _append(self, run_id: RunId, operation: Operation) -> None:
        path = self._path(run_id)
        is_new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            end = _drop_torn_tail(file)
            head = {"journal": _FORMAT, "run_id": run_id, "queued_at_ms": self._clock()}
            lines = [head] if end == 0 else []
            lines.append(_encode(operation))
            try:
                file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, end)
                raise
        if is_new:
            _sync_folder(self._folder)

    def _path(self, run_id: RunId) -> Path:
        return self._folder / f"{_stem(run_id)}.jsonl"

    def _files(self, run_id: RunId) -> Path:
        return self._folder / f"{_stem(run_id)}.files"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock(".lock"):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with self._guarded():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self._folder / name, timeout=_LOCK_TIMEOUT_S, mode=0o600):
                yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except SparkscoreError:
            raise
        except Timeout as exc:
            raise StoreUnavailableError(
                f"another process has held the outbox {str(self._folder)!r} for "
                f"{_LOCK_TIMEOUT_S:.0f} s: run again when it is done"
            ) from exc
        except OSError as exc:
            raise StoreUnavailableError(
                f"the outbox {str(self._folder)!r} failed: {exc.strerror or exc}. "
                "Check that the folder is writable and not full, and run again"
            ) from exc


def _stem(run_id: str) -> str:
    if len(run_id) <= _MAX_STEM_CHARS:
        return run_id
    return hashlib.sha256(run_id.encode()).hexdigest()


def _head(path: Path) -> tuple[int, RunId]:
    lines = _whole_lines(path)
    try:
        head = json.loads(lines[0])
        return int(head["queued_at_ms"]), RunId(str(head["run_id"]))
    except (IndexError, ValueError, KeyError, TypeError):
        # A torn or damaged head: the operations say what is wrong when they are read.
        return 0, RunId(path.stem)


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _drop_torn_tail(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
    return file.seek(end)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encode(operation: Operation) -> dict[str, Any]:
    return {"op": type(operation).__name__, **asdict(operation)}


def _check_head(line: bytes, path: Path) -> None:
    try:
        found = json.loads(line)["journal"]
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{path} line 1 is no journal's head: {shown(line)}") from exc
    if found != _FORMAT:
        raise UsageError(
            f"{path} has the format {shown(found)}, this release of sparkscore reads {_FORMAT}: "
            "replay it with the release that wrote it"
        )


def _decode(line: bytes, where: str) -> Operation:
    try:
        return _operation(json.loads(line))
    except (ValueError, KeyError, TypeError, SparkscoreError) as exc:
        raise UsageError(f"{where} of the outbox does not parse ({exc!r}): {shown(line)}") from exc


def _operation(raw: dict[str, Any]) -> Operation:
    kind = raw.pop("op")
    if kind == "CreateRun":
        return CreateRun(**raw)
    if kind == "LogBatch":
        metrics = [Metric(**point) for point in raw.pop("metrics")]
        return LogBatch(metrics, **raw)
    if kind == "UpdateRun":
        return UpdateRun(RunStatus(raw["status"]), raw["end_time_ms"])
    if kind == "RenameRun":
        return RenameRun(**raw)
    if kind == "DeleteRunTag":
        return DeleteRunTag(**raw)
    if kind == "LogInputs":
        return LogInputs([_dataset_input(it) for it in raw["datasets"]], raw["model_ids"])
    if kind == "LogOutputs":
        return LogOutputs([ModelOutput(**model) for model in raw["models"]])
    if kind == "PutArtifact":
        return PutArtifact(parse_artifact_path(raw["path"]), parse_artifact_path(raw["file"]))
    raise ValueError(f"unknown operation {kind!r}")


def _dataset_input(raw: dict[str, Any]) -> DatasetInput:
    return DatasetInput(Dataset(**raw["dataset"]), raw["tags"])
