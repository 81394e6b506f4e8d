from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from sparkscore.errors import InvalidRowsError, PredictionError
from sparkscore.package import pack
from sparkscore.package.signature import ColumnSchema
from sparkscore.scoring.batch import BatchLimits, BatchTask
from sparkscore.scoring.comparison import compare
from sparkscore.scoring.facts import ModelFacts
from sparkscore.spark.task_slot import TaskSlot
from sparkscore.spark.threads import limited_threads
from sparkscore.spark.worker import ScoringTask, score_rows
from sparkscore.testing.engine_cases import TRUST, WHOLE_X, X, described
from sparkscore.testing.models import BatchSize, Greedy, OneForAll, Poisoned, packaged

ROWS = pa.table({"x": pa.array(range(8), pa.float64())})


BATCH = ROWS.to_batches()[0]


@pytest.fixture
def slot() -> Iterator[TaskSlot]:
    """Those of a task of one core."""
    with limited_threads(1) as threads:
        yield TaskSlot(threads)


@dataclass(frozen=True)
class FolderPackage:
    """A package on its way to a node that shares the driver's files."""

    folder: Path

    def open(self) -> BinaryIO:
        return BytesIO(pack(self.folder))


@pytest.fixture(autouse=True)
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of its own, whose cache is empty."""
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path / "node"))


def task_of(model: ModelFacts, limits: BatchLimits) -> ScoringTask:
    """What a worker is told of a model over `ROWS`."""
    bindings, _ = compare(model, described(ROWS), {})
    return ScoringTask(
        digest=model.digest,
        packed=FolderPackage(model.folder),
        trust=TRUST,
        batch=BatchTask(model.label, bindings, model.predictions),
        limits=limits,
    )


def test_later_batches_are_no_larger_than_memory_has_shown_to_suffice(
    tmp_path: Path, slot: TaskSlot
) -> None:
    task = task_of(packaged(BatchSize(max_rows=2), tmp_path / "model", inputs=X), BatchLimits())
    n_splits = [score_rows(task, BATCH, slot)[1]["n_splits"] for _ in range(3)]
    assert n_splits == [3, 0, 0]
    scored, _ = score_rows(task, BATCH, slot)
    assert scored.predictions.field("prediction").to_pylist() == [2.0] * 8


def test_library_that_a_model_brings_in_is_held_to_the_cores_of_the_task(
    tmp_path: Path, slot: TaskSlot
) -> None:
    task = task_of(packaged(Greedy(), tmp_path / "model", inputs=X), BatchLimits())
    scored, report = score_rows(task, BATCH, slot)
    assert scored.predictions.field("prediction").to_pylist() == [1.0] * 8
    assert report["n_threads"] == 1


POISONED = pa.RecordBatch.from_pydict({"x": pa.array([0.0, 1.0, 2.0, 3.0, 13.0, 5.0])})
HALF = pa.RecordBatch.from_pydict({"x": pa.array([0.0, 1.0, 2.0, 3.0, 0.5, 5.0])})


@pytest.mark.parametrize(
    ("model", "inputs", "batch", "kind", "said"),
    [
        (Poisoned(), X, POISONED, PredictionError, "rows 12 to 13 of partition 7: model .* raised"),
        (OneForAll(), X, HALF, PredictionError, "^model .*, rows 8 to 9 of partition 7: the model"),
        (Poisoned(), WHOLE_X, HALF, InvalidRowsError, "rows 12 to 13 of .*: model .* row 0"),
    ],
)
def test_failure_names_model_and_rows(
    model: Poisoned | OneForAll,
    inputs: ColumnSchema,
    batch: pa.RecordBatch,
    kind: type[Exception],
    said: str,
    tmp_path: Path,
    slot: TaskSlot,
) -> None:
    task = task_of(packaged(model, tmp_path / "model", inputs=inputs), BatchLimits(max_rows=2))
    slot.partition = 7
    slot.advance(8)
    slot.advance(6)
    with pytest.raises(kind, match=said):
        score_rows(task, batch, slot)
