"""What every PurgeStore does; tests subclass `PurgeStoreContract`."""

from __future__ import annotations

from typing import ClassVar

import pytest

from sparkscore.errors import InvalidStateError
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import Dataset, DatasetInput, Metric, ModelOutput, RecordKind
from sparkscore.stores.base import RunStore
from sparkscore.stores.models_base import LoggedModelStore
from sparkscore.stores.purges_base import PurgeStore

_EVER = 2**62


class PurgeStoreContract:
    """Subclass with `implementation` and fixtures `runs`, `logged_models` and `store`.

    All three are of the same records.
    """

    implementation: ClassVar[type]

    def test_only_what_was_deleted_is_listed_with_all_its_rows(
        self, runs: RunStore, store: PurgeStore
    ) -> None:
        _new_run(runs, "0", "used")
        run = _new_run(runs, "0", "gone")
        points = [Metric("loss", 0.5, 1, step) for step in range(3)]
        runs.log_batch(run, metrics=points, params={"a": "1", "b": "2"}, tags={"t": "v"})
        used = DatasetInput(Dataset("d", "1", "local", "{}"), {"context": "train"})
        runs.log_inputs(run, datasets=[used], model_ids=["m-1"])
        runs.log_outputs(run, [ModelOutput("m-2")])
        assert store.list_deleted(_EVER) == []
        runs.delete_run(run)
        [found] = store.list_deleted(_EVER)
        assert (found.kind, found.record_id, found.experiment_id) == (RecordKind.RUN, run, "0")
        assert found.artifact_uri == runs.get_run(run).artifact_uri
        # Itself, params, tag, points, their latest, dataset with a tag, a model each way.
        assert found.n_rows == 1 + 2 + 1 + 3 + 1 + 2 + 2

    def test_age_counts_from_the_deletion_and_a_restored_run_is_not_listed(
        self, runs: RunStore, store: PurgeStore
    ) -> None:
        first, second = _new_run(runs, "0", "first"), _new_run(runs, "0", "second")
        runs.delete_run(second)
        runs.delete_run(first)
        listed = store.list_deleted(_EVER)
        assert [it.record_id for it in listed] == [second, first]
        runs.delete_run(second)
        assert store.list_deleted(_EVER) == listed
        earlier = listed[0].deletion_time_ms
        assert [it.record_id for it in store.list_deleted(earlier)] == [second]
        assert store.list_deleted(earlier - 1) == []
        runs.restore_run(second)
        assert [it.record_id for it in store.list_deleted(_EVER)] == [first]

    def test_what_an_experiment_holds_is_deleted_with_it(
        self, runs: RunStore, logged_models: LoggedModelStore, store: PurgeStore
    ) -> None:
        experiment_id = _new_experiment(runs)
        _new_run(runs, experiment_id, "r")
        logged_models.create_logged_model(
            experiment_id, model_id="m-1", name="m", params={"a": "1"}, tags={"b": "2"}
        )
        runs.delete_experiment(experiment_id)
        found = store.list_deleted(_EVER)
        assert [it.kind for it in found] == list(RecordKind)
        assert [it.record_id for it in found] == ["r", "m-1", experiment_id]
        assert {it.deletion_time_ms for it in found} == {
            runs.get_experiment(experiment_id).last_update_time_ms
        }
        # The experiment has a tag, and no dataset.
        assert [it.n_rows for it in found] == [1, 3, 2]
        runs.restore_experiment(experiment_id)
        assert store.list_deleted(_EVER) == []

    def test_a_logged_model_that_was_deleted_alone_is_listed(
        self, logged_models: LoggedModelStore, store: PurgeStore
    ) -> None:
        logged_models.create_logged_model("0", model_id="m-1", name="m")
        logged_models.delete_logged_model("m-1")
        model = logged_models.get_logged_model("m-1", allow_deleted=True)
        [found] = store.list_deleted(_EVER)
        assert (found.kind, found.record_id) == (RecordKind.LOGGED_MODEL, "m-1")
        assert found.deletion_time_ms == model.last_update_time_ms
        assert found.artifact_uri == model.artifact_uri

    def test_a_purge_notes_the_files_until_they_are_said_to_be_gone(
        self, runs: RunStore, logged_models: LoggedModelStore, store: PurgeStore
    ) -> None:
        run = _new_run(runs, "0", "r")
        place = runs.get_run(run).artifact_uri
        runs.delete_run(run)
        assert store.list_removals() == []
        runs.purge_run(run)
        model = logged_models.create_logged_model("0", model_id="m-1", name="m")
        logged_models.delete_logged_model("m-1")
        logged_models.purge_logged_model("m-1")
        noted = store.list_removals()
        assert [(it.record_id, it.artifact_uri) for it in noted] == [
            (run, place),
            ("m-1", model.artifact_uri),
        ]
        for _ in range(2):
            store.forget_removal(noted[0].removal_id)
            assert store.list_removals() == noted[1:]

    def test_an_experiments_purge_notes_the_files_of_all_that_it_held(
        self, runs: RunStore, logged_models: LoggedModelStore, store: PurgeStore
    ) -> None:
        experiment_id = _new_experiment(runs)
        for name in ("a", "b"):
            _new_run(runs, experiment_id, name)
        logged_models.create_logged_model(experiment_id, model_id="m-1", name="m")
        runs.delete_experiment(experiment_id)
        runs.purge_experiment(experiment_id)
        assert [it.record_id for it in store.list_removals()] == ["a", "b", "m-1"]

    def test_a_model_of_a_deleted_experiment_can_be_purged_and_an_active_one_not(
        self, runs: RunStore, logged_models: LoggedModelStore, store: PurgeStore
    ) -> None:
        experiment_id = _new_experiment(runs)
        logged_models.create_logged_model(experiment_id, model_id="m-1", name="m")
        with pytest.raises(InvalidStateError, match="m-1"):
            logged_models.purge_logged_model("m-1")
        assert store.list_removals() == []
        runs.delete_experiment(experiment_id)
        logged_models.purge_logged_model("m-1")
        assert [it.record_id for it in store.list_removals()] == ["m-1"]


def _new_run(runs: RunStore, experiment_id: str, name: str) -> RunId:
    run_id = RunId(name)
    runs.create_run(experiment_id, run_id=run_id, run_name=name, user_id="ann", start_time_ms=1)
    return run_id


def _new_experiment(runs: RunStore) -> str:
    return runs.create_experiment(ExperimentName("flights"), tags={"team": "delay"}).experiment_id
