"""Stores that MLflow itself wrote, copied by `sparkscore import mlflow`: all is there, and once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, MetaData, Table, create_engine, insert, select
from sqlalchemy.pool import NullPool

from sparkscore.cli import main
from sparkscore.names import ArtifactPath, ModelName, RunId, parse_model_uri
from sparkscore.records import Experiment, LoggedModelStatus, Run
from sparkscore.search import Query, View
from sparkscore.stores.sql import SqlStores
from sparkscore.stores.sql.mlflow_database import READ
from sparkscore.workspace import Workspace

Peer = Callable[[str, Path], None]
ALL = Query(view=View.ALL)


@pytest.fixture(scope="module")
def kept(each_peer: tuple[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and a database that one release of MLflow wrote, and what it reads from them."""
    folder = tmp_path_factory.mktemp("kept")
    each_peer[1]("keep", folder)
    return folder


class Moved:
    """Our stores after an import, and what MLflow said of its own."""

    def __init__(self, place: str, url: str, said: Path, ours: Path) -> None:
        self.place = place
        self.settings = {"tracking.uri": url, "artifacts.uri": (ours / "artifacts").as_uri()}
        self.url = url
        self.said: Any = json.loads(said.read_text("utf-8"))
        self.workspace = Workspace.open(overrides=self.settings)

    def do_import(self) -> int:
        words = [word for it in self.settings.items() for word in ("--set", "=".join(it))]
        return main([*words, "import", "mlflow", "--from", self.place, "-o", "json"])


@pytest.fixture(scope="module", params=["folder", "database", "postgres"])
def moved(
    request: pytest.FixtureRequest, kept: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moved]:
    ours = tmp_path_factory.mktemp("ours")
    url = f"sqlite:///{ours / 'sparkscore.db'}"
    place, said = f"sqlite:///{kept / 'mlflow.db'}", kept / "database.json"
    if request.param == "folder":
        place, said = str(kept / "mlruns"), kept / "folder.json"
    elif request.param == "postgres":
        server = request.getfixturevalue("postgres")
        source = server.new_database(f"theirs_{kept.name}".replace("-", "_"))
        copy_tables(place, source)
        place, url = source, server.new_database(f"ours_{kept.name}".replace("-", "_"))
    moved = Moved(place, url, said, ours)
    assert moved.do_import() == 0
    yield moved
    stores = moved.workspace._tracking_stores
    assert isinstance(stores, SqlStores)
    stores.close()


def engine_of(url: str) -> Engine:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)


def copy_tables(source: str, target: str) -> None:
    """MLflow's tables as PostgreSQL has them, whose types are stricter."""
    metadata = MetaData()
    metadata.reflect(engine_of(source), resolve_fks=False)
    wanted = [it for it in metadata.sorted_tables if it.name in READ or it.name == "trace_info"]
    with engine_of(source).connect() as rows, engine_of(target).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        for table in wanted:
            columns = [Column(it.name, it.type, primary_key=it.primary_key) for it in table.c]
            copy = Table(table.name, MetaData(), *columns)
            copy.create(connection)
            found = [row._asdict() for row in rows.execute(select(table))]
            if found:
                connection.execute(insert(copy), found)


def rows_of(url: str) -> dict[str, list[str]]:
    engine, metadata = engine_of(url), MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            name: sorted(map(repr, connection.execute(select(table))))
            for name, table in metadata.tables.items()
        }


def test_experiments_and_runs_are_as_mlflow_reads_them(moved: Moved) -> None:
    runs = moved.workspace.runs
    experiments = {it.experiment_id: it for it in runs.search_experiments(ALL).items}
    assert experiments.keys() == moved.said["experiments"].keys()
    for experiment_id, said in moved.said["experiments"].items():
        found = {it.run_id: it for it in runs.search_runs([experiment_id], ALL).items}
        # The first experiment is made with a store, ours and theirs.
        if experiment_id != "0":
            assert experiments[experiment_id].creation_time_ms == said["created"]
        assert told_experiment(experiments[experiment_id]) == {
            key: said[key] for key in ("name", "stage", "tags")
        }
        assert {it: told_run(moved, run) for it, run in found.items()} == said["runs"]


