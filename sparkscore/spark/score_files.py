"""Scoring one task's batches into files of the score table, wherever the batches come from.

Imported by Python workers: no Spark but for the task's number, nothing of stores or settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import KeyColumnError, TargetSchemaError
from sparkscore.files.predicate import Predicate, evaluate
from sparkscore.files.writing import FileLayout, ScoreWriter, WrittenFile, file_prefix
from sparkscore.fused.levels import added
from sparkscore.scoring.batch import ScoredBatch
from sparkscore.scoring.outcome import added_models
from sparkscore.scoring.rejects import (
    REASON_COLUMNS,
    RejectedRows,
    added_reasons,
    reasons_by_row,
)
from sparkscore.scoring.sketch import ColumnSketch
from sparkscore.spark.reject_files import (
    Constants,
    RejectFiles,
    RejectsTable,
    repeated,
)
from sparkscore.spark.shadow_files import ShadowFiles
from sparkscore.spark.task_slot import TaskSlot
from sparkscore.spark.worker import ScoringTask

Inputs = tuple[pa.RecordBatch, pa.RecordBatch]
"""Rows as columns for the score table (in its types), and the same rows as the model's columns."""

Report = dict[str, Any]
"""What `score_rows` tells of a batch."""

_ADDED = (
    "n_rows",
    "n_rejected",
    "n_bytes",
    "convert_s",
    "predict_s",
    "load_s",
    "n_splits",
    "n_not_finite",
)
"""What of the reports of several batches is added up; else the last one's, which is the largest."""


@dataclass(frozen=True)
class ModelRows:
    """How the answers to a batch become rows of the score table; several such: each has its own.

    Attributes:
        columns: What the answers' fields are called in the table, the first fields in order.
        answer: Place of the field that holds these answers; None: they are the answers themselves.
        constants: Column to value, beside those of all rows.
    """

    columns: tuple[str, ...]
    answer: int | None = None
    constants: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreFilesJob:
    """What all tasks of a run share; pickled into the job once.

    Attributes:
        carried: Source columns that go into the score table.
        keys: Those of them that are never null.
        constants: Column to value, for what stands in each row: pinned and record columns.
        replace_where: What each written row has to satisfy; None: nothing.
        attempt: Names this try of the run, in the name of each file.
        max_reports: Reports of one task; further batches share them.
        models: Whose answers become rows.
        sketched: Columns of the score table whose spread is told.
        sketched_inputs: The same of the columns that the model reads.
        keeps_rejected: Whether rows without a prediction stand in the score table.
        tells_reasons: Whether each row of it says why it has none.
        rejects: How rejected rows are kept; None: in the score table, or there are none.
        shadow: How the scores of a model in the shadow become rows of its table; None: there is
            none.
    """

    scoring: ScoringTask
    layout: FileLayout
    carried: tuple[str, ...]
    keys: tuple[str, ...]
    constants: Constants
    replace_where: Predicate | None
    attempt: str
    max_reports: int
    models: tuple[ModelRows, ...]
    sketched: tuple[str, ...] = ()
    sketched_inputs: tuple[str, ...] = ()
    keeps_rejected: bool = False
    tells_reasons: bool = False
    rejects: RejectsTable | None = None
    shadow: ScoreFilesJob | None = None


@dataclass(frozen=True)
class TaskResult:
    """What one task has done.

    Attributes:
        reports: By the names of `scoring.outcome.BatchReport`.
        read_s: Seconds spent on getting the batches.
        write_s: Seconds spent on the rows of the score table, their encoding and their files.
        task_s: Seconds of the whole task.
        rejects: Files of rejected rows.
        partition_rejects: Rejected rows of each partition of the score table.
        shadow: Files of a model in the shadow.
        shadow_failure: Why there are none; None: nothing failed.
        sketches: How the values of columns are spread, as `ColumnSketch.to_facts` says it.
    """

    files: tuple[WrittenFile, ...]
    reports: tuple[Report, ...]
    read_s: float
    write_s: float
    task_s: float
    sketches: dict[str, dict[str, object]] = field(default_factory=dict)
    rejects: tuple[WrittenFile, ...] = ()
    partition_rejects: Mapping[str, int] = field(default_factory=dict)
    shadow: tuple[WrittenFile, ...] = ()
    shadow_failure: str | None = None

    def to_json(self) -> str:
        """The result as text, for a column of Spark."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that `to_json` wrote."""
        facts = json.loads(text)
        files, rejects, shadow = (
            tuple(WrittenFile(**file) for file in facts.pop(name))
            for name in ("files", "rejects", "shadow")
        )
        reports = tuple(facts.pop("reports"))
        return cls(files, reports, rejects=rejects, shadow=shadow, **facts)


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

    def each(self, items: Iterable[Inputs]) -> Iterator[Inputs]:
        """The same items, with the time that it takes to get them."""
        iterator = iter(items)
        while True:
            with self:
                item = next(iterator, None)
            if item is None:
                return
            yield item


