from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkscore.names import ArtifactPath, ExperimentName, RunId
from sparkscore.records import Metric, RunStatus
from sparkscore.workspace import Workspace

Run = Callable[..., Any]
START_MS = 1_380_585_600_000


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    """Two experiments and two runs, the second of them finished, in a real database."""
    workspace = Workspace.open()
    night = workspace.runs.create_experiment(ExperimentName("night"))
    for number, experiment_id in enumerate(("0", night.experiment_id)):
        workspace.runs.create_run(
            experiment_id,
            run_id=RunId(f"run{number}"),
            run_name=f"flights {number}",
            user_id="ann",
            start_time_ms=START_MS + number,
            tags={"mlflow.source.name": "job.py"},
        )
    workspace.runs.log_batch(
        RunId("run1"),
        metrics=[
            Metric("rows", 5.0, START_MS, 0),
            Metric("rows", 7.0, START_MS, 1),
            Metric("drift", math.nan, START_MS),
        ],
        params={"mode": "append"},
    )
    workspace.runs.update_run(RunId("run1"), RunStatus.FINISHED, START_MS + 2501)
    (folder / "plan.json").write_text("{}")
    artifacts = workspace.artifacts_at(workspace.runs.get_run(RunId("run1")).artifact_uri)
    artifacts.put(folder / "plan.json", ArtifactPath("job/plan.json"))
    return workspace


@pytest.mark.usefixtures("workspace")
def test_runs_are_listed_newest_first(run: Run) -> None:
    answer = run("runs", "list", "-o", "json")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.json == [
        {
            "run_id": "run1",
            "run_name": "flights 1",
            "experiment": "night",
            "status": "FINISHED",
            "started": "2013-10-01T00:00:00.001Z",
            "duration_s": 2.5,
        },
        {
            "run_id": "run0",
            "run_name": "flights 0",
            "experiment": "Default",
            "status": "RUNNING",
            "started": "2013-10-01T00:00:00.000Z",
            "duration_s": None,
        },
    ]


@pytest.mark.usefixtures("workspace")
def test_runs_are_limited_to_an_experiment_and_a_number(run: Run) -> None:
    lines = run("runs", "list", "--experiment", "Default", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["run0"]
    assert [row["run_id"] for row in run("runs", "list", "--limit", "1", "-o", "json").json] == [
        "run1"
    ]


@pytest.mark.usefixtures("workspace")
def test_a_run_is_shown_with_all_it_recorded(run: Run) -> None:
    record = run("runs", "show", "run1", "-o", "json").json
    assert record["params"] == {"mode": "append"}
    assert record["metrics"] == {"drift": "NaN", "rows": 7.0}
    assert record["tags"]["mlflow.source.name"] == "job.py"
    assert record["artifacts"] == ["job/plan.json"]
    assert (record["ended"], record["user"]) == ("2013-10-01T00:00:02.501Z", "ann")
    table = run("runs", "show", "run1").stdout
    assert ["params.mode", "append"] in [line.split() for line in table.splitlines()]


def test_an_empty_store_lists_nothing(run: Run, folder: Path) -> None:
    assert run("runs", "list").stdout.split()[0] == "run_id"
    assert run("runs", "list", "-o", "json").json == []
    assert run("runs", "list", "-o", "jsonl").stdout == ""
    assert (folder / "sparkscore.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("workspace")
def test_experiments_are_listed(run: Run, folder: Path) -> None:
    rows = run("experiments", "list", "-o", "json").json
    assert [(row["experiment_id"], row["name"]) for row in rows] == [
        ("1", "night"),
        ("0", "Default"),
    ]
    assert rows[0]["artifact_location"] == (folder / "sparkscore-artifacts" / "1").as_uri()
    with sqlite3.connect(folder / "sparkscore.db") as connection:
        names = connection.execute("select name from experiments order by 1").fetchall()
    connection.close()
    assert names == [("Default",), ("night",)]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ["list", "--experiment", "nigth"],
            "RESOURCE_DOES_NOT_EXIST",
            "there is no experiment 'nigth' (did you mean 'night'?)",
        ),
        (["list", "--experiment", ""], "NAME_INVALID", "experiment name is empty"),
        (["show", "run9"], "RESOURCE_DOES_NOT_EXIST", "run9"),
        (["show", "../x"], "NAME_INVALID", "run id '../x' is not"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_what_is_not_there_is_an_error(run: Run, args: list[str], code: str, message: str) -> None:
    answer = run("runs", *args, "-o", "json")
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error [{code}]: ")
    assert message in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tracking.uri=mysql://me:p4ss@host/x", "'tracking.uri' is 'mysql://me:***@host/x' (flag"),
        ("tracking.uri=./mlruns", "give sqlite:///FILE, postgresql://HOST/DATABASE or a server's"),
        ("artifacts.uri=nosuch://bucket/x", "'artifacts.uri' is 'nosuch://bucket/x' (flag --set)"),
    ],
)
def test_a_store_of_an_unsupported_kind_is_refused(run: Run, setting: str, message: str) -> None:
    answer = run("--set", setting, "runs", "list")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error [CONFIG_INVALID]: ")
    assert message in answer.stderr


def test_a_store_that_is_away_is_temporary(run: Run) -> None:
    answer = run("--set", "tracking.uri=sqlite:///none/x.db", "runs", "list")
    assert answer.exit_code == 75
    assert answer.stderr.startswith("error [STORE_UNAVAILABLE]: ")


def test_a_file_that_is_no_database_is_refused(run: Run, folder: Path) -> None:
    (folder / "sparkscore.db").write_text("not a database, but long enough to be read as one" * 9)
    answer = run("runs", "list")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error [STORE_SCHEMA]: ")
