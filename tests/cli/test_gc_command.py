from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkscore.cli.gc import age_ms
from sparkscore.errors import UsageError
from sparkscore.names import ArtifactPath, ExperimentName, RunId
from sparkscore.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    """Two deleted runs with a file each, whose place is told as a server tells it."""
    workspace = Workspace.open()
    location = "mlflow-artifacts:/7"
    experiment = workspace.runs.create_experiment(ExperimentName("served"), location)
    (folder / "plan.json").write_text("{}")
    for name in ("a", "b"):
        run = workspace.runs.create_run(
            experiment.experiment_id,
            run_id=RunId(name),
            run_name=name,
            user_id="ann",
            start_time_ms=1,
        )
        files = workspace.artifacts_at(run.artifact_uri)
        files.put(folder / "plan.json", ArtifactPath("plan.json"))
        workspace.runs.delete_run(RunId(name))
    return workspace


@pytest.mark.usefixtures("workspace")
def test_a_dry_run_and_then_the_removal(run: Run, folder: Path) -> None:
    dry = run("gc", "--dry-run", "-o", "json")
    assert dry.exit_code == 0
    assert [(it["record_id"], it["state"]) for it in dry.json] == [
        ("a", "to be removed"),
        ("b", "to be removed"),
    ]
    assert "2 of 2, with 2 rows and 4 bytes" in dry.stderr
    kept = folder / "sparkscore-artifacts" / "7"
    assert len(list(kept.rglob("plan.json"))) == 2
    done = run("gc", "--run-ids", "a", "-o", "json")
    assert [(it["record_id"], it["state"], it["n_bytes"]) for it in done.json] == [
        ("a", "removed", 2)
    ]
    assert [it.parent.parent.name for it in kept.rglob("plan.json")] == ["b"]


@pytest.mark.usefixtures("workspace")
def test_what_was_deleted_just_now_is_not_old(run: Run) -> None:
    assert run("gc", "--older-than", "1d", "-o", "json").json == []


@pytest.mark.usefixtures("workspace")
def test_an_id_that_is_not_deleted_is_named(run: Run) -> None:
    answer = run("gc", "--run-ids", "a,nobody")
    assert answer.exit_code == UsageError.exit_code
    assert "'nobody'" in answer.stderr
    assert len(run("gc", "--dry-run", "-o", "json").json) == 2


def test_the_server_of_another_machine_is_refused(run: Run) -> None:
    answer = run("--set", "tracking.uri=http://127.0.0.1:9", "gc")
    assert answer.exit_code != 0
    assert "run this where that is" in answer.stderr


def test_an_age_is_days_hours_minutes_and_seconds() -> None:
    assert age_ms("1d2h3m4s") == (((24 + 2) * 60 + 3) * 60 + 4) * 1000
    assert (age_ms("1.5h"), age_ms("30d"), age_ms("0s")) == (5_400_000, 30 * 86_400_000, 0)
    for text in ("", "1", "d", "3s2d", "-1d", "1w"):
        with pytest.raises(UsageError, match="30d"):
            age_ms(text)
