from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from sparkscore.errors import InvalidNameError, InvalidStateError, RecordNotFoundError, UsageError
from sparkscore.names import ArtifactPath, ExperimentName, RunId
from sparkscore.package.layout import Description, Package
from sparkscore.records import Experiment, Metric, Run, RunStatus
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryRunStore
from sparkscore.testing.clock import ticking_clock
from sparkscore.tracking import RunOrigin, Tracking, run_of


@pytest.fixture
def runs(tmp_path: Path) -> MemoryRunStore:
    return MemoryRunStore((tmp_path / "artifacts").as_uri(), ticking_clock())


@pytest.fixture
def tracking(runs: MemoryRunStore) -> Tracking:
    ids = count(1)
    return Tracking(runs, _artifacts, ticking_clock(1000), lambda: f"{next(ids):032x}")


def _artifacts(run: Run) -> LocalArtifactStore:
    return LocalArtifactStore.at(run.artifact_uri)


def test_a_run_that_succeeds_ends_finished(tracking: Tracking, runs: MemoryRunStore) -> None:
    with tracking.start_run("nightly") as run:
        assert runs.get_run(run.run_id).status is RunStatus.RUNNING
    ended = runs.get_run(run.run_id)
    assert ended.status is RunStatus.FINISHED
    assert (ended.start_time_ms, ended.end_time_ms) == (1000, 1001)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError, RunStatus.FAILED),
        (KeyboardInterrupt, RunStatus.KILLED),
        (SystemExit, RunStatus.KILLED),
    ],
)
def test_a_run_that_is_left_by_an_error_says_so_and_the_error_goes_on(
    tracking: Tracking, runs: MemoryRunStore, error: type[BaseException], status: RunStatus
) -> None:
    run = tracking.start_run("nightly")
    with pytest.raises(error) as caught, run:
        raise error
    assert runs.get_run(run.run_id).status is status
    assert run_of(caught.value) == run.run_id


def test_a_run_is_named_after_the_job_and_its_id(tracking: Tracking, runs: MemoryRunStore) -> None:
    run = tracking.start_run("nightly", run_id="abcdef0123")
    assert run.run_name == "nightly-abcdef"
    assert runs.get_run(run.run_id).tags["mlflow.runName"] == "nightly-abcdef"


def test_a_run_says_who_and_what_started_it(tracking: Tracking, runs: MemoryRunStore) -> None:
    origin = RunOrigin("ann", "jobs/score_batch.py", git_commit="1a2b")
    run = tracking.start_run("nightly", origin=origin, tags={"team": "delay"})
    kept = runs.get_run(run.run_id)
    assert kept.user_id == "ann"
    assert kept.tags == {
        "mlflow.runName": run.run_name,
        "mlflow.user": "ann",
        "mlflow.source.name": "jobs/score_batch.py",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": "1a2b",
        "team": "delay",
    }


def test_an_experiment_is_created_once(tracking: Tracking, runs: MemoryRunStore) -> None:
    first = tracking.start_run("nightly", "flights")
    second = tracking.start_run("nightly", "flights")
    ids = {runs.get_run(run.run_id).experiment_id for run in (first, second)}
    assert ids == {"1"}


def test_an_experiment_that_appears_meanwhile_is_used(tmp_path: Path) -> None:
    class RacingStore(MemoryRunStore):
        def create_experiment(
            self,
            name: ExperimentName,
            artifact_location: str | None = None,
            tags: Mapping[str, str] | None = None,
        ) -> Experiment:
            if name == "flights":
                super().create_experiment(name, artifact_location, tags)
            return super().create_experiment(name, artifact_location, tags)

    runs = RacingStore(tmp_path.as_uri(), ticking_clock())
    run = Tracking(runs, _artifacts, ticking_clock()).start_run("nightly", "flights")
    assert runs.get_run(run.run_id).experiment_id == "1"


def test_a_run_id_that_exists_is_continued(tracking: Tracking, runs: MemoryRunStore) -> None:
    with tracking.start_run("nightly", run_id="r1") as run:
        run.log_params({"a": 1})
    with tracking.start_run("nightly", run_id="r1") as run:
        run.log_params({"b": 2.5})
    assert runs.get_run(RunId("r1")).params == {"a": "1", "b": "2.5"}


def test_an_unusable_run_id_or_experiment_is_refused(tracking: Tracking) -> None:
    with pytest.raises(InvalidNameError, match="run id"):
        tracking.start_run("nightly", run_id="../up")
    with pytest.raises(InvalidNameError, match="experiment"):
        tracking.start_run("nightly", "a\nb")


