"""Commands that create, find, compare, delete and restore what stores keep."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkscore.names import ModelName, RunId
from sparkscore.records import Metric, RunStatus, VersionStatus
from sparkscore.workspace import Workspace

Run = Callable[..., Any]
START_MS = 1_380_585_600_000


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    """Two runs that differ in some things, in a real database."""
    assert folder.exists()
    workspace = Workspace.open()
    for number in range(2):
        run_id = RunId(f"run{number}")
        workspace.runs.create_run(
            "0",
            run_id=run_id,
            run_name=f"r{number}",
            user_id="ann",
            start_time_ms=START_MS,
            tags={"same": "x"},
        )
        metrics = [Metric("auc", 0.5 + number / 4, START_MS), Metric("nan", float("nan"), START_MS)]
        workspace.runs.log_batch(run_id, metrics=metrics, params={"depth": str(number), "n": "1"})
        workspace.runs.update_run(run_id, RunStatus.FINISHED, START_MS + 1000)
    workspace.runs.log_batch(RunId("run1"), params={"only": "b"})
    return workspace


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.usefixtures("workspace")
def test_experiments_live_from_create_to_restore(run: Run) -> None:
    made = run("experiments", "create", "night", "--tag", "team=ops", "-o", "json").json
    assert made["name"] == "night"
    shown = run("experiments", "get", made["experiment_id"], "-o", "json").json
    assert (shown["name"], shown["stage"], shown["tags"]) == ("night", "active", {"team": "ops"})
    assert run("experiments", "rename", "night", "day").exit_code == 0
    assert run("experiments", "delete", "day").exit_code == 0

    def names(*more: str) -> list[str]:
        return [row["name"] for row in run("experiments", "list", *more, "-o", "json").json]

    assert names() == ["Default"]
    assert names("--view", "deleted") == ["day"]
    assert run("experiments", "restore", "day").exit_code == 0
    assert names("--filter", "name LIKE 'd%'") == ["day"]
    assert names("--order-by", "name ASC", "--limit", "1") == ["Default"]
    answer = run("experiments", "get", "dya")
    assert (answer.exit_code, "did you mean 'day'" in answer.stderr) == (2, True)


@pytest.mark.usefixtures("workspace")
def test_runs_of_an_experiment_are_written_as_csv(run: Run) -> None:
    found = rows(run("experiments", "csv", "Default").stdout)
    assert len(found) == 2
    by_id = {row["run_id"]: row for row in found}
    assert by_id["run1"]["params.only"] == "b"
    assert by_id["run0"]["params.only"] == ""
    assert by_id["run0"]["metrics.auc"] == "0.5"
    assert by_id["run0"]["metrics.nan"] == "NaN"
    assert by_id["run0"]["tags.same"] == "x"


@pytest.mark.usefixtures("workspace")
def test_runs_are_found_by_a_filter(run: Run) -> None:
    found = run("runs", "list", "--filter", "metrics.auc > 0.6", "-o", "csv")
    assert [row["run_id"] for row in rows(found.stdout)] == ["run1"]
    ordered = run("runs", "list", "--order-by", "metrics.auc DESC", "-o", "json").json
    assert [row["run_id"] for row in ordered] == ["run1", "run0"]
    wrong = run("runs", "list", "--filter", "metrics.auc >")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error [USAGE]: ")


@pytest.mark.usefixtures("workspace")
def test_compared_runs_show_what_differs(run: Run) -> None:
    found = run("runs", "compare", "run0", "run1", "-o", "json").json
    assert found == [
        {"field": "params.depth", "a": "0", "b": "1", "change": None},
        {"field": "params.only", "a": None, "b": "b", "change": None},
        {"field": "metrics.auc", "a": 0.5, "b": 0.75, "change": 0.25},
    ]
    whole = run("runs", "compare", "run0", "run1", "--all", "-o", "json").json
    assert "metrics.nan" in [row["field"] for row in whole]
    same = run("runs", "compare", "run0", "run0", "-o", "json")
    assert (same.json, "do not differ" in same.stderr) == ([], True)


@pytest.mark.usefixtures("workspace")
def test_run_is_deleted_and_restored(run: Run) -> None:
    assert run("runs", "delete", "run0").exit_code == 0
    assert [row["run_id"] for row in run("runs", "list", "-o", "json").json] == ["run1"]
    deleted = run("runs", "list", "--view", "deleted", "-o", "json").json
    assert [row["run_id"] for row in deleted] == ["run0"]
    assert run("runs", "restore", "run0").exit_code == 0
    assert len(run("runs", "list", "-o", "json").json) == 2


@pytest.mark.usefixtures("workspace")
def test_files_are_logged_listed_and_downloaded(run: Run, folder: Path) -> None:
    (folder / "plots").mkdir()
    (folder / "plots" / "roc.svg").write_text("<svg/>")
    assert run("artifacts", "log", "plots", "--run", "run0").exit_code == 0
    listed = run("artifacts", "list", "plots", "--run", "run0", "-o", "json").json
    assert listed == [{"path": "plots/roc.svg", "is_folder": False, "n_bytes": 6}]
    answer = run("artifacts", "download", "plots/roc.svg", "--run", "run0")
    assert answer.stdout == "roc.svg\n"
    assert (folder / "roc.svg").read_text() == "<svg/>"
    assert run("artifacts", "download", "--uri", "runs:/run0/plots", "--to", "all").exit_code == 0
    assert (folder / "all" / "roc.svg").exists()
    assert run("artifacts", "download", "plots/roc.svg", "--run", "run0").exit_code == 2
    assert "not both" in run("artifacts", "list").stderr


def test_models_are_searched_tagged_renamed_and_deleted(workspace: Workspace, run: Run) -> None:
    name = ModelName("toy")
    workspace.models.create_model(name)
    for number in (1, 2):
        workspace.models.create_version(name, source="s3://b/m", run_id=f"run{number}")
        workspace.models.finish_version(name, number, VersionStatus.READY, digest="d" * 64)
    assert run("models", "tag", "toy", "team=ops", "tier=1").exit_code == 0
    assert run("models", "tag", "toy", "--remove", "tier").exit_code == 0
    assert workspace.models.get_model(name).tags == {"team": "ops"}
    assert run("models", "tag", "toy", "ok=yes", "--version", "2").exit_code == 0
    assert workspace.models.get_version(name, 2).tags == {"ok": "yes"}
    found = run("models", "search", "tags.team = 'ops'", "-o", "json").json
    assert [row["name"] for row in found] == ["toy"]
    versions = run("models", "search", "run_id = 'run2'", "--versions", "-o", "json").json
    assert [(row["name"], row["version"]) for row in versions] == [("toy", 2)]
    assert run("models", "rename", "toy", "game").exit_code == 0
    assert [row["version"] for row in run("models", "versions", "game", "-o", "json").json] == [
        2,
        1,
    ]
    assert run("models", "delete", "game", "--version", "1", "--yes").exit_code == 0
    assert [row["version"] for row in run("models", "versions", "game", "-o", "json").json] == [2]
    assert run("models", "delete", "game", "--yes").exit_code == 0
    assert run("models", "list", "-o", "json").json == []
    assert "KEY=VALUE" in run("models", "tag", "game", "odd").stderr


def test_aliases_are_set_listed_and_deleted(workspace: Workspace, run: Run) -> None:
    name = ModelName("toy")
    workspace.models.create_model(name)
    workspace.models.create_version(name, source="s3://b/m")
    workspace.models.finish_version(name, 1, VersionStatus.READY, digest="d" * 64)
    assert run("aliases", "set", "toy", "champion", "1").exit_code == 0
    assert run("aliases", "list", "toy", "-o", "json").json == [{"alias": "champion", "version": 1}]
    assert run("aliases", "delete", "toy", "champion").exit_code == 0
    assert run("aliases", "list", "toy", "-o", "json").json == []


def test_databases_tell_their_schema_and_are_upgraded(run: Run) -> None:
    before = run("db", "status", "-o", "json").json
    assert [(row["setting"], row["state"]) for row in before] == [("tracking.uri", "empty")]
    after = run("--set", "registry.uri=sqlite:///models.db", "db", "upgrade", "-o", "json").json
    assert [(row["setting"], row["state"]) for row in after] == [
        ("tracking.uri", "current"),
        ("registry.uri", "current"),
    ]
    assert run("db", "status", "-o", "json").json[0]["revision"] == after[0]["newest"]
    remote = run("--set", "tracking.uri=http://127.0.0.1:9", "db", "status")
    assert (remote.exit_code, "on its machine" in remote.stderr) == (2, True)
