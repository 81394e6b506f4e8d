"""What a Python worker does of the files engine: read pieces of files, and score them into files.

Imported by Python workers: no Spark but for the task's number, nothing of stores or settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.spark.score_files import Inputs, ScoreFilesJob, TaskResult, score_into_files
from sparkscore.spark.threads import limited_threads, task_cores

PlannedTask = tuple[int, tuple[FilePiece, ...]]
"""A task's number and what it reads."""


@dataclass(frozen=True)
class FilesJob:
    """What all tasks of a run share; pickled into the job once."""

    writing: ScoreFilesJob
    reading: TableReading


def score_files(job: FilesJob, tasks: Iterable[PlannedTask]) -> Iterator[TaskResult]:
    """Do the tasks of one Spark partition, one after another.

    Raises:
        SparkscoreError: What the model, the rows or the file system refuse; what the task wrote
            is removed.
    """
    with limited_threads(task_cores()) as threads:
        for index, pieces in tasks:
            yield score_into_files(job.writing, index, _inputs(job, pieces), threads)


def _inputs(job: FilesJob, pieces: Iterable[FilePiece]) -> Iterator[Inputs]:
    for piece in pieces:
        for batch in read_piece(piece, job.reading):
            if batch.num_rows > 0:
                yield batch, batch
