"""What runs inside Spark's Python workers: Arrow batches in, predictions and a report out.

Few modules are imported here, since every worker pays for them. A worker knows a ScoringTask and
nothing of stores, settings or the driver.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from sparkscore.errors import InvalidRowsError, PredictionError, SparkscoreError
from sparkscore.flavors.base import TreeRuntime
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import (
    BatchLimits,
    BatchTask,
    ScoredBatch,
    joined,
    score_batch,
    slices,
)
from sparkscore.scoring.rejects import (
    REASON_COLUMNS,
    InvalidRows,
    RejectedRows,
    counted,
    reasons_by_row,
)
from sparkscore.spark.node_cache import LoadedModel, NodeLimits, loaded_model
from sparkscore.spark.task_slot import TaskSlot, task_slot


class PackedPackage(Protocol):
    """A packed package on its way to the nodes; picklable."""

    def open(self) -> BinaryIO:
        """The bytes, on any node; seekable."""
        ...


class ShippedEnvironment(Protocol):
    """An environment on its way to the nodes; picklable."""

    @property
    def key(self) -> str:
        """What it was made from, as a digest."""
        ...

    def open(self) -> tuple[Path, Path]:
        """Its interpreter and its copy of sparkscore, on any node.

        Raises:
            EnvironmentBuildError: It cannot be had on this node.
        """
        ...


@dataclass(frozen=True)
class ScoringTask:
    """Everything a worker needs; pickled into the job once.

    Attributes:
        environment: Where the model lives; None: in the worker itself.
        predict: The function to ask; None: the packaged one.
    """

    digest: str
    packed: PackedPackage
    trust: TrustPolicy
    batch: BatchTask
    limits: BatchLimits
    tree_runtime: TreeRuntime = TreeRuntime.AUTO
    node_limits: NodeLimits = field(default_factory=NodeLimits)
    environment: ShippedEnvironment | None = None
    predict: str | None = None

    @property
    def answer_type(self) -> pa.StructType:
        """Type of what `score_batches` yields.

        Flat, since Spark takes nested structs from pandas row by row: the predictions as p0, p1,
        ..., whether the row is valid, in the first row of a batch its report as JSON, and why a
        row is not valid, unless that ends the job.
        """
        predictions = [pa.field(f"p{i}", f.type) for i, f in enumerate(self.batch.predictions)]
        reasons = [] if self.batch.on_invalid is InvalidRows.FAIL else list(REASON_COLUMNS)
        return pa.struct(
            [*predictions, pa.field("valid", pa.bool_()), pa.field("report", pa.string()), *reasons]
        )

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> tuple[ScoredBatch, dict[str, object]]:
        """Predictions for the next rows of a Spark task, at least one, and the report on them.

        Returns:
            The scored batch; the report by the names of `scoring.outcome.BatchReport`.
        """
        return score_rows(self, batch, slot)


def score_batches(task: ScoringTask, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.StructArray]:
    """Score the batches of one Spark task, each answered by as many rows as it has.

    Args:
        task: What to do; the same for all tasks of a job.
        batches: n_rows x the source columns that the bindings read.

    Yields:
        n_rows x `task.answer_type`, in input order.
    """
    rejected = RejectedRows(max_rows=task.batch.max_rejects)
    with task_slot() as slot:
        for batch in batches:
            yield _answer(task, batch, slot, rejected)


def score_rows(
    task: ScoringTask, batch: pa.RecordBatch, slot: TaskSlot
) -> tuple[ScoredBatch, dict[str, object]]:
    """Predictions of one model for a batch of at least one row, and the report on it.

    Returns:
        The scored batch; the report by the names of `scoring.outcome.BatchReport`.
    """
    with slot.watching(task.batch.model, task.limits.deadline_s):
        model, load_s = loaded_model(
            task.digest,
            task.trust,
            task.packed.open,
            task.tree_runtime,
            task.node_limits,
            task.environment,
            task.predict,
        )
        if load_s > 0:
            slot.threads.limit()
        limits = task.limits.within(model.max_bytes)
        scored = joined(list(_pieces(model, batch, task.batch, limits, slot)))
    if scored.max_bytes is not None:
        model.max_bytes = scored.max_bytes
    return scored, batch_report(batch, scored, slot, model, load_s)


def _pieces(
    model: LoadedModel, batch: pa.RecordBatch, task: BatchTask, limits: BatchLimits, slot: TaskSlot
) -> Iterator[ScoredBatch]:
    start = 0
    for piece in slices(batch, limits):
        try:
            yield score_batch(model.predictor, piece, task)
        except PredictionError as exc:
            raise PredictionError(_with_place(exc, start, piece, task, slot), exc.column) from exc
        except InvalidRowsError as exc:
            raise type(exc)(_with_place(exc, start, piece, task, slot)) from exc
        start += piece.num_rows


def _with_place(
    exc: SparkscoreError, start: int, piece: pa.RecordBatch, task: BatchTask, slot: TaskSlot
) -> str:
    """What an error says, and of which model and rows; a batch alone is found by nobody."""
    rows = slot.rows_text(start, piece.num_rows)
    whose = rows if task.model in str(exc) else f"model {task.model}, {rows}"
    return f"{whose}: {exc}"


def batch_report(
    batch: pa.RecordBatch,
    scored: ScoredBatch,
    slot: TaskSlot,
    model: LoadedModel | None = None,
    load_s: float = 0.0,
) -> dict[str, object]:
    """What is told of a batch, by the names of `scoring.outcome.BatchReport`.

    Args:
        batch: What was read.
        scored: What became of it.
        slot: Where that was.
        model: Who scored it; None: there is no model for these rows.
        load_s: Seconds that loading it took just now.
    """
    return {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "ended_ms": time.time_ns() // 1_000_000,
        "n_rows": batch.num_rows,
        "n_rejected": scored.n_rejected,
        "n_bytes": batch.nbytes,
        "convert_s": scored.convert_s,
        "predict_s": scored.predict_s,
        "load_s": load_s,
        "n_loads": 0 if model is None else model.n_loads,
        "runtime": "none" if model is None else model.predictor.runtime.name,
        "n_threads": slot.threads.n_in_force,
        "n_splits": scored.n_splits,
        "n_not_finite": scored.n_not_finite,
        "unknown_levels": dict(scored.unknown_levels),
        "reasons": [] if scored.rejects is None else counted(scored.rejects),
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _answer(
    task: ScoringTask, batch: pa.RecordBatch, slot: TaskSlot, rejected: RejectedRows
) -> pa.StructArray:
    if batch.num_rows == 0:
        return pa.array([], task.answer_type)
    slot.advance(batch.num_rows)
    scored, report = task.score(batch, slot)
    scores, n_rows = scored.predictions, batch.num_rows
    # Not flattened: what stands beside an answer is there even if the answer is not.
    columns = [scores.field(i) for i in range(scores.type.num_fields)]
    columns += [scores.is_valid(), _first_of(json.dumps(report), n_rows)]
    if task.batch.on_invalid is not InvalidRows.FAIL:
        if scored.rejects is not None:
            rejected.count(scored.rejects)
        columns += reasons_by_row(scored.rejects, n_rows)
    return pa.StructArray.from_arrays(columns, fields=list(task.answer_type))


def _first_of(text: str, n_rows: int) -> pa.Array:
    return pa.concat_arrays([pa.array([text]), pa.nulls(n_rows - 1, pa.string())])