def score_into_files(
    job: ScoreFilesJob, index: int, inputs: Iterable[Inputs], slot: TaskSlot
) -> TaskResult:
    """Score all batches of one task, and write their rows of the score table.

    Args:
        job: What to do; the same for all tasks of a run.
        index: The task's number in the run, in the names of its files.
        inputs: Batches of at least one row.
        slot: Where the task runs.

    Raises:
        SparkscoreError: What the model, the rows or the file system refuse; what the task wrote
            is removed.
    """
    name = file_prefix(job.attempt, index, _task_attempt())
    writer = ScoreWriter(job.layout, name)
    rows = RejectedRows(job.scoring.batch.max_rejects)
    rejected = RejectFiles(rows, job.rejects, job.layout, job.constants, name)
    shadow = ShadowFiles(None if job.shadow is None else job.shadow.layout, name)
    task, reading, writing = Stopwatch(), Stopwatch(), Stopwatch()
    reports = []
    sketches = {name: ColumnSketch() for name in job.sketched}
    input_sketches = {name: ColumnSketch() for name in job.sketched_inputs}
    try:
        with task:
            for carried, model_batch in reading.each(inputs):
                slot.advance(model_batch.num_rows)
                scored, report = job.scoring.score(model_batch, slot)
                with writing:
                    for rows in _score_rows(job, carried, scored):
                        writer.write(rows)
                        for name, sketch in sketches.items():
                            sketch.add(rows.column(name))
                    for name, sketch in input_sketches.items():
                        sketch.add(model_batch.column(name))
                    if job.shadow is not None:
                        shadow.add(_score_rows(job.shadow, carried, scored))
                    if scored.rejects is not None:
                        rejected.add(carried, model_batch, scored.rejects)
                reports.append(report)
            with writing:
                files, rejects = writer.finish(), rejected.finish()
                apart = shadow.finish()
    except BaseException:
        writer.abort()
        rejected.abort()
        shadow.abort()
        raise
    return TaskResult(
        files=tuple(files),
        reports=tuple(thinned(reports, job.max_reports)),
        read_s=reading.seconds,
        write_s=writing.seconds,
        task_s=task.seconds,
        sketches={name: sketch.to_facts() for name, sketch in (input_sketches | sketches).items()},
        rejects=tuple(rejects),
        partition_rejects=dict(rejected.by_partition),
        shadow=tuple(apart),
        shadow_failure=shadow.failure,
    )


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
        yield merged | {
            "n_batches": len(group),
            "unknown_levels": added(report["unknown_levels"] for report in group),
            "models": added_models(report.get("models", {}) for report in group),
            "reasons": added_reasons(report["reasons"] for report in group),
        }


def _score_rows(
    job: ScoreFilesJob, carried: pa.RecordBatch, scored: ScoredBatch
) -> Iterator[pa.RecordBatch]:
    """The rows of the score table for a batch and its predictions."""
    answers = scored.predictions
    for model in job.models:
        scores = answers if model.answer is None else answers.field(model.answer)
        yield _rows_of_model(job, model, carried, scores, scored.rejects)


def _rows_of_model(
    job: ScoreFilesJob,
    model: ModelRows,
    carried: pa.RecordBatch,
    scores: pa.StructArray,
    rejects: pa.RecordBatch | None,
) -> pa.RecordBatch:
    columns = {name: carried.column(name) for name in job.carried}
    columns |= dict(zip(model.columns, scores.flatten(), strict=False))
    if job.tells_reasons:
        columns |= dict(
            zip(REASON_COLUMNS.names, reasons_by_row(rejects, len(scores)), strict=True)
        )
    batch = pa.RecordBatch.from_pydict(columns)
    if scores.null_count and not job.keeps_rejected:
        batch = batch.filter(scores.is_valid())
    for name in job.keys:
        if batch.column(name).null_count:
            raise KeyColumnError(
                f"key column {name!r} holds a null, so that row could not be found again; "
                "filter such rows (--where) or name other key columns"
            )
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns |= {
        name: repeated(value, job.layout.schema.field(name).type, batch.num_rows)
        for name, value in {**job.constants, **model.constants}.items()
    }
    names = job.layout.schema.names
    rows = pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)
    if job.replace_where is not None:
        _check_inside(rows, job.replace_where)
    return rows


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
