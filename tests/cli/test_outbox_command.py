from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkscore.records import RunStatus
from sparkscore.workspace import Workspace

Run = Callable[..., Any]
AWAY = ("--set", "tracking.uri=sqlite:///mount/x.db")


@pytest.fixture
def run_id(folder: Path) -> str:
    """A whole run that was recorded while the folder of the database was not mounted."""
    workspace = Workspace.open(overrides={"tracking.uri": "sqlite:///mount/x.db"})
    with workspace.tracking.start_run("flights", "night") as active:
        active.log_params({"mode": "append"})
        active.log_metrics({"rows": 7.0})
        active.log_text("{}", "plan.json")
    assert list((folder / ".sparkscore" / "outbox").glob("*.jsonl"))
    return active.run_id


def test_what_waits_is_listed(run: Run, run_id: str) -> None:
    assert run(*AWAY, "outbox", "list", "-o", "json").json == [{"run_id": run_id}]


def test_an_outbox_with_nothing_in_it_lists_and_replays_nothing(run: Run) -> None:
    assert run("outbox", "list", "-o", "json").json == []
    assert run("outbox", "list").stdout == "run_id\n"
    answer = run("outbox", "replay", "-o", "json")
    assert (answer.exit_code, answer.json) == (0, [])


def test_a_replay_delivers_the_run_once_the_store_is_back(
    run: Run, run_id: str, folder: Path
) -> None:
    (folder / "mount").mkdir()
    answer = run(*AWAY, "outbox", "replay", "-o", "json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json == [{"run_id": run_id, "state": "delivered", "reason": None}]
    record = run(*AWAY, "runs", "show", run_id, "-o", "json").json
    assert (record["experiment"], record["status"]) == ("night", RunStatus.FINISHED.value)
    assert (record["params"], record["metrics"]) == ({"mode": "append"}, {"rows": 7.0})
    assert record["artifacts"] == ["plan.json"]
    assert run(*AWAY, "outbox", "list", "-o", "json").json == []


def test_a_replay_while_the_store_is_away_keeps_everything(run: Run, run_id: str) -> None:
    answer = run(*AWAY, "outbox", "replay", "-o", "json")
    assert answer.exit_code == 75
    assert answer.json == [{"run_id": run_id, "state": "waiting", "reason": None}]
    assert answer.stderr.startswith("error [STORE_UNAVAILABLE]: runs that still wait")
    assert run(*AWAY, "outbox", "list", "-o", "json").json == [{"run_id": run_id}]


def test_a_run_that_the_store_refuses_is_set_aside_and_told(
    run: Run, run_id: str, folder: Path
) -> None:
    (folder / "mount").mkdir()
    workspace = Workspace.open(overrides={"tracking.uri": "sqlite:///mount/x.db"})
    workspace.runs.create_run(
        "0", run_id=workspace.outbox.waiting()[0], run_name="x", user_id="", start_time_ms=1
    )
    answer = run(*AWAY, "outbox", "replay", "-o", "json")
    assert answer.exit_code == 2
    assert [(row["run_id"], row["state"]) for row in answer.json] == [(run_id, "refused")]
    assert answer.stderr.startswith("error [INVALID_STATE]: runs that the tracking store refused")
    assert (folder / ".sparkscore" / "outbox" / "refused" / f"{run_id}.jsonl").exists()
