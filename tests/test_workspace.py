from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkscore.errors import ConfigError
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
        "this release supports sqlite:///FILE and postgresql://USER:PASSWORD@HOST/DATABASE"
    )


def test_a_job_is_read_through_the_workspace(folder: Path) -> None:
    path = folder / "night.yaml"
    path.write_text("model: models:/m@champion\nsource: {uri: s}\ntarget: {uri: t}\n")
    job = Workspace.open().job(path, {"where": "day = '${run_key}'"}, run_key="d1").values
    assert (job.name, job.where) == ("night", "day = 'd1'")
