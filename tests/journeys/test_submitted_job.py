"""`spark-submit jobs/score_batch.py` for real: once per run key, and a result for orchestrators."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, Run, World


def test_a_submitted_job_scores_once_and_says_so_in_its_result(world: World, batch: Batch) -> None:
    args = [*batch(), "--result-file", "result.json"]
    first = world.submit(*args).answer()
    assert first.exit_code == 0, first.stderr
    assert (first.result["status"], first.result["output"]["rows"]) == ("succeeded", 2000)
    assert first.result == json.loads((world.folder / "result.json").read_text())

    second = world.submit(*args, "--skip-code", "99").answer()
    assert second.exit_code == 99, second.stderr
    assert (second.result["status"], second.result["output"]["rows"]) == ("skipped", 0)
    assert second.result == json.loads((world.folder / "result.json").read_text())
    assert second.result["run_id"] == first.result["run_id"]
    assert len(world.commits("scores")) == 1


def test_a_repeated_job_ends_with_0_unless_asked_otherwise(
    world: World, batch: Batch, run: Run, spark: object
) -> None:
    assert spark
    assert run("score", "batch", *batch()).result["status"] == "succeeded"
    again = run("score", "batch", *batch())
    assert (again.exit_code, again.result["status"], again.result["code"]) == (0, "skipped", 0)
    assert "already scored at table version 0" in again.result["message"]
    assert world.commits("scores")[0]["run_id"] == again.result["run_id"]


def test_a_refusal_under_spark_submit_keeps_its_exit_code(world: World, batch: Batch) -> None:
    job = world.submit(*batch("models:/linear@nobody"), "--result-file", "result.json")
    answer = job.answer()
    assert answer.exit_code == 4, answer.stderr
    assert answer.result == json.loads((world.folder / "result.json").read_text())
    assert answer.result["error"]["code"] == "MODEL_NOT_FOUND"
