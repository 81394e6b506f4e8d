from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sparkscore.errors import StoreUnavailableError, UsageError
from sparkscore.moving.exporting import RunExporter, every
from sparkscore.moving.exporting_models import ModelExporter
from sparkscore.moving.tally import Tally
from sparkscore.names import AliasName, ArtifactPath, ExperimentName, ModelName, RunId
from sparkscore.records import LoggedModelStatus, Metric, ModelOutput, RunStatus, VersionStatus
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryLoggedModelStore, MemoryModelStore, MemoryRunStore
from sparkscore.stores.memory.state import MemoryState
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.faults import Fault, failing
from tests.moving.mlruns_maker import write_package

MODEL = ModelName("m")
N_POINTS = 12


class Counting(MemoryRunStore):
    """Counts the points that it is sent: some servers keep each as often as it comes."""

    n_points = 0

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.n_points += len(metrics)
        super().log_batch(run_id, metrics=metrics, params=params, tags=tags)


@dataclass(frozen=True)
class Side:
    runs: RunStore
    logged_models: LoggedModelStore
    models: ModelStore

    def artifacts_at(self, uri: str) -> ArtifactStore:
        return LocalArtifactStore.at(uri)


def new_side(folder: Path) -> Side:
    state, clock = MemoryState(), ticking_clock()
    return Side(
        Counting(folder.as_uri(), clock, state),
        MemoryLoggedModelStore(state, clock),
        MemoryModelStore(clock),
    )


def faulty(side: Side, n_calls: int) -> Side:
    """The side, which goes away after some calls."""
    fault = Fault(calls_left=n_calls)
    return Side(
        failing(side.runs, fault), failing(side.logged_models, fault), failing(side.models, fault)
    )


