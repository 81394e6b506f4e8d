"""What a Python worker does of the files engine: read pieces of files, and score them into files.

Imported by Python workers: no Spark but for the task's number, nothing of stores or settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from sparkscore.files.any_format import read_any_piece
from sparkscore.files.ledger import Ledger
from sparkscore.files.planning import FilePiece
from sparkscore.files.prefetch import read_ahead
from sparkscore.files.reading import TableReading
from sparkscore.spark.resuming import chunk_id
from sparkscore.spark.score_files import Inputs, ScoreFilesJob, TaskResult, score_into_files
from sparkscore.spark.task_slot import task_slot

_AHEAD_BYTES = 64 * 2**20
"""Decoded rows that wait for the model, beside the row group that is on its way."""

PlannedTask = tuple[int, tuple[FilePiece, ...]]
"""A task's number and what it reads."""


@dataclass(frozen=True)
class FilesJob:
    """What all tasks of a run share; pickled into the job once.

    Attributes:
        ledger: Where each task says what it has done; None: nowhere.
    """

    writing: ScoreFilesJob
    reading: TableReading
    ledger: Ledger | None = None


def score_files(job: FilesJob, tasks: Iterable[PlannedTask]) -> Iterator[TaskResult]:
    """Do the tasks of one Spark partition, one after another.

    Raises:
        SparkscoreError: What the model, the rows or the file system refuse; what the task wrote
            is removed.
    """
    with task_slot() as slot:
        for index, pieces in tasks:
            with _batches(job, pieces) as batches:
                result = score_into_files(job.writing, index, _inputs(batches), slot)
            if job.ledger is not None:
                job.ledger.record(chunk_of(pieces), result.to_json())
            yield result


def chunk_of(pieces: Iterable[FilePiece]) -> str:
    """What tells a task's pieces from those of all others."""
    return chunk_id([[p.path, p.start, p.end, p.file_bytes] for p in pieces])


def _inputs(batches: Iterable[pa.RecordBatch]) -> Iterator[Inputs]:
    for batch in batches:
        yield batch, batch


@contextmanager
def _batches(job: FilesJob, pieces: Iterable[FilePiece]) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of the pieces; those of a store are read ahead, while the model scores."""
    batches = _rows(job, pieces)
    if job.reading.store is None:  # The system reads a local file ahead by itself.
        yield batches
        return
    with read_ahead(batches, _AHEAD_BYTES) as ahead:
        yield ahead


def _rows(job: FilesJob, pieces: Iterable[FilePiece]) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        for batch in read_any_piece(piece, job.reading):
            if batch.num_rows > 0:
                yield batch
