"""A full life through a server, as an unmodified MLflow client leads it; runs in MLflow's Python.

Arguments: the server's URL, and a folder for files. Prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

X = np.arange(40.0).reshape(20, 2)
Y = (X[:, 0] > 19).astype(int)


def log_runs(client: MlflowClient, folder: Path) -> dict[str, object]:
    """Nested runs, batches, files up and down."""
    mlflow.set_experiment("life")
    with mlflow.start_run(run_name="parent", tags={"team": "blue"}) as parent:
        mlflow.log_param("depth", 3)
        mlflow.log_metric("loss", float("nan"), step=0)
        mlflow.log_metrics({"loss": 0.5, "gain": 2.0}, step=1)
        with mlflow.start_run(run_name="child", nested=True) as child:
            client.log_batch(
                child.info.run_id,
                metrics=[Metric("m", step / 2, 1000 + step, step) for step in range(1000)],
                params=[Param(f"p{n}", str(n)) for n in range(50)],
                tags=[RunTag("kind", "batch")],
            )
        mlflow.log_text("hello", "notes/a b.txt")
        mlflow.log_dict({"a": 1}, "conf.json")
        (folder / "up").mkdir()
        (folder / "up" / "x.bin").write_bytes(bytes(range(256)) * 4096)
        mlflow.log_artifacts(str(folder / "up"), "bulk")
    down = mlflow.artifacts.download_artifacts(
        run_id=parent.info.run_id, artifact_path="bulk", dst_path=str(folder / "down")
    )
    run = client.get_run(parent.info.run_id)
    history = client.get_metric_history(child.info.run_id, "m")
    return {
        "status": run.info.status,
        "params": run.data.params,
        "loss": run.data.metrics["loss"],
        "nan_kept": str(client.get_metric_history(parent.info.run_id, "loss")[0].value),
        "parent_of_child": client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"]
        == parent.info.run_id,
        "n_points": len(history),
        "last_point": [history[-1].step, history[-1].value],
        "files": sorted(item.path for item in client.list_artifacts(parent.info.run_id)),
        "text": mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/notes/a b.txt"),
        "same_bytes": (Path(down) / "x.bin").read_bytes() == bytes(range(256)) * 4096,
    }


def log_and_register(client: MlflowClient) -> dict[str, object]:
    """A model logged, registered, aliased, staged, found, loaded and asked."""
    with mlflow.start_run() as run:
        model = LogisticRegression().fit(X, Y)
        named = "name" if mlflow.__version__.startswith("3.") else "artifact_path"
        info = mlflow.sklearn.log_model(
            model,
            **{named: "model"},
            input_example=X[:2],
            pip_requirements=[],
            registered_model_name="Life",
        )
    version = client.get_model_version("Life", "1")
    client.set_registered_model_alias("Life", "champion", "1")
    client.set_model_version_tag("Life", "1", "checked", "yes")
    client.update_model_version("Life", "1", description="the first")
    client.transition_model_version_stage("Life", "1", "Production")
    by_alias = client.get_model_version_by_alias("Life", "champion")
    loaded = mlflow.pyfunc.load_model("models:/Life@champion")
    registered = mlflow.register_model(info.model_uri, "Life")
    return {
        "version_status": version.status,
        "run_link": version.run_id == run.info.run_id,
        "alias_version": str(by_alias.version),
        "stage": by_alias.current_stage,
        "description": by_alias.description,
        "tags": by_alias.tags,
        "predictions": [int(v) for v in loaded.predict(X[[0, 19]])],
        "second_version": str(registered.version),
        "latest": sorted(str(v.version) for v in client.get_latest_versions("Life")),
        "by_run": [
            int(v)
            for v in mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(X[[0]])
        ],
    }


def autolog(client: MlflowClient) -> dict[str, object]:
    """A training that the client records by itself."""
    mlflow.sklearn.autolog()
    with mlflow.start_run() as run:
        LogisticRegression().fit(X, Y)
    mlflow.sklearn.autolog(disable=True)
    found = client.get_run(run.info.run_id)
    return {
        "n_params": len(found.data.params),
        "metrics": sorted(found.data.metrics),
        "n_inputs": len(found.inputs.dataset_inputs),
        # The second series writes a tag, the third an output of the run.
        "model_logged": "mlflow.log-model.history" in found.data.tags
        or bool(found.outputs.model_outputs),
    }


def search(client: MlflowClient) -> dict[str, object]:
    """Searches with filters, orders and pages."""
    experiment = client.create_experiment("paged")
    for n in range(7):
        run = client.create_run(experiment, run_name=f"r{n}")
        client.log_metric(run.info.run_id, "m", n)
        client.log_param(run.info.run_id, "even", str(n % 2 == 0))
    names: list[str] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], order_by=["metrics.m DESC"], max_results=3, page_token=token
        )
        names += [run.info.run_name for run in page]
        token = page.token
        if not token:
            break
    found = client.search_runs([experiment], "metrics.m >= 3 and params.even = 'True'")
    return {
        "paged": names,
        "filtered": sorted(run.info.run_name for run in found),
        "experiments": sorted(item.name for item in client.search_experiments()),
        "models": [model.name for model in client.search_registered_models("name LIKE 'Li%'")],
        "versions": sorted(str(v.version) for v in client.search_model_versions("name = 'Life'")),
        "as_frame": len(mlflow.search_runs([experiment])),
    }


def command_line(client: MlflowClient, folder: Path) -> dict[str, object]:
    """Commands of `mlflow`, in this process."""
    from click.testing import CliRunner
    from mlflow.cli import cli

    def call(*words: str) -> str:
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    made = call("experiments", "create", "-n", "by command")
    experiment = client.get_experiment_by_name("by command").experiment_id
    run = client.create_run(experiment, run_name="commanded").info.run_id
    (folder / "note.txt").write_text("noted")
    call("artifacts", "log-artifact", "-l", str(folder / "note.txt"), "-r", run, "-a", "notes")
    call("artifacts", "download", "-r", run, "-a", "notes", "-d", str(folder / "got"))
    call("experiments", "rename", "-x", experiment, "--new-name", "by commands")
    call("runs", "delete", "--run-id", run)
    call("runs", "restore", "--run-id", run)
    (folder / "rows.csv").write_text("0,1\n0.0,1.0\n38.0,39.0\n")
    call(
        "models", "predict", "-m", "models:/Life@champion", "--env-manager", "local",
        "-i", str(folder / "rows.csv"), "-o", str(folder / "scores.json"), "-t", "csv",
    )  # fmt: skip
    return {
        "made": experiment in made,
        "experiments": "by commands" in call("experiments", "search"),
        "runs": "commanded" in call("runs", "list", "--experiment-id", experiment),
        "described": run in call("runs", "describe", "--run-id", run),
        "files": "notes/note.txt" in call("artifacts", "list", "-r", run, "-a", "notes"),
        "downloaded": (folder / "got" / "notes" / "note.txt").read_text(),
        "scores": json.loads((folder / "scores.json").read_text())["predictions"],
    }


def delete(client: MlflowClient) -> dict[str, object]:
    """What is deleted is gone, and may come back."""
    experiment = client.create_experiment("gone")
    run = client.create_run(experiment)
    client.set_tag(run.info.run_id, "a", "b")
    client.delete_tag(run.info.run_id, "a")
    client.delete_run(run.info.run_id)
    deleted = client.get_run(run.info.run_id).info.lifecycle_stage
    client.restore_run(run.info.run_id)
    client.set_terminated(run.info.run_id, "FAILED")
    client.delete_experiment(experiment)
    client.restore_experiment(experiment)
    client.rename_experiment(experiment, "gone again")
    client.delete_registered_model_alias("Life", "champion")
    client.delete_model_version("Life", "2")
    client.rename_registered_model("Life", "Death")
    client.delete_registered_model("Death")
    return {
        "deleted": deleted,
        "status": client.get_run(run.info.run_id).info.status,
        "renamed": client.get_experiment(experiment).name,
        "unknown": client.get_experiment_by_name("never") is None,
    }


def main() -> None:
    """Lead the life and print what was found."""
    mlflow.set_tracking_uri(sys.argv[1])
    folder = Path(sys.argv[2])
    client = MlflowClient()
    found = {
        "runs": log_runs(client, folder),
        "model": log_and_register(client),
        "autolog": autolog(client),
        "search": search(client),
        "commands": command_line(client, folder),
        "delete": delete(client),
        "release": mlflow.__version__,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
