from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sparkscore
from sparkscore import workspace as workspaces
from sparkscore.errors import InvalidStateError, RecordNotFoundError, UsageError
from sparkscore.names import ArtifactPath
from sparkscore.records import Dataset, Metric, Run, RunStatus

ROOT = Path(sparkscore.__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, with nothing chosen before or after."""
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    while sparkscore.active_run():
        sparkscore.end_run()
    keys = ("tracking.uri", "tracking.experiment", "tracking.experiment_id")
    workspaces.choose({}, forget=keys)


def kept(run_id: str) -> Run:
    return sparkscore.get_run(run_id)


def test_everything_is_logged_to_the_run_of_the_thread(folder: Path) -> None:
    (folder / "local").mkdir()
    (folder / "local" / "a.txt").write_text("a")
    with sparkscore.start_run("r", description="why") as run:
        sparkscore.log_param("p", 1)
        sparkscore.log_params({"q": 2.5})
        sparkscore.log_metric("m", 0.5, 3, timestamp=7)
        sparkscore.log_metrics({"n": 1})
        sparkscore.log_batch([Metric("m", 0.7, 9, 4)], {"b": True}, {"t": 1})
        sparkscore.set_tag("u", "v")
        sparkscore.set_tags({"w": "x"})
        sparkscore.log_artifact("local/a.txt", "in")
        sparkscore.log_artifacts("local", "all")
        sparkscore.log_text("text", "t.txt")
        sparkscore.log_dict({"k": [1]}, "d.json")
        sparkscore.log_image(np.zeros((2, 2)), "i.png")
        sparkscore.log_image(np.zeros((2, 2)), key="a/b", step=2, timestamp=5)
        sparkscore.log_table(pd.DataFrame({"x": [1]}), "t.json")
        sparkscore.log_table({"x": 2}, "t.json")
        assert sparkscore.get_artifact_uri("t.txt") == f"{run.artifact_uri}/t.txt"
    found = kept(run.run_id)
    assert found.params == {"p": "1", "q": "2.5", "b": "True"}
    assert (found.metrics["m"], found.metrics["n"].value) == (Metric("m", 0.7, 9, 4), 1.0)
    assert (found.tags["t"], found.tags["u"], found.tags["w"]) == ("1", "v", "x")
    assert found.tags["mlflow.note.content"] == "why"
    client = sparkscore.SparkscoreClient()
    names = [info.path for info in client.list_artifacts(run.run_id)]
    assert names == ["all", "d.json", "i.png", "images", "in", "t.json", "t.txt"]
    assert [info.path for info in client.list_artifacts(run.run_id, "in")] == ["in/a.txt"]
    (image,) = client.list_artifacts(run.run_id, "images")
    assert image.path.startswith("images/a#b+step+2+timestamp+5+")
    assert client.load_table(run.run_id, "t.json")["x"].tolist() == [1, 2]
    assert Path(client.download_artifacts(run.run_id, "t.txt", folder / "b")).read_text() == "text"


def test_inputs_are_kept_by_digest_and_schema() -> None:
    rows = pd.DataFrame({"x": [0.0, 1.0]})
    with sparkscore.start_run("r") as run:
        made = sparkscore.log_input(rows, "training", name="flights")
        sparkscore.log_input(Dataset("own", "d1", "local", "{}"), tags={"k": "v"})
    first, second = sorted(kept(run.run_id).datasets, key=lambda used: used.dataset.name)
    assert (first.dataset, first.tags) == (made, {"mlflow.data.context": "training"})
    assert json.loads(made.profile)["num_rows"] == 2
    assert (second.dataset.digest, second.tags) == ("d1", {"k": "v"})
    with sparkscore.start_run("s"), pytest.raises(UsageError, match="neither a Dataset nor rows"):
        sparkscore.log_input("rows")  # type: ignore[arg-type]  # what a user may try


def test_background_is_flushed_when_the_run_ends() -> None:
    with sparkscore.start_run("r") as run:
        for step in range(300):
            sparkscore.log_metric("m", step, step, synchronous=False)
        sparkscore.log_param("p", 1, synchronous=False)
        sparkscore.flush_async_logging()
        assert kept(run.run_id).params == {"p": "1"}
        sparkscore.set_tag("t", 1, synchronous=False)
    client = sparkscore.SparkscoreClient()
    assert len(client.get_metric_history(run.run_id, "m")) == 300
    assert kept(run.run_id).tags["t"] == "1"


def test_what_is_refused_in_the_background_is_raised_by_the_end() -> None:
    run = sparkscore.start_run("r")
    sparkscore.log_param("p", 1, synchronous=False)
    sparkscore.log_param("p", 2, synchronous=False)
    with pytest.raises(InvalidStateError, match="param 'p'"):
        sparkscore.end_run()
    assert kept(run.run_id).status is RunStatus.FINISHED
    assert sparkscore.active_run() is None


def test_run_without_a_block_goes_on_until_it_is_ended() -> None:
    run = sparkscore.start_run("r")
    assert sparkscore.active_run() is run
    with pytest.raises(InvalidStateError, match="is active in this thread"):
        sparkscore.start_run("s", nested=False)
    inner = sparkscore.start_run("s")
    sparkscore.end_run("FAILED")
    assert sparkscore.active_run() is run
    sparkscore.end_run()
    sparkscore.end_run()
    assert kept(run.run_id).status is RunStatus.FINISHED
    assert kept(inner.run_id).status is RunStatus.FAILED
    with pytest.raises(UsageError, match="does not end as 'DONE'"), sparkscore.start_run("t"):
        sparkscore.end_run("DONE")


def test_threads_log_to_runs_of_their_own() -> None:
    ids: dict[int, str] = {}
    barrier = threading.Barrier(4)

    def train(number: int) -> None:
        with sparkscore.start_run(f"r{number}") as run:
            ids[number] = run.run_id
            barrier.wait(30)
            sparkscore.log_param("number", number)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: kept(run_id).params["number"] for number, run_id in ids.items()} == {
        number: str(number) for number in range(4)
    }


@pytest.mark.parametrize(
    ("end", "status"), [("", "FINISHED"), ("raise ValueError('mine')", "FAILED")]
)
def test_first_call_starts_a_run_that_ends_with_the_process(
    folder: Path, end: str, status: str
) -> None:
    code = f"import sparkscore\nsparkscore.log_metric('m', 1, synchronous=False)\n{end}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=False)
    found = sparkscore.search_runs()
    assert found["status"].tolist() == [status]
    assert found["metrics.m"].tolist() == [1.0]


def test_launchers_run_is_continued_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment_id = sparkscore.SparkscoreClient().create_experiment("launched")
    made = sparkscore.SparkscoreClient().create_run(experiment_id, run_name="theirs")
    sparkscore.SparkscoreClient().set_terminated(made.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    with sparkscore.start_run("r") as run:
        assert run.run_id == made.run_id
        assert kept(made.run_id).status is RunStatus.RUNNING
        with sparkscore.start_run("child") as child:
            assert child.run_id != made.run_id
            assert child.experiment_id == experiment_id
    with sparkscore.start_run("r") as second:
        assert second.run_id != made.run_id


def test_experiment_and_store_are_chosen_for_what_follows(folder: Path) -> None:
    sparkscore.set_tracking_uri(f"sqlite:///{folder}/other.db")
    assert sparkscore.get_tracking_uri() == f"sqlite:///{folder}/other.db"
    chosen = sparkscore.set_experiment("mine")
    with sparkscore.start_run("r") as run:
        assert run.experiment_id == chosen.experiment_id
    assert sparkscore.search_runs()["run_id"].tolist() == [run.run_id]
    assert not (folder / "sparkscore.db").exists()
    sparkscore.set_tracking_uri(None)
    with pytest.raises(RecordNotFoundError):
        kept(run.run_id)
    assert sparkscore.set_experiment(experiment_id="0").name == "Default"
    with pytest.raises(UsageError, match="and not both"):
        sparkscore.set_experiment()
    sparkscore.SparkscoreClient().delete_experiment("0")
    with pytest.raises(InvalidStateError, match="restore it"):
        sparkscore.set_experiment("Default")


def test_machine_is_measured_where_it_is_asked_for() -> None:
    with sparkscore.start_run("r", log_system_metrics=True) as run:
        pass
    assert any(key.startswith("system/disk") for key in kept(run.run_id).metrics)
    with sparkscore.start_run("r") as plain:
        pass
    assert kept(plain.run_id).metrics == {}


def test_searches_find_runs_as_rows(folder: Path) -> None:
    assert folder.exists()
    ids: list[str] = []
    for number in range(3):
        with sparkscore.start_run("r", experiment="a" if number else "b") as run:
            ids.append(run.run_id)
            sparkscore.log_metric("m", number)
            if number == 2:
                sparkscore.log_param("p", "x")
    found = sparkscore.search_runs(
        experiment_names=["a", "b"], filter_string="metrics.m >= 1", order_by=["metrics.m DESC"]
    )
    assert found["metrics.m"].tolist() == [2.0, 1.0]
    assert found["params.p"].tolist()[0] == "x"
    assert found["params.p"].isna().tolist() == [False, True]
    assert found.loc[0, "run_id"] == ids[2]
    assert str(found["start_time"].dtype).startswith("datetime64")
    assert len(sparkscore.search_runs(search_all_experiments=True)) == 3
    assert len(sparkscore.search_runs(["0"])) == 0
    assert "run_id" in sparkscore.search_runs(["0"]).columns
    with pytest.raises(RecordNotFoundError, match="'nobody'"):
        sparkscore.search_runs(experiment_names=["nobody"])
    with pytest.raises(UsageError, match="give one of"):
        sparkscore.search_runs(["0"], experiment_names=["a"])
    names = [e.name for e in sparkscore.search_experiments(filter_string="name != 'Default'")]
    assert sorted(names) == ["a", "b"]


def test_root_is_no_file_of_a_run(folder: Path) -> None:
    (folder / "file").write_text("x")
    with sparkscore.start_run("r") as run:
        with pytest.raises(UsageError, match="keep it by log_artifact"):
            sparkscore.log_artifacts("file")
        with pytest.raises(RecordNotFoundError):
            sparkscore.log_artifact("none")
    assert list(run.artifacts.list(ArtifactPath(""))) == []
