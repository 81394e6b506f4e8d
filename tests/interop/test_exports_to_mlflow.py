"""Records of ours on servers of MLflow's, and back: the round leads through MLflow's own files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkscore.cli import main
from sparkscore.names import AliasName, ArtifactPath, ExperimentName, ModelName, RunId
from sparkscore.records import (
    Dataset,
    DatasetInput,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
    Stage,
)
from sparkscore.search import Query
from sparkscore.workspace import Workspace
from tests.interop.conftest import PEERS
from tests.moving.mlruns_maker import write_package

LIFE = ModelName("life")


@dataclass(frozen=True)
class MlflowServer:
    """A server of one release of MLflow's, and the folder that it writes."""

    release: str
    url: str
    folder: Path


@contextmanager
def running(release: str, folder: Path) -> Iterator[MlflowServer]:
    python = os.environ.get(PEERS[release][0], "")
    assert Path(python).is_file(), f"{PEERS[release][0]} names no Python of MLflow {release}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    script = Path(__file__).with_name("mlflow_server.py")
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [python, "-W", "ignore", str(script), str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean,
            cwd=folder,
        )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, (folder / "log.txt").read_text()[-3000:]
            yield MlflowServer(release, url, folder)
        finally:
            process.kill()


@pytest.fixture(scope="module", params=PEERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    with running(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server


def settings_in(folder: Path) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    return {
        "tracking.uri": f"sqlite:///{folder / 'sparkscore.db'}",
        "artifacts.uri": (folder / "artifacts").as_uri(),
    }


def command(folder: Path, *words: str) -> int:
    given = [
        word for key, value in settings_in(folder).items() for word in ("--set", f"{key}={value}")
    ]
    return main([*given, *words])


@pytest.fixture
def ours(tmp_path: Path) -> Workspace:
    """A parent and a child with all that runs have, and a model of three kinds of versions."""
    workspace = Workspace.open(overrides=settings_in(tmp_path / "ours"))
    runs = workspace.runs
    experiment = runs.create_experiment(
        ExperimentName("round"), tags={"team": "blue"}
    ).experiment_id
    for name, parent in (("child", "parent"), ("parent", "")):
        tags = {"mlflow.parentRunId": parent} if parent else {"a": "b"}
        made = runs.create_run(
            experiment,
            run_id=RunId(name),
            run_name=f"the {name}",
            user_id="ann",
            start_time_ms=5 if parent else 7,
            tags=tags,
        )
        runs.log_batch(
            RunId(name),
            params={"p": "ü", "e": ""},
            metrics=[
                *(Metric("loss", step / 3, 10 + step, step) for step in range(1500)),
                Metric("nan", float("nan"), 1, 2),
            ],
        )
        used = Dataset("d", "abc", "local", '{"u":1}', '{"s":1}', '{"p":2}')
        runs.log_inputs(RunId(name), datasets=[DatasetInput(used, {"mlflow.data.context": "t"})])
        write_package(tmp_path / name / "kept")
        workspace.artifacts_at(made.artifact_uri).put(tmp_path / name, ArtifactPath("files"))
    models = workspace.logged_models
    logged = models.create_logged_model(
        experiment, model_id="m-1", name="logged", source_run_id="parent", params={"k": "v"}
    )
    workspace.artifacts_at(logged.artifact_uri).put(tmp_path / "parent/kept", ArtifactPath(""))
    models.finish_logged_model("m-1", LoggedModelStatus.READY)
    runs.log_outputs(RunId("parent"), [ModelOutput("m-1", 3)])
    for name in ("child", "parent"):
        runs.update_run(RunId(name), RunStatus.FINISHED, 99)
    add_versions(workspace, tmp_path / "parent" / "kept")
    return workspace


def add_versions(workspace: Workspace, package: Path) -> None:
    """One of the registry, one of a run and one of a logged model; number 2 is gone."""
    registry, models = workspace.registry, workspace.models
    for _ in range(2):
        registry.register(package, LIFE, alias=AliasName("champion"), tags={"t": "v"})
    models.set_alias(LIFE, AliasName("champion"), 1)
    models.delete_version(LIFE, 2)
    place = workspace.runs.get_run(RunId("parent")).artifact_uri
    registry.register(package, LIFE, run_id="parent", kept_at=f"{place}/files/kept")
    models.move_version(LIFE, 3, Stage.STAGING, archive_others=False)
    made = models.create_version(LIFE, source="models:/m-1", model_id="m-1", run_id="parent")
    assert made.version == 4


def back(server: MlflowServer, folder: Path) -> Workspace:
    """What MLflow's server keeps, imported into stores of ours."""
    source = str(server.folder / "mlruns")
    moved = f"mlflow-artifacts:/={server.folder / 'mlartifacts'}"
    assert command(folder, "import", "mlflow", "--from", source, "--artifacts-at", moved) == 0
    return Workspace.open(overrides=settings_in(folder))


def told(workspace: Workspace, run: Run) -> dict[str, object]:
    tags = {key: text for key, text in run.tags.items() if not key.startswith("sparkscore.")}
    tags.pop("mlflow.runName", None)
    tags.pop("mlflow.parentRunId", None)
    points = {
        key: [
            (it.step, it.timestamp_ms, repr(it.value))
            for it in workspace.runs.metric_history(RunId(run.run_id), key)
        ]
        for key in run.metrics
    }
    files = workspace.artifacts_at(run.artifact_uri).list(ArtifactPath("files/kept"))
    return {
        "name": run.run_name,
        "status": run.status,
        "times": (run.start_time_ms, run.end_time_ms),
        "user": run.user_id,
        "params": run.params,
        "tags": tags,
        "datasets": run.datasets,
        "points": points,
        "files": [it.path for it in files],
    }


def test_all_goes_to_mlflow_and_comes_back_the_same_and_once(
    server: MlflowServer, ours: Workspace, tmp_path: Path
) -> None:
    for _ in range(2):
        assert command(tmp_path / "ours", "export", "--to", server.url) == 0
    again = back(server, tmp_path / "again")
    experiment = again.runs.find_experiment(ExperimentName("round"))
    assert experiment is not None
    assert experiment.tags == {"team": "blue"}
    found = {
        it.tags["sparkscore.origin"]: it
        for it in again.runs.search_runs([experiment.experiment_id], Query()).items
    }
    assert sorted(found) == ["child", "parent"]
    for name, run in found.items():
        assert told(again, run) == told(ours, ours.runs.get_run(RunId(name)))
    assert found["child"].tags["mlflow.parentRunId"] == found["parent"].run_id
    lines = (server.folder / "mlruns").glob("*/*/metrics/loss")
    assert [len(path.read_text().splitlines()) for path in lines] == [1500, 1500]
    versions = again.models.list_versions(LIFE)
    assert [(it.version, it.stage) for it in versions][-2:] == [(3, Stage.STAGING), (1, Stage.NONE)]
    assert [it.version for it in versions] == [4, 3, 1]
    own = {it.version: it.digest for it in ours.models.list_versions(LIFE)}
    assert own[1] == own[3]
    assert {it.digest for it in versions} == {own[1]}
    assert (versions[-1].aliases, versions[-1].tags["t"]) == (("champion",), "v")
    if server.release != "2.22":  # The second series has no logged models.
        (model,) = again.logged_models.search_logged_models(
            [experiment.experiment_id], Query()
        ).items
        assert (model.name, model.params) == ("logged", {"k": "v"})
        assert found["parent"].model_outputs == (ModelOutput(model.model_id, 3),)
