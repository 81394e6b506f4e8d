from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import sparkscore
from sparkscore.names import ModelName, RunId
from sparkscore.records import ModelVersion, Run, RunStatus
from sparkscore.workspace import Workspace

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0]})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{tmp_path}/store.db",
        "tracking.outbox": str(tmp_path / "outbox"),
        "artifacts.uri": str(tmp_path / "artifacts"),
        "cache.folder": str(tmp_path / "cache"),
    }
    return Workspace.open(overrides=overrides)


def recorded(workspace: Workspace, run_id: str) -> Run:
    return workspace.runs.get_run(RunId(run_id))


def test_run_is_active_in_its_block_alone(workspace: Workspace) -> None:
    assert sparkscore.active_run() is None
    with sparkscore.start_run("outer", experiment="mine", workspace=workspace) as run:
        assert sparkscore.active_run() is run
        run.log_metric("auc", 0.9)
    assert sparkscore.active_run() is None
    kept = recorded(workspace, run.run_id)
    assert (kept.status, kept.metrics["auc"].value) == (RunStatus.FINISHED, 0.9)
    assert workspace.runs.get_experiment(kept.experiment_id).name == "mine"
    assert kept.tags["mlflow.source.type"] == "LOCAL"


def test_run_within_a_run_is_its_child(workspace: Workspace) -> None:
    with sparkscore.start_run("outer", workspace=workspace) as outer:
        with sparkscore.start_run("inner", tags={"a": "b"}, workspace=workspace) as inner:
            assert sparkscore.active_run() is inner
        assert sparkscore.active_run() is outer
    tags = recorded(workspace, inner.run_id).tags
    assert (tags["mlflow.parentRunId"], tags["a"]) == (outer.run_id, "b")
    assert "mlflow.parentRunId" not in recorded(workspace, outer.run_id).tags


def test_error_ends_the_run_and_goes_on(workspace: Workspace) -> None:
    with (
        pytest.raises(ValueError, match="mine"),
        sparkscore.start_run("r", workspace=workspace) as run,
    ):
        raise ValueError("mine")
    assert recorded(workspace, run.run_id).status is RunStatus.FAILED
    assert sparkscore.active_run() is None


def test_another_thread_is_in_no_run(workspace: Workspace) -> None:
    seen: list[object] = []
    with sparkscore.start_run("r", workspace=workspace):
        thread = threading.Thread(target=lambda: seen.append(sparkscore.active_run()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_run_is_continued_by_its_id(workspace: Workspace) -> None:
    with sparkscore.start_run("r", workspace=workspace) as first:
        first.log_params({"a": 1})
    with sparkscore.start_run("r", run_id=first.run_id, workspace=workspace) as again:
        again.log_params({"b": 2})
    assert recorded(workspace, first.run_id).params == {"a": "1", "b": "2"}


def test_logged_model_names_the_active_run(workspace: Workspace) -> None:
    model = LinearRegression().fit(ROWS, [0.0, 2.0, 4.0])
    with sparkscore.start_run("r", workspace=workspace) as run:
        version = sparkscore.log_model(model, "line", workspace=workspace, input_example=ROWS)
    assert version.run_id == run.run_id
    alone = sparkscore.log_model(model, "line", workspace=workspace, input_example=ROWS)
    assert alone.run_id == ""


@pytest.mark.parametrize("is_active", [True, False])
def test_model_logged_under_mlflows_two_names_is_in_the_run_and_the_registry(
    is_active: bool, workspace: Workspace
) -> None:
    model = LinearRegression().fit(ROWS, [0.0, 2.0, 4.0])

    def log() -> ModelVersion:
        return sparkscore.log_model(
            model, "fit", registered_model_name="line", workspace=workspace, input_example=ROWS
        )

    if is_active:
        with sparkscore.start_run("r", workspace=workspace) as run:
            version = log()
        assert version.run_id == run.run_id
    else:
        version = log()
    kept = recorded(workspace, version.run_id)
    assert kept.status is RunStatus.FINISHED
    in_run = sparkscore.load_model(f"{kept.artifact_uri}/fit", workspace=workspace)
    registered = sparkscore.load_model("models:/line/1", workspace=workspace)
    assert in_run.facts.digest == registered.facts.digest
    assert [v.version for v in workspace.models.list_versions(ModelName("line"))] == [1]