def told_experiment(experiment: Experiment) -> dict[str, object]:
    return {
        "name": experiment.name,
        "stage": experiment.lifecycle_stage,
        "tags": experiment.tags,
    }


def told_run(moved: Moved, run: Run) -> dict[str, object]:
    files = moved.workspace.artifacts_at(run.artifact_uri)
    points = {
        key: [
            [it.step, it.timestamp_ms, repr(it.value)]
            for it in moved.workspace.runs.metric_history(RunId(run.run_id), key)
        ]
        for key in run.metrics
    }
    return {
        "name": run.run_name,
        "user": run.user_id,
        "status": run.status,
        "times": [run.start_time_ms, run.end_time_ms],
        "stage": run.lifecycle_stage,
        "params": run.params,
        "tags": run.tags,
        "points": {key: sorted(found) for key, found in points.items()},
        "datasets": [[*vars(it.dataset).values(), it.tags] for it in run.datasets],
        "outputs": [it.model_id for it in run.model_outputs],
        "files": [it.path for it in files.list(ArtifactPath(""))],
    }


def test_registered_models_are_as_mlflow_reads_them(moved: Moved) -> None:
    models = moved.workspace.models
    for name, said in moved.said["models"].items():
        model = models.get_model(ModelName(name))
        versions = {
            str(it.version): [
                it.creation_time_ms, it.last_update_time_ms, it.description, it.stage,
                it.status, it.run_id, it.tags,
            ]
            for it in models.list_versions(ModelName(name))
        }  # fmt: skip
        assert {
            "description": model.description,
            "times": [model.creation_time_ms, model.last_update_time_ms],
            "tags": model.tags,
            "aliases": model.aliases,
            "versions": versions,
        } == said
    assert list(moved.said["models"]) == ["Life"]


def test_a_version_is_fetched_here_and_its_bytes_are_those_of_its_digest(
    moved: Moved, tmp_path: Path
) -> None:
    uri = parse_model_uri("models:/Life@champion")
    pinned = moved.workspace.registry.resolve(uri, tmp_path / "models")
    assert pinned.is_verified
    assert pinned.package.description.signature is None
    assert (pinned.folder / "MLmodel").is_file()
    new = moved.workspace.registry.register(pinned.folder, ModelName("Life"))
    assert new.version == 4, "the number of version 2, which was deleted, is not given again"


def test_logged_models_keep_their_metrics_and_files(moved: Moved) -> None:
    ids = [it.experiment_id for it in moved.workspace.runs.search_experiments(ALL).items]
    found = moved.workspace.logged_models.search_logged_models(ids, ALL).items
    outputs = [
        model_id
        for experiment in moved.said["experiments"].values()
        for run in experiment["runs"].values()
        for model_id in run["outputs"]
    ]
    assert [it.model_id for it in found] == outputs
    for model in found:
        assert (model.name, model.status) == ("model", LoggedModelStatus.READY)
        assert [(it.key, it.value, it.step) for it in model.metrics] == [("acc", 0.5, 1)]
        files = moved.workspace.artifacts_at(model.artifact_uri).list(ArtifactPath(""))
        assert "MLmodel" in [it.path for it in files]


def test_a_second_import_finds_all_there_and_changes_nothing(
    moved: Moved, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows_of(moved.url)
    assert moved.do_import() == 0
    told = json.loads(capsys.readouterr().out)
    counts = {it["what"]: it for it in told["records"]}
    kinds = ("experiment", "run", "metric point", "logged model", "model version")
    assert [counts[kind]["new"] for kind in kinds] == [0] * 5
    assert (counts["experiment"]["there_before"], counts["run"]["there_before"]) == (3, 4)
    assert [it["what"] for it in told["left_out"]] == ["model version"]
    assert rows_of(moved.url) == before
