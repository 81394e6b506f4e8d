"""A job that gets a signal while it scores stops in order, and the same command then succeeds."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sparkscore import Workspace

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, Job, Run, World

_ORDER_S = 30
"""What orchestrators wait between SIGTERM and SIGKILL."""


def result_file(world: World) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((world.folder / "result.json").read_text())
    return result


def run_statuses() -> list[str]:
    return [run.status.value for run in Workspace.open().runs.list_runs()]


def stop_while_scoring(world: World, job: Job, number: signal.Signals) -> int:
    """The exit code of a job that gets the signal while its model predicts."""
    job.await_sign(world.is_scoring)
    job.signal(number)
    return job.answer(_ORDER_S).exit_code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_command_stops_it_in_order_and_the_next_attempt_succeeds(
    world: World, batch: Batch, run: Run, number: signal.Signals, code: int
) -> None:
    world.hold()
    job = world.start("score", "batch", *batch("slow"), "--result-file", "result.json")
    assert stop_while_scoring(world, job, number) == code, job.answer().stderr
    assert job.survivors() == []
    assert job.answer().result == result_file(world)
    failed = result_file(world)
    assert (failed["status"], failed["code"], failed["batch_id"]) == ("failed", code, "k1")
    assert failed["error"]["retryable"]
    assert "Traceback" not in job.answer().stderr
    assert run_statuses() == ["KILLED"]
    assert world.commits("scores") == []

    world.release()
    again = run("score", "batch", *batch("slow"))
    assert (again.exit_code, again.result["status"], again.result["attempt"]) == (0, "succeeded", 2)
    assert len(world.commits("scores")) == 1


def test_sigterm_to_spark_submit_stops_the_job_and_is_on_record(world: World, batch: Batch) -> None:
    world.hold()
    job = world.submit(*batch("slow"), "--result-file", "result.json")
    assert stop_while_scoring(world, job, signal.SIGTERM) == 143, job.answer().stderr
    assert job.survivors() == []
    failed = result_file(world)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "SPARK_STOPPED"), failed
    assert failed["error"]["retryable"]
    assert run_statuses() == ["KILLED"]
    assert world.commits("scores") == []
