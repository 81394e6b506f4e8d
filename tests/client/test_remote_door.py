"""The same calls against a server: ours, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import sparkscore
from sparkscore.cli import main
from sparkscore.errors import ModelError, ModelNotFoundError
from sparkscore.names import ModelName, RunId
from sparkscore.records import RunStatus, VersionStatus
from sparkscore.stores.memory import MemoryStores
from sparkscore.testing.tracking_server import TrackingServer
from sparkscore.workspace import Workspace

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
LINE = ModelName("line")


@pytest.fixture(scope="module")
def server() -> Iterator[TrackingServer]:
    with TrackingServer().running() as running:
        yield running


@pytest.fixture(autouse=True)
def served(server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStores:
    """What the server keeps, for a client that knows its address alone."""
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    (tmp_path / "client").mkdir()
    monkeypatch.chdir(tmp_path / "client")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("SPARKSCORE__CACHE__FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("SPARKSCORE__CLIENT__MAX_RETRIES", "0")
    return server.new_stores(tmp_path / "served")


def fitted() -> LinearRegression:
    return LinearRegression().fit(ROWS, [0.0, 2.0, 4.0])


def test_model_goes_to_the_run_and_the_registry_and_comes_back(
    served: MemoryStores, tmp_path: Path
) -> None:
    with sparkscore.start_run("train") as run:
        sparkscore.log_metric("auc", 0.5)
        version = sparkscore.log_model(
            fitted(), "fit", registered_model_name="line", alias="champion", input_example=ROWS
        )
    assert version.source == f"{run.artifact_uri}/fit"
    kept = served.models.get_version(LINE, 1)
    assert (kept.digest, kept.run_id, kept.aliases) == (version.digest, run.run_id, ("champion",))
    assert served.runs.get_run(run.run_id).status is RunStatus.FINISHED
    loaded = sparkscore.load_model("models:/line@champion")
    assert loaded.facts.digest == version.digest
    assert loaded.predict(ROWS).round(6).tolist() == [0.0, 2.0, 4.0]  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "client").iterdir()] == []


def test_package_without_a_run_gets_one(served: MemoryStores, tmp_path: Path) -> None:
    version = sparkscore.log_model(fitted(), "line", input_example=ROWS)
    run = served.runs.get_run(RunId(version.run_id))
    assert (run.status, version.source) == (RunStatus.FINISHED, f"{run.artifact_uri}/model")
    package = sparkscore.save_model(fitted(), tmp_path / "package", input_example=ROWS).folder
    assert main(["models", "register", str(package), "--name", "line", "--alias", "new"]) == 0
    second = served.models.get_version(LINE, 2)
    assert (second.status, second.aliases) == (VersionStatus.READY, ("new",))
    third = sparkscore.register_model(f"runs:/{second.run_id}/model", "line")
    assert (third.version, third.source, third.digest) == (3, second.source, second.digest)


def test_version_whose_bytes_were_changed_on_the_server_is_refused(
    served: MemoryStores, tmp_path: Path
) -> None:
    version = sparkscore.log_model(fitted(), "line", input_example=ROWS)
    place = version.source.removeprefix("mlflow-artifacts:/")
    (tmp_path / "served" / place / "MLmodel").unlink()
    with pytest.raises(ModelError, match="MLmodel"):
        sparkscore.load_model("models:/line/1")
    with pytest.raises(ModelNotFoundError, match="'lines'"):
        sparkscore.load_model("models:/lines/1")
    assert served.models.get_version(LINE, 1).digest == version.digest


def test_commands_ask_the_server(served: MemoryStores, capsys: pytest.CaptureFixture[str]) -> None:
    with sparkscore.start_run("r", experiment="night"):
        sparkscore.log_text("text", "t.txt")
    assert served.runs.list_experiments()[0].name == "night"
    assert main(["runs", "list", "--filter", "status = 'FINISHED'", "-o", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["experiments", "delete", "night"]) == 0
    assert main(["runs", "list", "-o", "json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_secrets_come_from_the_environment_and_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert main(["config", "show", "--origin"]) == 0
    shown = capsys.readouterr().out
    assert "t0ken" not in shown
    assert "env MLFLOW_TRACKING_TOKEN" in shown
    assert "t0ken" not in repr(Workspace.open())
