"""What a Python worker does of the files engine: read pieces of files, score, write files.

Imported by Python workers: no Spark but for the task's number, nothing of stores or settings.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import KeyColumnError, TargetSchemaError
from sparkscore.files.any_format import read_any_piece
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import Predicate, evaluate
from sparkscore.files.reading import TableReading
from sparkscore.files.writing import FileLayout, ScoreWriter, WrittenFile, file_prefix
from sparkscore.spark.threads import TaskThreads, limited_threads, task_cores
from sparkscore.spark.worker import ScoringTask, score_rows

Report = dict[str, Any]
"""What `score_rows` tells of a batch."""

_ADDED = ("n_rows", "n_rejected", "n_bytes", "convert_s", "predict_s", "load_s", "n_splits")
"""What of the reports of several batches is added up; else the last one's, which is the largest."""

PlannedTask = tuple[int, tuple[FilePiece, ...]]
"""A task's number and what it reads."""


@dataclass(frozen=True)
class FilesJob:
    """What all tasks of a run share; pickled into the job once.

    Attributes:
        carried: Source columns that go into the score table.
        keys: Those of them that are never null.
        constants: Column to value, for what stands in each row: pinned and record columns.
        replace_where: What each written row has to satisfy; None: nothing.
        attempt: Names this try of the run, in the name of each file.
        max_reports: Reports of one task; further batches share them.
    """

    scoring: ScoringTask
    reading: TableReading
    layout: FileLayout
    carried: tuple[str, ...]
    keys: tuple[str, ...]
    constants: dict[str, str | int | dt.date | dt.datetime | None]
    replace_where: Predicate | None
    attempt: str
    max_reports: int = 1000


@dataclass(frozen=True)
class TaskResult:
    """What one task has done.

    Attributes:
        reports: By the names of `scoring.outcome.BatchReport`.
        read_s: Seconds spent on reading, decoding and filtering.
        write_s: Seconds spent on the rows of the score table, their encoding and their files.
        task_s: Seconds of the whole task.
    """

    files: tuple[WrittenFile, ...]
    reports: tuple[Report, ...]
    read_s: float
    write_s: float
    task_s: float


@dataclass
class Stopwatch:
    """Adds up the seconds of its blocks."""

    seconds: float = 0.0
    _started: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds += perf_counter() - self._started

    def each(self, items: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same items, with the time that it takes to get them."""
        iterator = iter(items)
        while True:
            with self:
                item = next(iterator, None)
            if item is None:
                return
            yield item


def score_files(job: FilesJob, tasks: Iterable[PlannedTask]) -> Iterator[TaskResult]:
    """Do the tasks of one Spark partition, one after another.

    Raises:
        SparkscoreError: What the model, the rows or the file system refuse; what the task wrote
            is removed.
    """
    with limited_threads(task_cores()) as threads:
        for index, pieces in tasks:
            yield _score_task(job, index, pieces, threads)


def _score_task(
    job: FilesJob, index: int, pieces: Iterable[FilePiece], threads: TaskThreads
) -> TaskResult:
    writer = ScoreWriter(job.layout, file_prefix(job.attempt, index, _task_attempt()))
    task, reading, writing = Stopwatch(), Stopwatch(), Stopwatch()
    reports = []
    try:
        with task:
            for batch in reading.each(_batches(job, pieces)):
                scores, report = score_rows(job.scoring, batch, threads)
                with writing:
                    writer.write(_score_rows(job, batch, scores))
                reports.append(report)
            with writing:
                files = writer.finish()
    except BaseException:
        writer.abort()
        raise
    kept = tuple(thinned(reports, job.max_reports))
    return TaskResult(tuple(files), kept, reading.seconds, writing.seconds, task.seconds)


def thinned(reports: Sequence[Report], max_reports: int) -> Iterator[Report]:
    """At most so many reports, each of about as many consecutive batches of one task.

    Args:
        reports: One a batch, by the names of `scoring.outcome.BatchReport`.
        max_reports: At least one.
    """
    size = max(1, -(-len(reports) // max_reports))
    for start in range(0, len(reports), size):
        group = reports[start : start + size]
        merged = group[-1] | {name: sum(report[name] for report in group) for name in _ADDED}
        yield merged | {"n_batches": len(group)}


def _batches(job: FilesJob, pieces: Iterable[FilePiece]) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        for batch in read_any_piece(piece, job.reading):
            if batch.num_rows > 0:
                yield batch


def _score_rows(job: FilesJob, batch: pa.RecordBatch, scores: pa.StructArray) -> pa.RecordBatch:
    """The rows of the score table for a batch and its predictions; rejected rows are left out."""
    if scores.null_count:
        valid = scores.is_valid()
        batch, scores = batch.filter(valid), scores.filter(valid)
    for name in job.keys:
        if batch.column(name).null_count:
            raise KeyColumnError(
                f"key column {name!r} holds a null, so that row could not be found again; "
                "filter such rows (--where) or name other key columns"
            )
    columns = {name: batch.column(name) for name in job.carried}
    columns |= dict(zip([f.name for f in scores.type], scores.flatten(), strict=True))
    columns |= {
        name: _repeated(value, job.layout.schema.field(name).type, batch.num_rows)
        for name, value in job.constants.items()
    }
    names = job.layout.schema.names
    rows = pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)
    if job.replace_where is not None:
        _check_inside(rows, job.replace_where)
    return rows


@lru_cache(maxsize=16)  # Most batches have one size.
def _repeated(value: object, data_type: pa.DataType, n_rows: int) -> pa.Array:
    """One value `n_rows` times; a text as a dictionary of one, which Parquet keeps as it is."""
    if value is None or not pa.types.is_string(data_type):
        return pa.repeat(pa.scalar(value, data_type), n_rows)
    indices = pa.repeat(pa.scalar(0, pa.int8()), n_rows)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], data_type))


def _check_inside(rows: pa.RecordBatch, predicate: Predicate) -> None:
    inside = pc.fill_null(evaluate(predicate, rows), False)
    if not pc.all(inside, min_count=0).as_py():
        raise TargetSchemaError(
            "rows to be written lie outside replace_where, so they would not be replaced "
            "by a next run; make --where select the same rows as --replace-where"
        )


def _task_attempt() -> int:
    from pyspark import TaskContext  # only here is a task certain to exist

    context = TaskContext.get()
    return 0 if context is None else context.taskAttemptId()
