"""A tracking store that is away delays the record of a job, and never its scores."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparkscore import Workspace

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, Run, World

pytestmark = pytest.mark.usefixtures("spark")


@pytest.fixture
def tracking(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracking database of its own, beside the registry's."""
    registry = world.folder / "sparkscore.db"
    monkeypatch.setenv("SPARKSCORE__REGISTRY__URI", f"sqlite:///{registry}")
    monkeypatch.setenv("SPARKSCORE__TRACKING__URI", f"sqlite:///{world.folder / 'tracking.db'}")
    return world.folder / "tracking.db"


def test_scores_are_committed_without_a_store_and_the_next_job_delivers_the_record(
    world: World, batch: Batch, run: Run, tracking: Path
) -> None:
    assert run("score", "batch", *batch(key="before")).exit_code == 0
    away = tracking.rename(world.folder / "moved.db")
    tracking.mkdir()
    answer = run("score", "batch", *batch(key="during"))
    assert (answer.exit_code, answer.result["status"]) == (0, "succeeded"), answer.stderr
    assert [commit["run_key"] for commit in world.commits("scores")] == ["before", "during"]
    waiting = json.loads(run("outbox", "list", "-o", "json").stdout)
    assert [row["run_id"] for row in waiting] == [answer.result["run_id"]]

    tracking.rmdir()
    away.rename(tracking)
    assert run("score", "batch", *batch(key="after")).exit_code == 0
    assert json.loads(run("outbox", "list", "-o", "json").stdout) == []
    runs = {run.tags["sparkscore.run_key"]: run for run in Workspace.open().runs.list_runs()}
    assert set(runs) == {"before", "during", "after"}
    late = runs["during"]
    assert (late.run_id, late.status.value) == (answer.result["run_id"], "FINISHED")
    assert late.metrics["rows_scored"].value == 2000


def test_a_database_locked_while_the_job_scores_does_not_fail_it(
    world: World, batch: Batch, tracking: Path
) -> None:
    world.hold()
    settings = {
        "SPARKSCORE__REGISTRY__URI": f"sqlite:///{world.folder / 'sparkscore.db'}",
        "SPARKSCORE__TRACKING__URI": f"sqlite:///{tracking}",
    }
    job = world.start("score", "batch", *batch("slow"), environ=settings)
    job.await_sign(world.is_scoring)
    with sqlite3.connect(tracking, isolation_level=None) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        world.release()
        answer = job.answer()
    lock.close()
    assert (answer.exit_code, answer.result["status"]) == (0, "succeeded"), answer.stderr
    workspace = Workspace.open()
    assert list(workspace.outbox.waiting()) == [answer.result["run_id"]]
    assert workspace.outbox.replay().delivered
    assert [run.status.value for run in workspace.runs.list_runs()] == ["FINISHED"]
