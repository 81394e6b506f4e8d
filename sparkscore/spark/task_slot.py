"""What surrounds the model in one Spark task: its threads, its time, its prints, and last words.

A worker that a model ends says nothing: neither a crash in native code nor `os._exit` comes back
as an error. So the worker notes what it is about to do where Spark reads what a crashed worker has
left (`spark.python.worker.faulthandler.enabled`), and the driver finds the note in the failure.
"""

from __future__ import annotations

import faulthandler
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkscore.bounded_output import bounded_output
from sparkscore.spark.node_cache import freeze_loaded
from sparkscore.spark.threads import TaskThreads, limited_threads, task_cores

NOTE_SIGN = "sparkscore was scoring: "
"""How the note of a worker begins; found again in the text of Spark's failure."""

_MAX_PRINTED_BYTES = 2**20
"""Of one task; what a model logs at each batch fits, and a disk of logs does not fill."""
_NOTES_VARIABLE = "PYTHON_FAULTHANDLER_DIR"
"""The folder in which Spark's worker and its JVM meet, a file for each process."""


@dataclass
class TaskSlot:
    """A task's place in a Python worker.

    Attributes:
        threads: What native libraries may use.
        partition: Number of the Spark partition; 0 outside of a task.
        stage: Number of the Spark stage; 0 outside of a task.
    """

    threads: TaskThreads
    partition: int = 0
    stage: int = 0
    _notes: int | None = None
    _rows: tuple[int, int] = (0, 0)

    def advance(self, n_rows: int) -> None:
        """Say that the task goes on with its next rows, whichever models score them."""
        _, end = self._rows
        self._rows = (end, end + n_rows)

    def rows_text(self, start: int, n_rows: int) -> str:
        """What messages call rows of those that the task is at, from the row `start` of these."""
        first = self._rows[0] + start
        return f"rows {first} to {first + n_rows - 1} of partition {self.partition}"

    @contextmanager
    def watching(self, model: str, deadline_s: int) -> Iterator[None]:
        """End this process if a block that scores rows takes too long, and note what it does.

        A thread of Python could not: native code need not let it run.

        Args:
            model: How messages call the model.
            deadline_s: Seconds that it may take.
        """
        first, end = self._rows
        note = f"{model}, {self.rows_text(0, end - first)}"
        if self._notes is not None:
            os.write(self._notes, f"{NOTE_SIGN}{note}\n".encode())
        notes = 2 if self._notes is None else self._notes
        faulthandler.dump_traceback_later(deadline_s, exit=True, file=notes)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            if self._notes is not None:
                os.ftruncate(self._notes, 0)

    @contextmanager
    def asking(self, label: str) -> Iterator[bool]:
        """Ask one of several models, so that it is known if it ends this process.

        Args:
            label: What the model is called in its job.

        Yields:
            Whether it has ended a process of this node before, since the stage began.
        """
        mark = self._mark(label)
        if mark is None:
            yield False
        elif any(_is_left(other) for other in mark.parent.glob(f"{mark.stem}.*")):
            yield True
        else:
            hidden = mark.with_name(f".{mark.name}")
            with hidden.open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)  # The system gives it back when the process ends.
                hidden.rename(mark)  # Nobody sees it who could still take the lock.
                try:
                    yield False
                finally:
                    mark.unlink()

    def _mark(self, label: str) -> Path | None:
        """The file by which this process says that it asks a model; None: there is no place."""
        folder = os.environ.get(_NOTES_VARIABLE)
        if folder is None or not Path(folder).is_dir():
            return None
        name = hashlib.sha256(label.encode()).hexdigest()[:16]
        return Path(folder, f"asking-{self.stage}-{name}.{os.getpid()}")


def _is_left(mark: Path) -> bool:
    """Whether the process is gone that was asking a model."""
    try:
        with mark.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(held.fileno()).st_nlink > 0  # Not one that was removed just now.
    except (FileNotFoundError, BlockingIOError):
        return False


@contextmanager
def task_slot() -> Iterator[TaskSlot]:
    """The place of the Spark task that runs here, for the duration of a block."""
    with (
        limited_threads(task_cores()) as threads,
        bounded_output(_MAX_PRINTED_BYTES),
        _opened_notes() as notes,
    ):
        yield TaskSlot(threads, *_place(), notes)
    freeze_loaded()


@contextmanager
def _opened_notes() -> Iterator[int | None]:
    """The file that Spark reads when this worker is gone; None where it does not ask for one."""
    folder = os.environ.get(_NOTES_VARIABLE)
    path = Path(folder or "", str(os.getpid()))
    if folder is None or not path.is_file():
        yield None
        return
    notes = os.open(path, os.O_WRONLY | os.O_APPEND)
    faulthandler.enable(file=notes)  # Through Spark's own handle it would write over the note.
    try:
        yield notes
    finally:
        faulthandler.disable()
        os.close(notes)


def _place() -> tuple[int, int]:
    """Partition and stage of the Spark task that runs here; 0 outside of one."""
    from pyspark import TaskContext  # only here is a task certain to exist

    context = TaskContext.get()
    return (0, 0) if context is None else (context.partitionId(), context.stageId())