@pytest.fixture
def ours(tmp_path: Path) -> Side:
    """An experiment of a parent and two children with a logged model; versions 1, 3 and 4."""
    side = new_side(tmp_path / "ours")
    experiment = side.runs.create_experiment(ExperimentName("e")).experiment_id
    for name, parent in (("b", "p"), ("a", "p"), ("p", "")):
        made = side.runs.create_run(
            experiment,
            run_id=RunId(name),
            run_name=name,
            user_id="ann",
            start_time_ms=1,
            tags={"mlflow.parentRunId": parent} if parent else {},
        )
        points = [Metric("loss", n / 2, n, n) for n in range(N_POINTS // 3)]
        side.runs.log_batch(RunId(name), metrics=points, params={"k": "v"})
        write_package(tmp_path / name)
        side.artifacts_at(made.artifact_uri).put(tmp_path / name, ArtifactPath("model"))
    logged = side.logged_models.create_logged_model(
        experiment, model_id="m-1", name="n", source_run_id="p"
    )
    side.artifacts_at(logged.artifact_uri).put(tmp_path / "p", ArtifactPath(""))
    side.logged_models.finish_logged_model("m-1", LoggedModelStatus.READY)
    side.runs.log_outputs(RunId("p"), [ModelOutput("m-1")])
    for name in "abp":
        side.runs.update_run(RunId(name), RunStatus.FINISHED, 9)
    side.models.create_model(MODEL, "described", {"a": "b"})
    place = side.runs.get_run(RunId("a")).artifact_uri
    sources = {1: (f"{place}/model", "a", ""), 2: ("", "", ""), 3: ("models:/m-1", "p", "m-1"),
               4: ((tmp_path / "p").as_uri(), "", "")}  # fmt: skip
    for number, (source, run_id, model_id) in sources.items():
        side.models.create_version(MODEL, source=source, run_id=run_id, model_id=model_id)
        side.models.finish_version(MODEL, number, VersionStatus.READY, digest=f"{number:064}")
    side.models.delete_version(MODEL, 2)
    side.models.set_alias(MODEL, AliasName("champion"), 3)
    return side


def export(ours: Side, theirs: Side) -> Tally:
    tally = Tally()
    runs = RunExporter(ours, theirs, tally)
    for experiment in every(ours.runs.search_experiments):
        runs.export_experiment(experiment)
    for model in every(ours.models.search_models):
        ModelExporter(ours, theirs, runs, tally).export(model)
    return tally


def check_all_is_there(theirs: Side) -> None:
    assert isinstance(theirs.runs, Counting)
    assert theirs.runs.n_points == N_POINTS
    for name in "abp":
        run = theirs.runs.get_run(RunId(name))
        assert (run.status, run.end_time_ms, run.params) == (RunStatus.FINISHED, 9, {"k": "v"})
        assert len(theirs.runs.metric_history(RunId(name), "loss")) == N_POINTS // 3
        files = theirs.artifacts_at(run.artifact_uri).list(ArtifactPath("model"))
        assert len(files) == 2
    assert theirs.runs.get_run(RunId("b")).tags["mlflow.parentRunId"] == "p"
    assert theirs.runs.get_run(RunId("p")).model_outputs == (ModelOutput("m-1"),)
    assert theirs.logged_models.get_logged_model("m-1").status is LoggedModelStatus.READY
    versions = {it.version: it for it in theirs.models.list_versions(MODEL)}
    assert sorted(versions) == [1, 3, 4]
    assert all(it.digest == f"{number:064}" for number, it in versions.items())
    assert (versions[3].source, versions[3].aliases) == ("models:/m-1", ("champion",))
    assert versions[1].source.endswith("/a/artifacts/model")
    own = theirs.runs.get_run(RunId(versions[4].run_id))
    assert versions[4].source == f"{own.artifact_uri}/models/m/4"
    assert len(theirs.artifacts_at(versions[4].source).list(ArtifactPath(""))) == 2


def test_broken_off_at_any_call_it_goes_on_and_sends_no_point_twice(
    ours: Side, tmp_path: Path
) -> None:
    n_calls = 0
    while True:
        theirs = new_side(tmp_path / f"theirs{n_calls}")
        try:
            export(ours, faulty(theirs, n_calls))
        except StoreUnavailableError:
            assert export(ours, theirs).left_out == []
            check_all_is_there(theirs)
            n_calls += 1
            continue
        break
    assert n_calls > 40, "each call was the last one once"
    tally = export(ours, theirs)
    assert (tally.new.total(), tally.there["run"], tally.left_out) == (0, 3, [])


def test_a_number_that_the_server_has_given_away_is_told(ours: Side, tmp_path: Path) -> None:
    theirs = new_side(tmp_path / "theirs")
    theirs.models.create_model(MODEL)
    theirs.models.create_version(MODEL, source="file:///other")
    (told,) = export(ours, theirs).left_out
    assert (told.kind, told.examples) == ("version number", ["m/1 is 2 there"])
    versions = {it.version: it for it in theirs.models.list_versions(MODEL)}
    assert sorted(versions) == [1, 2, 3, 4]
    assert versions[1].source == "file:///other"


def test_a_model_of_the_same_name_of_another_store_gets_further_numbers(
    ours: Side, tmp_path: Path
) -> None:
    theirs, others = new_side(tmp_path / "theirs"), new_side(tmp_path / "others")
    others.models.create_model(MODEL)
    others.models.create_version(MODEL, source=(tmp_path / "p").as_uri())
    export(ours, theirs)
    (told,) = export(others, theirs).left_out
    assert told.examples == ["m/1 is 5 there"]
    assert export(others, theirs).left_out == []
    assert [it.version for it in theirs.models.list_versions(MODEL)] == [5, 4, 3, 1]


def test_a_run_that_the_server_refuses_is_named_and_all_others_go(
    ours: Side, tmp_path: Path
) -> None:
    class Refusing(Counting):
        def log_batch(
            self,
            run_id: RunId,
            *,
            metrics: Sequence[Metric] = (),
            params: Mapping[str, str] | None = None,
            tags: Mapping[str, str] | None = None,
        ) -> None:
            if run_id == "a" and metrics:
                raise UsageError("not this one")
            super().log_batch(run_id, metrics=metrics, params=params, tags=tags)

    side = new_side(tmp_path / "theirs")
    refusing = Refusing((tmp_path / "theirs").as_uri(), ticking_clock(), MemoryState())
    theirs = replace(side, runs=refusing, models=MemoryModelStore(ticking_clock()))
    tally = Tally()
    for experiment in every(ours.runs.search_experiments):
        RunExporter(without_models(ours), theirs, tally).export_experiment(experiment)
    assert [(it.kind, it.examples, it.why) for it in tally.left_out] == [
        ("run", ["a"], "not this one")
    ]
    assert theirs.runs.get_run(RunId("b")).status is RunStatus.FINISHED
    assert theirs.runs.get_run(RunId("a")).status is RunStatus.RUNNING


def without_models(side: Side) -> Side:
    """The side without its logged model and the run of that."""
    side.runs.delete_run(RunId("p"))
    return replace(side, logged_models=MemoryLoggedModelStore(MemoryState(), ticking_clock()))
