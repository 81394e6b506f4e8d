from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import sparkscore
from sparkscore.names import RunId
from sparkscore.workspace import Workspace

COMPARED_TAGS = ("mlflow.autologging", "estimator_name", "estimator_class", "mlflow.source.type")


def told_by(tags: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, ...]:
    """What tells the runs of the trainings apart."""
    return tags.get("estimator_name", ""), *(f"{key}={params[key]}" for key in sorted(params))


def test_trainings_are_recorded_under_the_names_and_with_the_values_of_mlflow(
    mlflow_peer: Callable[..., None], tmp_path: Path
) -> None:
    mlflow_peer("train", tmp_path)
    theirs = json.loads((tmp_path / "runs.json").read_text("utf-8"))
    overrides = {
        "tracking.uri": f"sqlite:///{tmp_path}/store.db",
        "artifacts.uri": str(tmp_path / "artifacts"),
    }
    workspace = Workspace.open(overrides=overrides)
    sparkscore.autolog(workspace=workspace, log_models=False)
    try:
        runpy.run_path(str(Path(__file__).with_name("trainings.py")))
    finally:
        sparkscore.autolog(disable=True)
    # By what they are: a search and its best model may have begun in one millisecond.
    ours = sorted(workspace.runs.list_runs(), key=lambda run: told_by(run.tags, run.params))
    theirs.sort(key=lambda peer: told_by(peer["tags"], peer["params"]))
    assert len(ours) == len(theirs) == 8
    for run, peer in zip(ours, theirs, strict=True):
        assert run.params == peer["params"]
        assert run.metrics.keys() == peer["metrics"].keys()
        for key, expected in peer["metrics"].items():
            points = workspace.runs.metric_history(RunId(run.run_id), key)
            # Not with their steps: MLflow's folder reads that of a point with a dataset as 0.
            values = sorted(value for _, value in expected)
            assert sorted(point.value for point in points) == pytest.approx(values, rel=1e-9)
        kept = {key: run.tags[key] for key in COMPARED_TAGS if key in run.tags}
        assert kept == {key: peer["tags"][key] for key in COMPARED_TAGS if key in peer["tags"]}
        files = {path.name for path in Path(run.artifact_uri.removeprefix("file://")).iterdir()}
        plain = {path for path in peer["artifacts"] if path.endswith((".json", ".csv"))}
        assert files == plain | {"dataset.json"}