def test_metrics_keep_step_and_time(tracking: Tracking, runs: MemoryRunStore) -> None:
    run = tracking.start_run("nightly")
    run.log_metric("loss", 0.5, step=3, timestamp_ms=7)
    run.log_metrics({"rows": 10, "rate": math.inf})
    kept = runs.get_run(run.run_id).metrics
    assert kept["loss"] == Metric("loss", 0.5, 7, 3)
    assert kept["rows"].timestamp_ms == kept["rate"].timestamp_ms == 1001


def test_a_step_may_be_one_of_numpy_but_no_fraction(
    tracking: Tracking, runs: MemoryRunStore
) -> None:
    run = tracking.start_run("nightly")
    for step in np.arange(3):
        run.log_metric("loss", 0.5, step=step)  # type: ignore[arg-type]
    kept = [point.step for point in runs.metric_history(run.run_id, "loss")]
    assert (kept, {type(step) for step in kept}) == ([0, 1, 2], {int})
    with pytest.raises(UsageError, match=r"step 0\.5 is no whole number"):
        run.log_metric("loss", 0.5, step=0.5)  # type: ignore[arg-type]


def test_a_call_never_takes_more_than_the_protocol_allows(tmp_path: Path) -> None:
    sizes: list[tuple[int, int, int]] = []

    class MeasuringStore(MemoryRunStore):
        def log_batch(
            self,
            run_id: RunId,
            *,
            metrics: Sequence[Metric] = (),
            params: Mapping[str, str] | None = None,
            tags: Mapping[str, str] | None = None,
        ) -> None:
            sizes.append((len(metrics), len(params or {}), len(tags or {})))
            super().log_batch(run_id, metrics=metrics, params=params, tags=tags)

    runs = MeasuringStore(tmp_path.as_uri(), ticking_clock())
    many = {f"k{number}": str(number) for number in range(201)}
    run = Tracking(runs, _artifacts, ticking_clock()).start_run("nightly", tags=many)
    run.log_points([Metric("loss", 1.0, 1, step) for step in range(2001)])
    run.log_params(many)
    run.set_tags(many)
    kept = runs.get_run(run.run_id)
    assert (len(kept.params), len(kept.tags)) == (201, 203)
    assert len(runs.metric_history(run.run_id, "loss")) == 2001
    assert max(sizes) == (1000, 0, 0)
    assert max(size[1] for size in sizes) == max(size[2] for size in sizes) == 100


def test_text_json_and_files_become_artifacts(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("plan")
    run = tracking.start_run("nightly")
    run.log_text("zwölf\r\n", "notes/a.txt")
    run.log_json({"rows": 3, "what": "ü"}, "outcome.json")
    run.log_file(tmp_path / "plan.md")
    run.log_file(tmp_path / "plan.md", "plans/first.md")
    store = LocalArtifactStore.at(run.artifact_uri)
    assert [info.path for info in store.list(ArtifactPath(""))] == [
        "notes",
        "outcome.json",
        "plan.md",
        "plans",
    ]
    text = store.get(ArtifactPath("notes/a.txt"), tmp_path / "a.txt").read_bytes()
    assert text.decode() == "zwölf\r\n"
    content = store.get(ArtifactPath("outcome.json"), tmp_path / "o.json").read_text()
    assert json.loads(content) == {"rows": 3, "what": "ü"}


def test_bad_artifacts_are_refused(tracking: Tracking, tmp_path: Path) -> None:
    run = tracking.start_run("nightly")
    with pytest.raises(InvalidNameError, match="artifact path"):
        run.log_text("x", "../up")
    with pytest.raises(RecordNotFoundError, match="nothing"):
        run.log_file(tmp_path / "nothing")


def test_a_param_never_changes(tracking: Tracking) -> None:
    run = tracking.start_run("nightly")
    run.log_params({"seed": 7})
    with pytest.raises(InvalidStateError, match="'seed'"):
        run.log_params({"seed": 8})


def test_each_model_of_a_run_has_its_folder_and_is_named_in_mlflows_tag(
    tracking: Tracking, runs: MemoryRunStore, tmp_path: Path
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    description = Description({"sklearn": {"code": None}}, model_uuid="u", utc_time_created="t")
    package = Package(tmp_path / "package", description)
    run = tracking.start_run("fit")
    assert [run.log_package(package), run.log_package(package)] == ["model", "model-2"]
    again = tracking.start_run("fit", run_id=run.run_id)
    assert [again.log_package(package), again.log_package(package, "b")] == ["model-3", "b"]
    entries = json.loads(runs.get_run(run.run_id).tags["mlflow.log-model.history"])
    assert [entry["artifact_path"] for entry in entries] == ["model", "model-2", "model-3", "b"]
    assert entries[0] == {
        "run_id": run.run_id,
        "artifact_path": "model",
        "utc_time_created": "t",
        "model_uuid": "u",
        "flavors": {"sklearn": {}},
    }
    store = LocalArtifactStore.at(run.artifact_uri)
    assert [info.path for info in store.list(ArtifactPath("model-2"))] == ["model-2/MLmodel"]
