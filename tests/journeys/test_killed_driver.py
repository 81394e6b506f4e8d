"""kill -9 of the driver at any moment, then the same command: as if nothing had happened."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest

from sparkscore import Workspace

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, Job, Run, World

pytestmark = pytest.mark.usefixtures("spark")

_SEED = 20131001


def run_statuses() -> list[str]:
    return sorted(run.status.value for run in Workspace.open().runs.list_runs())


def killed_job(world: World, batch: Batch) -> Job:
    return world.start("score", "batch", *batch("slow"))


def assert_as_undisturbed(world: World, batch: Batch, run: Run) -> None:
    """The disturbed table equals one that nobody disturbed, and its key has one commit."""
    assert run("score", "batch", *batch("slow", target="undisturbed")).exit_code == 0
    scores = world.scores("scores")
    assert scores.equals(world.scores("undisturbed"))
    assert scores.num_rows == pc.count_distinct(scores["id"]).as_py() == 2000
    assert [commit["run_key"] for commit in world.commits("scores")] == ["k1"]


def test_a_driver_killed_before_scoring_leaves_nothing_behind(
    world: World, batch: Batch, run: Run
) -> None:
    step = random.Random(_SEED).choice(["Resolving", "Opening Spark", "Planned"])
    job = killed_job(world, batch)
    job.await_sign(lambda: step in (world.folder / "job.err").read_text())
    job.kill_group()
    assert run("score", "batch", *batch("slow")).result["status"] == "succeeded"
    assert_as_undisturbed(world, batch, run)


@pytest.mark.parametrize("step", ["Planned", "Scoring into"])
def test_a_job_whose_jvm_is_killed_may_be_tried_again_and_is_on_record(
    world: World, batch: Batch, run: Run, step: str
) -> None:
    world.hold()
    job = killed_job(world, batch)
    job.await_sign(lambda: step in (world.folder / "job.err").read_text())
    job.kill_jvm()
    answer = job.answer()
    error = answer.result["error"]
    assert (error["code"], error["retryable"]) == ("SPARK_STOPPED", True), error
    assert answer.exit_code == 75
    assert run_statuses() in ([], ["KILLED"])
    world.release()
    assert run("score", "batch", *batch("slow")).result["status"] == "succeeded"
    assert_as_undisturbed(world, batch, run)


def test_a_driver_killed_while_scoring_is_closed_and_repeated(
    world: World, batch: Batch, run: Run
) -> None:
    world.hold()
    job = killed_job(world, batch)
    job.await_sign(world.is_scoring)
    job.kill_group()
    world.release()
    assert run_statuses() == ["RUNNING"]
    again = run("score", "batch", *batch("slow"))
    assert (again.result["status"], again.result["attempt"]) == ("succeeded", 2)
    assert run_statuses() == ["FINISHED", "KILLED"]
    assert_as_undisturbed(world, batch, run)


def test_a_driver_killed_after_its_commit_has_scored_and_its_record_is_closed(
    world: World, batch: Batch, run: Run
) -> None:
    commit = world.folder / "scores" / "_delta_log" / f"{0:020}.json"
    job = killed_job(world, batch)
    job.await_sign(commit.exists)
    job.kill_group()
    assert run_statuses() == ["RUNNING"]
    again = run("score", "batch", *batch("slow"))
    assert (again.exit_code, again.result["status"]) == (0, "skipped")
    assert again.result["message"] == "already scored at table version 0"
    assert run_statuses() == ["FINISHED"]
    assert_as_undisturbed(world, batch, run)
