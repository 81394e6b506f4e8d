"""What every RunStore does; an implementation's tests subclass `RunStoreContract`."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import LifecycleStage, Metric, Run, RunStatus
from sparkscore.stores.base import RunStore

# Each example uses a run of its own, so one store may serve all examples and all subclasses.
_SHARED_STORE = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_KEYS = st.from_regex(r"[\w\-: ][/\w\-: ]{0,60}", fullmatch=True).filter(lambda key: key.strip())
_FLOATS = st.floats(allow_nan=True, allow_infinity=True)
_INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
_POINTS = st.builds(Metric, _KEYS, _FLOATS, timestamp_ms=_INT64, step=_INT64)
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


class RunStoreContract:
    """Subclass with `implementation` and a fixture `store`: a new store with a ticking clock.

    `delete_run` and `delete_experiment` go through the back door, since the seam deletes nothing.
    """

    implementation: ClassVar[type]

    def delete_run(self, store: RunStore, run_id: RunId) -> None:
        raise NotImplementedError

    def delete_experiment(self, store: RunStore, experiment_id: str) -> None:
        raise NotImplementedError

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
        self.delete_experiment(store, created.experiment_id)
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
        self.delete_experiment(store, ids[1])
        listed = [experiment.experiment_id for experiment in store.list_experiments()]
        assert listed == [ids[2], ids[0], "0"]
        assert len(store.list_experiments(limit=2)) == 2

    def test_a_new_run_is_running_and_has_its_place_for_artifacts(self, store: RunStore) -> None:
        run = _new_run(store, tags={"mlflow.user": "ann"})
        location = store.get_experiment("0").artifact_location
        assert run.status is RunStatus.RUNNING
        assert run.end_time_ms is None
        assert run.tags == {"mlflow.user": "ann"}
        assert run.artifact_uri == f"{location}/{run.run_id}/artifacts"
        assert store.get_run(RunId(run.run_id)) == run

    def test_creating_a_run_again_returns_the_one_that_is_there(self, store: RunStore) -> None:
        run = _new_run(store)
        store.log_batch(RunId(run.run_id), params={"mode": "append"})
        again = store.create_run(
            "0", run_id=RunId(run.run_id), run_name="other", user_id="bob", start_time_ms=9
        )
        assert again == store.get_run(RunId(run.run_id))
        assert again.run_name == run.run_name
        assert again.params == {"mode": "append"}

    def test_a_run_id_of_another_experiment_is_refused(self, store: RunStore) -> None:
        run = _new_run(store)
        other = store.create_experiment(ExperimentName("other")).experiment_id
        with pytest.raises(RecordExistsError, match=run.run_id):
            _new_run(store, experiment_id=other, run_id=run.run_id)

    def test_a_run_needs_an_experiment(self, store: RunStore) -> None:
        with pytest.raises(RecordNotFoundError, match="'7'"):
            _new_run(store, experiment_id="7")

    def test_a_deleted_experiment_takes_no_run(self, store: RunStore) -> None:
        created = store.create_experiment(ExperimentName("flights"))
        self.delete_experiment(store, created.experiment_id)
        with pytest.raises(InvalidStateError, match="deleted"):
            _new_run(store, experiment_id=created.experiment_id)

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

    def test_runs_are_listed_newest_start_first(self, store: RunStore) -> None:
        other = store.create_experiment(ExperimentName("other")).experiment_id
        _new_run(store, run_id="a", start_time_ms=1)
        _new_run(store, run_id="b", start_time_ms=3, experiment_id=other)
        _new_run(store, run_id="c", start_time_ms=2)
        assert [run.run_id for run in store.list_runs()] == ["b", "c", "a"]
        assert [run.run_id for run in store.list_runs(limit=2)] == ["b", "c"]
        assert [run.run_id for run in store.list_runs(experiment_ids=["0"])] == ["c", "a"]

    def test_runs_are_listed_by_all_of_the_tags(self, store: RunStore) -> None:
        _new_run(store, run_id="a", tags={"job": "nightly", "day": "1"})
        _new_run(store, run_id="b", tags={"job": "nightly", "day": "2"})
        listed = store.list_runs(tags={"job": "nightly", "day": "2"})
        assert [run.run_id for run in listed] == ["b"]

    def test_a_listed_run_is_whole(self, store: RunStore) -> None:
        run = _new_run(store, tags={"a": "b"})
        store.log_batch(RunId(run.run_id), metrics=[Metric("loss", 0.5, 1)], params={"p": "q"})
        assert list(store.list_runs()) == [store.get_run(RunId(run.run_id))]

    def test_deleted_runs_are_not_listed_but_found(self, store: RunStore) -> None:
        run = _new_run(store)
        self.delete_run(store, RunId(run.run_id))
        assert list(store.list_runs()) == []
        assert store.get_run(RunId(run.run_id)).lifecycle_stage is LifecycleStage.DELETED

    def test_a_deleted_run_takes_no_writes(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        self.delete_run(store, run_id)
        with pytest.raises(InvalidStateError, match="deleted"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1)])
        with pytest.raises(InvalidStateError, match="deleted"):
            store.update_run(run_id, RunStatus.FINISHED, 1)

    def test_a_run_ends_with_status_and_time(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        ended = store.update_run(run_id, RunStatus.FINISHED, 99)
        assert (ended.status, ended.end_time_ms) == (RunStatus.FINISHED, 99)
        assert store.get_run(run_id) == ended
        assert store.update_run(run_id, RunStatus.RUNNING, None).end_time_ms is None

    def test_the_same_param_again_is_no_change(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        store.log_batch(run_id, params={"seed": "7", "empty": ""})
        store.log_batch(run_id, params={"seed": "7", "mode": "append"})
        assert store.get_run(run_id).params == {"seed": "7", "empty": "", "mode": "append"}

    def test_a_param_never_changes_and_nothing_else_of_the_batch_is_kept(
        self, store: RunStore
    ) -> None:
        run_id = RunId(_new_run(store).run_id)
        store.log_batch(run_id, params={"seed": "7"})
        with pytest.raises(InvalidStateError, match="'seed' is already '7'"):
            store.log_batch(
                run_id,
                params={"new": "1", "seed": "8"},
                tags={"t": "1"},
                metrics=[Metric("loss", 1.0, 1)],
            )
        run = store.get_run(run_id)
        assert (run.params, run.tags, run.metrics) == ({"seed": "7"}, {}, {})

    def test_a_tag_is_replaced(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store, tags={"a": "1", "b": "1"}).run_id)
        store.log_batch(run_id, tags={"a": "2"})
        assert store.get_run(run_id).tags == {"a": "2", "b": "1"}

    def test_a_repeated_point_is_kept_once(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        points = [Metric("loss", 0.5, 1, 1), Metric("loss", 0.5, 1, 1), Metric("loss", 0.25, 1, 1)]
        store.log_batch(run_id, metrics=points)
        store.log_batch(run_id, metrics=points)
        history = store.metric_history(run_id, "loss")
        assert [point.value for point in history] == [0.25, 0.5]

    def test_the_latest_point_is_the_last_step_whenever_it_came(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", 9.0, timestamp_ms=1, step=5)])
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, timestamp_ms=8, step=4)])
        assert store.get_run(run_id).metrics["loss"] == Metric("loss", 9.0, 1, 5)

    def test_of_one_step_the_later_then_the_higher_point_is_the_latest(
        self, store: RunStore
    ) -> None:
        run_id = RunId(_new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", math.nan, 2), Metric("loss", 5.0, 1)])
        assert math.isnan(store.get_run(run_id).metrics["loss"].value)
        store.log_batch(run_id, metrics=[Metric("loss", 4.0, 2), Metric("loss", -1.0, 2)])
        assert store.get_run(run_id).metrics["loss"].value == 4.0

    def test_an_unknown_metric_has_no_history(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        assert list(store.metric_history(run_id, "loss")) == []

    @pytest.mark.parametrize("key", ["", "a\nb", "../up", "/root", "k" * 251, "a%b", "a\0"])
    def test_an_unusable_key_is_refused(self, store: RunStore, key: str) -> None:
        run_id = RunId(_new_run(store).run_id)
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, metrics=[Metric(key, 1.0, 1)])
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, params={key: "1"})
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, tags={key: "1"})

    def test_values_at_their_limit_are_kept_whole(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        store.log_batch(run_id, params={"k" * 250: "p" * 6000}, tags={"t": "t" * 8000})
        run = store.get_run(run_id)
        assert run.params == {"k" * 250: "p" * 6000}
        assert run.tags == {"t": "t" * 8000}

    @pytest.mark.parametrize("bad", ["x" * 8001, "a\0b", "\ud800"])
    def test_values_that_cannot_be_kept_whole_are_refused(self, store: RunStore, bad: str) -> None:
        run_id = RunId(_new_run(store).run_id)
        with pytest.raises(UsageError, match="param 'p'"):
            store.log_batch(run_id, params={"p": bad})
        with pytest.raises(UsageError, match="tag 't'"):
            store.log_batch(run_id, tags={"t": bad})
        with pytest.raises(UsageError, match="run name"):
            store.create_run("0", run_id=RunId("new"), run_name=bad, user_id="", start_time_ms=1)
        assert store.get_run(run_id).params == {}

    def test_numbers_over_64_bits_are_refused(self, store: RunStore) -> None:
        run_id = RunId(_new_run(store).run_id)
        with pytest.raises(UsageError, match="step"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1, 2**63)])
        with pytest.raises(UsageError, match="timestamp"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, -(2**63) - 1)])
        with pytest.raises(UsageError, match="end time"):
            store.update_run(run_id, RunStatus.FINISHED, 2**63)

    @_SHARED_STORE
    @given(points=st.lists(_POINTS, max_size=8))
    def test_metric_points_survive(self, store: RunStore, points: list[Metric]) -> None:
        run_id = RunId(_new_run(store, run_id=uuid.uuid4().hex).run_id)
        store.log_batch(run_id, metrics=points)
        kept = [
            point
            for key in {point.key for point in points}
            for point in store.metric_history(run_id, key)
        ]
        assert {_comparable(point) for point in kept} == {_comparable(point) for point in points}

    @_SHARED_STORE
    @given(pairs=st.dictionaries(_KEYS, _TEXTS, max_size=8))
    def test_params_and_tags_survive(self, store: RunStore, pairs: dict[str, str]) -> None:
        run_id = RunId(_new_run(store, run_id=uuid.uuid4().hex).run_id)
        store.log_batch(run_id, params=pairs, tags=pairs)
        run = store.get_run(run_id)
        assert (run.params, run.tags) == (pairs, pairs)


def _new_run(
    store: RunStore,
    *,
    experiment_id: str = "0",
    run_id: str = "run-1",
    start_time_ms: int = 1,
    tags: Mapping[str, str] | None = None,
) -> Run:
    return store.create_run(
        experiment_id,
        run_id=RunId(run_id),
        run_name=f"name of {run_id}",
        user_id="ann",
        start_time_ms=start_time_ms,
        tags=tags,
    )


def _comparable(point: Metric) -> tuple[str, str, int, int]:
    # repr, since NaN is not equal to itself; + 0.0, since SQL has no negative zero.
    return point.key, repr(point.value + 0.0), point.timestamp_ms, point.step
