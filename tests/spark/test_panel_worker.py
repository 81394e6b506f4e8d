from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from sparkscore.errors import InvalidRowsError
from sparkscore.package import pack
from sparkscore.scoring.batch import BatchLimits, BatchTask
from sparkscore.scoring.canary import Split
from sparkscore.scoring.comparison import compare
from sparkscore.scoring.panel import SPLIT_LABELS
from sparkscore.spark.node_cache import NodeLimits, loaded_digests
from sparkscore.spark.panel import ChallengerTask, MemberTask, RoutesTask, SplitTask
from sparkscore.spark.task_slot import TaskSlot
from sparkscore.spark.threads import limited_threads
from sparkscore.spark.worker import ScoringTask
from sparkscore.testing.engine_cases import TRUST, X, described
from sparkscore.testing.models import Needing, Refusing, Times, packaged

N_MODELS = 12
N_ROWS = 60
ROWS = pa.record_batch(
    {
        "x": pa.array([float(i) for i in range(N_ROWS)], pa.float64()),
        "route": pa.array([str((i * 7) % N_MODELS) for i in range(N_ROWS)], pa.string()),
    }
)
ANSWERS = pa.schema([("prediction", pa.float64()), ("model_name", pa.string())])


@dataclass(frozen=True)
class FolderPackage:
    """A package on its way to a node that shares the driver's files."""

    folder: Path

    def open(self) -> BinaryIO:
        return BytesIO(pack(self.folder))


@pytest.fixture
def slot() -> Iterator[TaskSlot]:
    """Those of a task of one core."""
    with limited_threads(1) as threads:
        yield TaskSlot(threads)


@pytest.fixture(autouse=True)
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of its own, whose cache is empty."""
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path / "node"))


def task_of(model: object, folder: Path, limits: NodeLimits) -> ScoringTask:
    facts = packaged(model, folder, inputs=X)
    bindings, _ = compare(facts, described(pa.Table.from_batches([ROWS])), {})
    return ScoringTask(
        digest=facts.digest,
        packed=FolderPackage(folder),
        trust=TRUST,
        batch=BatchTask(facts.label, bindings, facts.predictions),
        limits=BatchLimits(),
        node_limits=limits,
    )


def routes(folder: Path, limits: NodeLimits, *, n_known: int = N_MODELS) -> RoutesTask:
    members = tuple(
        MemberTask(f"m{i}", task_of(Times(float(i + 2)), folder / f"m{i}", limits))
        for i in range(N_MODELS)
    )
    return RoutesTask(
        members=members,
        column="route",
        places={str(i): i for i in range(n_known)},
        default=None,
        fails=False,
        record=tuple((member.label,) for member in members),
        answers=ANSWERS,
    )


def test_routed_rows_are_in_their_order_and_few_models_stay_loaded(
    tmp_path: Path, slot: TaskSlot
) -> None:
    one = packaged(Times(0.5), tmp_path / "one", inputs=X)
    size = sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file())
    task = routes(tmp_path, NodeLimits(max_loaded_bytes=4 * size))
    own = {member.task.digest for member in task.members}
    for _ in range(2):
        scored, report = task.score(ROWS, slot)
        assert scored.predictions.to_pylist() == [
            {"prediction": i * (int(route) + 2.0), "model_name": f"m{route}"}
            for i, route in enumerate(ROWS["route"].to_pylist())
        ]
        assert len(own & loaded_digests()) <= 4
        assert {label: counts.n_rows for label, counts in report["models"].items()} == {
            f"m{i}": N_ROWS // N_MODELS for i in range(N_MODELS)
        }


def test_models_that_are_loaded_are_not_loaded_again_for_the_next_batch(
    tmp_path: Path, slot: TaskSlot
) -> None:
    one = packaged(Times(0.5), tmp_path / "one", inputs=X)
    size = sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file())
    task = routes(tmp_path, NodeLimits(max_loaded_bytes=4 * size))
    task.score(ROWS, slot)
    kept = len({member.task.digest for member in task.members} & loaded_digests())
    assert kept
    _, report = task.score(ROWS, slot)
    assert sum(counts.n_loads for counts in report["models"].values()) == N_MODELS - kept


def test_rows_without_a_route_are_rejected_in_their_places(tmp_path: Path, slot: TaskSlot) -> None:
    task = routes(tmp_path, NodeLimits(), n_known=3)
    scored, report = task.score(ROWS, slot)
    known = [int(route) < 3 for route in ROWS["route"].to_pylist()]
    assert [row is not None for row in scored.predictions.to_pylist()] == known
    assert report["n_rejected"] == scored.n_rejected == known.count(False)
    assert report["n_rows"] == N_ROWS
    with pytest.raises(InvalidRowsError, match="names no model"):
        replace(task, fails=True).score(ROWS, slot)


def test_batch_of_rows_without_a_route_is_rejected_whole(tmp_path: Path, slot: TaskSlot) -> None:
    scored, report = routes(tmp_path, NodeLimits(), n_known=0).score(ROWS, slot)
    assert scored.n_rejected == report["n_rows"] == N_ROWS


def split(folder: Path, canary: object, share: float) -> SplitTask:
    tasks = [
        task_of(model, folder / name, NodeLimits())
        for name, model in (("champion", Times(2.0)), ("canary", canary))
    ]
    champion, second = map(MemberTask, SPLIT_LABELS, tasks)
    record = tuple((label,) for label in SPLIT_LABELS)
    challenger = ChallengerTask(second.label, second.task)
    return SplitTask((champion, second), record, ANSWERS, Split(("route",), share), challenger)


def test_canary_answers_for_its_entities(tmp_path: Path, slot: TaskSlot) -> None:
    task = split(tmp_path, Times(3.0), 0.5)
    scored, report = task.score(ROWS, slot)
    places = task.split.places_of(ROWS)
    assert 0 < places.sum() < N_ROWS
    assert scored.predictions.field(0).to_pylist() == [
        i * (2.0 + place) for i, place in enumerate(places)
    ]
    assert scored.predictions.field(1).to_pylist() == [SPLIT_LABELS[place] for place in places]
    assert report["n_rows"] == N_ROWS
    counts = report["models"]
    assert [counts[label].n_scored for label in SPLIT_LABELS] == [
        N_ROWS - places.sum(),
        places.sum(),
    ]


def test_champion_answers_where_the_canary_fails(tmp_path: Path, slot: TaskSlot) -> None:
    task = split(tmp_path, Refusing(), 0.5)
    scored, report = task.score(ROWS, slot)
    assert scored.predictions.field(0).to_pylist() == [i * 2.0 for i in range(N_ROWS)]
    assert set(scored.predictions.field(1).to_pylist()) == {"champion"}
    counts = report["models"]
    assert counts["champion"].n_scored == N_ROWS
    assert counts["canary"].n_failed == counts["canary"].n_rows == task.split.places_of(ROWS).sum()
    assert "no scores" in counts["canary"].failure


def test_challenger_that_cannot_be_loaded_is_not_tried_again(
    tmp_path: Path, slot: TaskSlot
) -> None:
    needed = tmp_path / "needed"
    needed.touch()
    challenger = ChallengerTask("m", task_of(Needing(needed), tmp_path / "m", NodeLimits()))
    needed.unlink()
    answers, counts = challenger.answers(ROWS, slot)
    assert (answers.null_count, counts.n_failed) == (N_ROWS, N_ROWS)
    assert "FileNotFoundError" in str(counts.failure)
    needed.touch()
    _, again = challenger.answers(ROWS, slot)
    assert again == counts
