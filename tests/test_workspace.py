from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkscore.errors import ConfigError, UsageError
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
    workspace = Workspace.open(overrides={"registry.uri": "postgresql://me:p4ss@host/db"})
    with pytest.raises(ConfigError) as caught:
        _ = workspace.models
    assert str(caught.value) == (
        "setting 'registry.uri' is 'postgresql://me:***@host/db' (flag --set): "
        "this release supports sqlite:///FILE"
    )


def test_signatures_cannot_be_demanded_without_keys_or_by_what_is_no_key(folder: Path) -> None:
    assert folder == Path.cwd()
    with pytest.raises(ConfigError, match=r"trust\.signing_keys names no key"):
        _ = Workspace.open(overrides={"trust.require_signature": True}).trust
    keys = Workspace.open(overrides={"trust.signing_keys": ["nowhere.pem"]})
    with pytest.raises(UsageError, match=r"'nowhere\.pem' is no public key"):
        _ = keys.trust
    key = "AB" * 32
    overrides = {"trust.require_signature": True, "trust.signing_keys": [key]}
    assert Workspace.open(overrides=overrides).trust.signing_keys == (key.lower(),)


def test_a_job_is_read_through_the_workspace(folder: Path) -> None:
    path = folder / "night.yaml"
    path.write_text("model: models:/m@champion\nsource: {uri: s}\ntarget: {uri: t}\n")
    job = Workspace.open().job(path, {"where": "day = '${run_key}'"}, run_key="d1").values
    assert (job.name, job.where) == ("night", "day = 'd1'")
