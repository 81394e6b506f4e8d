"""What every RunStore does; an implementation's tests subclass `RunStoreContract`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from sparkscore.errors import (
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import LifecycleStage, Metric, ModelOutput, RunStatus
from sparkscore.stores.base import RunStore
from sparkscore.testing.experiment_cases import ExperimentCases
from sparkscore.testing.run_data_cases import RunDataCases
from sparkscore.testing.run_records import new_run


class RunStoreContract(ExperimentCases, RunDataCases):
    """Subclass with `implementation` and a fixture `store`: a new store with a ticking clock."""

    implementation: ClassVar[type]

    def test_a_new_run_is_running_and_has_its_place_for_artifacts(self, store: RunStore) -> None:
        run = new_run(store, tags={"mlflow.user": "ann"})
        location = store.get_experiment("0").artifact_location
        assert run.status is RunStatus.RUNNING
        assert run.end_time_ms is None
        assert run.tags == {"mlflow.user": "ann"}
        assert run.artifact_uri == f"{location}/{run.run_id}/artifacts"
        assert store.get_run(RunId(run.run_id)) == run

    def test_creating_a_run_again_returns_the_one_that_is_there(self, store: RunStore) -> None:
        run = new_run(store)
        store.log_batch(RunId(run.run_id), params={"mode": "append"})
        again = store.create_run(
            "0", run_id=RunId(run.run_id), run_name="other", user_id="bob", start_time_ms=9
        )
        assert again == store.get_run(RunId(run.run_id))
        assert again.run_name == run.run_name
        assert again.params == {"mode": "append"}

    def test_a_run_id_of_another_experiment_is_refused(self, store: RunStore) -> None:
        run = new_run(store)
        other = store.create_experiment(ExperimentName("other")).experiment_id
        with pytest.raises(RecordExistsError, match=run.run_id):
            new_run(store, experiment_id=other, run_id=run.run_id)

    def test_a_run_needs_an_experiment(self, store: RunStore) -> None:
        with pytest.raises(RecordNotFoundError, match="'7'"):
            new_run(store, experiment_id="7")

    def test_a_deleted_experiment_takes_no_run(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"))
        store.delete_experiment(created.experiment_id)
        with pytest.raises(InvalidStateError, match="deleted"):
            new_run(store, experiment_id=created.experiment_id)

    def test_an_unknown_run_is_refused_everywhere(self, store: RunStore) -> None:
        nobody = RunId("nobody")
        with pytest.raises(RecordNotFoundError, match="'nobody'"):
            store.get_run(nobody)
        with pytest.raises(RecordNotFoundError, match="'nobody'"):
            store.log_batch(nobody, tags={"a": "b"})
        with pytest.raises(RecordNotFoundError, match="'nobody'"):
            store.update_run(nobody, RunStatus.FINISHED, 1)
        with pytest.raises(RecordNotFoundError, match="'nobody'"):
            store.metric_history(nobody, "loss")
        calls: list[Callable[[], object]] = [
            lambda: store.rename_run(nobody, "other"),
            lambda: store.delete_run_tag(nobody, "a"),
            lambda: store.delete_run(nobody),
            lambda: store.restore_run(nobody),
            lambda: store.purge_run(nobody),
            lambda: store.log_inputs(nobody, model_ids=["m-1"]),
            lambda: store.log_outputs(nobody, [ModelOutput("m-1")]),
        ]
        for call in calls:
            with pytest.raises(RecordNotFoundError, match="'nobody'"):
                call()

    def test_runs_are_listed_newest_start_first(self, store: RunStore) -> None:
        other = store.create_experiment(ExperimentName("other")).experiment_id
        new_run(store, run_id="a", start_time_ms=1)
        new_run(store, run_id="b", start_time_ms=3, experiment_id=other)
        new_run(store, run_id="c", start_time_ms=2)
        assert [run.run_id for run in store.list_runs()] == ["b", "c", "a"]
        assert [run.run_id for run in store.list_runs(limit=2)] == ["b", "c"]
        assert [run.run_id for run in store.list_runs(experiment_ids=["0"])] == ["c", "a"]

    def test_runs_are_listed_by_all_of_the_tags(self, store: RunStore) -> None:
        new_run(store, run_id="a", tags={"job": "nightly", "day": "1"})
        new_run(store, run_id="b", tags={"job": "nightly", "day": "2"})
        listed = store.list_runs(tags={"job": "nightly", "day": "2"})
        assert [run.run_id for run in listed] == ["b"]

    def test_a_listed_run_is_whole(self, store: RunStore) -> None:
        run = new_run(store, tags={"a": "b"})
        store.log_batch(RunId(run.run_id), metrics=[Metric("loss", 0.5, 1)], params={"p": "q"})
        assert list(store.list_runs()) == [store.get_run(RunId(run.run_id))]

    def test_deleted_runs_are_not_listed_but_found(self, store: RunStore) -> None:
        run = new_run(store)
        store.delete_run(RunId(run.run_id))
        assert list(store.list_runs()) == []
        assert store.get_run(RunId(run.run_id)).lifecycle_stage is LifecycleStage.DELETED

    def test_a_deleted_run_takes_no_writes(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.delete_run(run_id)
        with pytest.raises(InvalidStateError, match="deleted"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1)])
        with pytest.raises(InvalidStateError, match="deleted"):
            store.update_run(run_id, RunStatus.FINISHED, 1)
        with pytest.raises(InvalidStateError, match="deleted"):
            store.rename_run(run_id, "other")
        with pytest.raises(InvalidStateError, match="deleted"):
            store.delete_run_tag(run_id, "a")
        with pytest.raises(InvalidStateError, match="deleted"):
            store.log_inputs(run_id, model_ids=["m-1"])
        with pytest.raises(InvalidStateError, match="deleted"):
            store.log_outputs(run_id, [ModelOutput("m-1")])

    def test_a_run_ends_with_status_and_time(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        ended = store.update_run(run_id, RunStatus.FINISHED, 99)
        assert (ended.status, ended.end_time_ms) == (RunStatus.FINISHED, 99)
        assert store.get_run(run_id) == ended
        assert store.update_run(run_id, RunStatus.RUNNING, None).end_time_ms is None

    def test_a_run_is_renamed_with_its_tag(self, store: RunStore) -> None:
        run_id = RunId(new_run(store, tags={"mlflow.runName": "old", "a": "b"}).run_id)
        renamed = store.rename_run(run_id, "brave-owl-7")
        assert renamed.run_name == "brave-owl-7"
        assert renamed.tags == {"mlflow.runName": "brave-owl-7", "a": "b"}
        assert store.get_run(run_id) == renamed
        with pytest.raises(UsageError, match="run name"):
            store.rename_run(run_id, "x" * 501)

    def test_a_tag_of_a_run_is_removed(self, store: RunStore) -> None:
        run_id = RunId(new_run(store, tags={"a": "1", "b": "1"}).run_id)
        store.delete_run_tag(run_id, "a")
        assert store.get_run(run_id).tags == {"b": "1"}
        with pytest.raises(RecordNotFoundError, match="No tag with name 'a'"):
            store.delete_run_tag(run_id, "a")

    def test_a_deleted_run_is_restored_as_it_was(self, store: RunStore) -> None:
        run = new_run(store, tags={"a": "1"})
        run_id = RunId(run.run_id)
        store.restore_run(run_id)
        for _ in range(2):
            store.delete_run(run_id)
        store.restore_run(run_id)
        assert store.get_run(run_id) == run
        assert list(store.list_runs()) == [run]

    def test_a_run_of_a_deleted_experiment_is_not_restored(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.delete_experiment("0")
        with pytest.raises(InvalidStateError, match="restore the experiment first"):
            store.restore_run(run_id)

    def test_a_purged_run_is_gone_with_all_that_it_had(self, store: RunStore) -> None:
        run_id = RunId(new_run(store, tags={"a": "1"}).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1)], params={"p": "1"})
        store.log_inputs(run_id, model_ids=["m-1"])
        store.log_outputs(run_id, [ModelOutput("m-1")])
        with pytest.raises(InvalidStateError, match="active"):
            store.purge_run(run_id)
        store.delete_run(run_id)
        store.purge_run(run_id)
        with pytest.raises(RecordNotFoundError):
            store.get_run(run_id)
        again = new_run(store)
        assert (again.params, again.tags, again.metrics) == ({}, {}, {})
        assert (again.model_inputs, again.model_outputs) == ((), ())
        assert list(store.metric_history(run_id, "loss")) == []
