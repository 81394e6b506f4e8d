from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkscore.errors import ConfigError, InvalidNameError
from sparkscore.names import ModelName
from sparkscore.workspace import Workspace


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_opening_a_workspace_touches_nothing(folder: Path) -> None:
    workspace = Workspace.open()
    assert workspace.settings.tracking.uri == "sqlite:///sparkscore.db"
    assert list(folder.iterdir()) == []


def test_each_thing_is_opened_once(folder: Path) -> None:
    workspace = Workspace.open()
    assert workspace.runs is workspace.runs
    assert workspace.registry is workspace.registry
    assert workspace.artifacts.root_uri == (folder / "sparkscore-artifacts").as_uri()


def test_the_registry_may_have_a_database_of_its_own(folder: Path) -> None:
    workspace = Workspace.open(overrides={"registry.uri": "sqlite:///models.db"})
    workspace.models.create_model(ModelName("toy"))
    assert (folder / "models.db").exists()
    assert not (folder / "sparkscore.db").exists()


def test_an_unsupported_registry_is_refused_by_the_setting_that_names_it(folder: Path) -> None:
    assert folder == Path.cwd()
    workspace = Workspace.open(overrides={"registry.uri": "mysql://me:p4ss@host/db"})
    with pytest.raises(ConfigError) as caught:
        _ = workspace.models
    assert str(caught.value) == (
        "setting 'registry.uri' is 'mysql://me:***@host/db' (flag --set): "
        "give sqlite:///FILE, postgresql://HOST/DATABASE or a server's http://HOST:PORT"
    )


def test_a_job_is_read_through_the_workspace(folder: Path) -> None:
    path = folder / "night.yaml"
    path.write_text("model: models:/m@champion\nsource: {uri: s}\ntarget: {uri: t}\n")
    job = Workspace.open().job(path, {"where": "day = '${run_key}'"}, run_key="d1").values
    assert (job.name, job.where) == ("night", "day = 'd1'")


def test_files_of_a_server_are_kept_by_it_unless_another_place_is_named(folder: Path) -> None:
    server = {"tracking.uri": "http://127.0.0.1:1/team"}
    workspace = Workspace.open(overrides=server)
    assert workspace.artifacts.root_uri == "mlflow-artifacts:"
    assert workspace.keeps_models_in_runs
    (folder / "conf").mkdir()
    (folder / "conf" / "base.yaml").write_text("artifacts: {uri: ./sparkscore-artifacts}\n")
    assert Workspace.open(overrides=server).keeps_models_in_runs
    named = Workspace.open(overrides=server | {"artifacts.uri": "here"})
    assert named.artifacts.root_uri == (folder / "here").as_uri()
    assert not named.keeps_models_in_runs


def test_files_that_came_through_a_server_are_found_where_it_keeps_them(folder: Path) -> None:
    workspace = Workspace.open(overrides={"artifacts.uri": "kept"})
    found = workspace.artifacts_at("mlflow-artifacts:/1/run/artifacts").root_uri
    assert found == (folder / "kept/1/run/artifacts").as_uri()
    for uri in ("mlflow-artifacts://other:5000/1", "mlflow-artifacts:/1/../../etc"):
        with pytest.raises(InvalidNameError):
            workspace.artifacts_at(uri)


def test_place_of_files_that_cannot_be_is_refused_by_its_setting(folder: Path) -> None:
    assert folder == Path.cwd()
    for uri, told in (("nosuch://x", "no kind that is known"), ("mlflow-artifacts:/", "server")):
        with pytest.raises(ConfigError, match=rf"'artifacts\.uri'.*flag --set.*{told}"):
            _ = Workspace.open(overrides={"artifacts.uri": uri}).artifacts


def test_server_of_an_odd_address_is_refused_without_its_password(folder: Path) -> None:
    assert folder == Path.cwd()
    workspace = Workspace.open(overrides={"tracking.uri": "http://me:p4ss@:80/?a=b"})
    with pytest.raises(ConfigError, match=r"'tracking\.uri'.*no address") as caught:
        _ = workspace.runs
    assert "p4ss" not in str(caught.value)
