"""The cases of RunStoreContract that are about experiments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import LifecycleStage, Metric
from sparkscore.stores.base import RunStore
from sparkscore.testing.run_records import new_run


class ExperimentCases:
    """Part of RunStoreContract."""

    def test_a_new_store_has_the_default_experiment(self, store: RunStore) -> None:
        experiment = store.get_experiment("0")
        assert experiment.name == "Default"
        assert experiment.lifecycle_stage is LifecycleStage.ACTIVE
        assert experiment.artifact_location.endswith("/0")

    def test_experiment_ids_count_up(self, store: RunStore) -> None:
        ids = [store.create_experiment(ExperimentName(name)).experiment_id for name in "ab"]
        assert ids == ["1", "2"]

    def test_a_created_experiment_is_found_by_id_and_name(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"), tags={"team": "delay"})
        assert created.tags == {"team": "delay"}
        assert created.artifact_location.endswith(f"/{created.experiment_id}")
        assert store.get_experiment(created.experiment_id) == created
        assert store.find_experiment(ExperimentName("flights")) == created

    def test_an_experiment_keeps_the_location_it_was_given(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"), "file:///elsewhere")
        assert created.artifact_location == "file:///elsewhere"

    def test_a_second_experiment_of_a_name_is_refused(self, store: RunStore) -> None:
        store.create_experiment(ExperimentName("flights"))
        with pytest.raises(RecordExistsError, match="'flights'"):
            store.create_experiment(ExperimentName("flights"))

    def test_the_name_of_a_deleted_experiment_stays_taken(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"))
        store.delete_experiment(created.experiment_id)
        with pytest.raises(RecordExistsError):
            store.create_experiment(ExperimentName("flights"))
        found = store.find_experiment(ExperimentName("flights"))
        assert found is not None
        assert found.lifecycle_stage is LifecycleStage.DELETED

    @pytest.mark.parametrize("experiment_id", ["7", "", "00", "zero", "9" * 40])
    def test_an_unknown_experiment_id_is_refused(self, store: RunStore, experiment_id: str) -> None:
        with pytest.raises(RecordNotFoundError, match="experiment"):
            store.get_experiment(experiment_id)

    def test_an_unknown_experiment_name_finds_none(self, store: RunStore) -> None:
        assert store.find_experiment(ExperimentName("nothing")) is None

    def test_experiments_are_listed_newest_first_without_deleted_ones(
        self, store: RunStore
    ) -> None:
        ids = [store.create_experiment(ExperimentName(name)).experiment_id for name in "abc"]
        store.delete_experiment(ids[1])
        listed = [experiment.experiment_id for experiment in store.list_experiments()]
        assert listed == [ids[2], ids[0], "0"]
        assert len(store.list_experiments(limit=2)) == 2

    def test_no_experiment_gets_the_id_of_one_that_is_gone(self, store: RunStore) -> None:
        last = store.create_experiment(ExperimentName("flights")).experiment_id
        store.delete_experiment(last)
        store.purge_experiment(last)
        assert store.create_experiment(ExperimentName("flights")).experiment_id != last

    def test_an_experiment_is_renamed(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"), tags={"a": "b"})
        store.rename_experiment(created.experiment_id, ExperimentName("delays"))
        renamed = store.get_experiment(created.experiment_id)
        assert (renamed.name, renamed.tags) == ("delays", {"a": "b"})
        assert renamed.last_update_time_ms > created.last_update_time_ms
        assert store.find_experiment(ExperimentName("flights")) is None
        store.rename_experiment(created.experiment_id, ExperimentName("delays"))

    def test_an_experiment_is_not_renamed_to_one_that_is_there(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"))
        with pytest.raises(RecordExistsError, match="'Default'"):
            store.rename_experiment(created.experiment_id, ExperimentName("Default"))
        assert store.get_experiment(created.experiment_id) == created

    def test_tags_of_an_experiment_are_added_replaced_and_removed(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"), tags={"a": "1", "b": "1"})
        store.set_experiment_tags(created.experiment_id, {"b": "2", "c": "x" * 20_000})
        store.delete_experiment_tag(created.experiment_id, "a")
        tags = store.get_experiment(created.experiment_id).tags
        assert tags == {"b": "2", "c": "x" * 20_000}
        with pytest.raises(RecordNotFoundError, match="No tag with name 'a'"):
            store.delete_experiment_tag(created.experiment_id, "a")
        with pytest.raises(InvalidNameError):
            store.set_experiment_tags(created.experiment_id, {"": "1"})
        with pytest.raises(UsageError, match="20001 characters"):
            store.set_experiment_tags(created.experiment_id, {"d": "x" * 20_001})

    def test_a_deleted_experiment_is_not_changed(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"), tags={"a": "1"})
        store.delete_experiment(created.experiment_id)
        changes: list[Callable[[], object]] = [
            lambda: store.rename_experiment(created.experiment_id, ExperimentName("other")),
            lambda: store.set_experiment_tags(created.experiment_id, {"a": "2"}),
            lambda: store.delete_experiment_tag(created.experiment_id, "a"),
            lambda: store.delete_experiment(created.experiment_id),
        ]
        for change in changes:
            with pytest.raises(InvalidStateError, match="deleted"):
                change()
        found = store.get_experiment(created.experiment_id)
        assert (found.name, found.tags) == ("flights", {"a": "1"})

    def test_an_unknown_experiment_is_refused_everywhere(self, store: RunStore) -> None:
        changes: list[Callable[[], object]] = [
            lambda: store.rename_experiment("7", ExperimentName("other")),
            lambda: store.set_experiment_tags("7", {"a": "2"}),
            lambda: store.delete_experiment_tag("7", "a"),
            lambda: store.delete_experiment("7"),
            lambda: store.restore_experiment("7"),
            lambda: store.purge_experiment("7"),
        ]
        for change in changes:
            with pytest.raises(RecordNotFoundError, match="'7'"):
                change()

    def test_an_experiment_comes_back_with_the_runs_that_went_with_it(
        self, store: RunStore
    ) -> None:
        for run_id in ("a", "b", "c"):
            new_run(store, run_id=run_id)
        store.delete_run(RunId("a"))
        store.delete_experiment("0")
        stages = [store.get_run(RunId(run_id)).lifecycle_stage for run_id in ("a", "b", "c")]
        assert stages == [LifecycleStage.DELETED] * 3
        store.restore_experiment("0")
        assert store.get_experiment("0").lifecycle_stage is LifecycleStage.ACTIVE
        assert {run.run_id for run in store.list_runs()} == {"b", "c"}
        with pytest.raises(InvalidStateError, match="active"):
            store.restore_experiment("0")

    def test_a_run_that_came_back_once_is_not_marked_for_good(self, store: RunStore) -> None:
        new_run(store, run_id="a")
        store.delete_experiment("0")
        store.restore_experiment("0")
        store.delete_run(RunId("a"))
        store.delete_experiment("0")
        store.restore_experiment("0")
        assert list(store.list_runs()) == []

    def test_a_purged_experiment_is_gone_with_its_runs(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"))
        new_run(store, run_id="a", experiment_id=created.experiment_id)
        store.log_batch(RunId("a"), metrics=[Metric("loss", 1.0, 1)], tags={"t": "1"})
        new_run(store, run_id="b")
        with pytest.raises(InvalidStateError, match="active"):
            store.purge_experiment(created.experiment_id)
        store.delete_experiment(created.experiment_id)
        store.purge_experiment(created.experiment_id)
        assert store.find_experiment(ExperimentName("flights")) is None
        with pytest.raises(RecordNotFoundError, match="'a'"):
            store.get_run(RunId("a"))
        assert [run.run_id for run in store.list_runs()] == ["b"]
