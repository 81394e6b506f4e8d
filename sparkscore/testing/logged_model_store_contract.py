"""What every LoggedModelStore does; tests subclass `LoggedModelStoreContract`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import RunId
from sparkscore.records import LifecycleStage, LoggedModel, LoggedModelStatus, Metric
from sparkscore.stores.base import RunStore
from sparkscore.stores.models_base import LoggedModelStore
from sparkscore.testing.run_records import comparable, new_run


class LoggedModelStoreContract:
    """Subclass with `implementation` and fixtures `runs` and `store`, over the same records."""

    implementation: ClassVar[type]

    def test_a_new_model_is_pending_below_its_experiment(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        made = store.create_logged_model(
            "0",
            model_id="m-1",
            name="trees",
            model_type="sklearn",
            source_run_id="run-1",
            params={"depth": "3"},
            tags={"a": "b"},
        )
        location = runs.get_experiment("0").artifact_location
        assert made.artifact_uri == f"{location}/models/m-1/artifacts"
        assert made.status is LoggedModelStatus.PENDING
        assert (made.experiment_id, made.name, made.model_type) == ("0", "trees", "sklearn")
        assert (made.source_run_id, made.params, made.tags) == (
            "run-1",
            {"depth": "3"},
            {"a": "b"},
        )
        assert (made.lifecycle_stage, made.metrics) == (LifecycleStage.ACTIVE, ())
        assert store.get_logged_model("m-1") == made

    def test_a_model_needs_an_active_experiment(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        with pytest.raises(RecordNotFoundError, match="'7'"):
            _new_model(store, experiment_id="7")
        runs.delete_experiment("0")
        with pytest.raises(InvalidStateError, match="deleted"):
            _new_model(store)

    def test_an_id_is_taken_once(self, store: LoggedModelStore) -> None:
        _new_model(store)
        store.delete_logged_model("m-1")
        with pytest.raises(RecordExistsError, match="'m-1'"):
            _new_model(store)

    @pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b"])
    def test_an_unusable_name_is_refused(self, store: LoggedModelStore, name: str) -> None:
        with pytest.raises(InvalidNameError, match="logged model"):
            _new_model(store, name=name)

    def test_what_cannot_be_kept_whole_is_refused(self, store: LoggedModelStore) -> None:
        with pytest.raises(InvalidNameError, match="model id"):
            _new_model(store, model_id="../m")
        with pytest.raises(UsageError, match="501 characters"):
            _new_model(store, name="x" * 501)
        with pytest.raises(UsageError, match="param 'p'"):
            _new_model(store, params={"p": "x" * 6001})
        with pytest.raises(InvalidNameError):
            _new_model(store, params={"": "x"})
        _new_model(store)
        with pytest.raises(UsageError, match="tag 't'"):
            store.set_logged_model_tags("m-1", {"t": "x" * 8001})
        with pytest.raises(InvalidNameError):
            store.set_logged_model_tags("m-1", {"": "x"})
        with pytest.raises(UsageError, match="param 'p'"):
            store.log_logged_model_params("m-1", {"p": "x" * 6001})

    @pytest.mark.parametrize("status", [LoggedModelStatus.READY, LoggedModelStatus.UPLOAD_FAILED])
    def test_a_model_is_finished(self, store: LoggedModelStore, status: LoggedModelStatus) -> None:
        made = _new_model(store)
        finished = store.finish_logged_model("m-1", status)
        assert finished.status is status
        assert finished.last_update_time_ms > made.last_update_time_ms
        assert store.get_logged_model("m-1") == finished

    def test_a_model_is_not_finished_as_pending(self, store: LoggedModelStore) -> None:
        _new_model(store)
        with pytest.raises(UsageError, match="PENDING"):
            store.finish_logged_model("m-1", LoggedModelStatus.PENDING)

    def test_tags_are_added_replaced_and_removed(self, store: LoggedModelStore) -> None:
        _new_model(store)
        store.set_logged_model_tags("m-1", {"a": "1", "b": "1"})
        store.set_logged_model_tags("m-1", {"b": "2"})
        store.delete_logged_model_tag("m-1", "a")
        assert store.get_logged_model("m-1").tags == {"b": "2"}
        with pytest.raises(RecordNotFoundError, match="No tag with name 'a'"):
            store.delete_logged_model_tag("m-1", "a")

    def test_params_are_added_and_never_change(self, store: LoggedModelStore) -> None:
        _new_model(store, params={"depth": "3"})
        store.log_logged_model_params("m-1", {"depth": "3", "eta": "0.1"})
        with pytest.raises(InvalidStateError, match="'depth' is already '3'"):
            store.log_logged_model_params("m-1", {"depth": "4", "more": "1"})
        assert store.get_logged_model("m-1").params == {"depth": "3", "eta": "0.1"}

    def test_metrics_logged_with_its_id_are_the_models(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        run_id = RunId(new_run(runs).run_id)
        _new_model(store)
        _new_model(store, model_id="m-2")
        plain = Metric("auc", 0.5, 1, 1)
        points = [
            Metric("auc", 0.5, 1, 1, "m-1"),
            Metric("auc", -0.0, 1, 2, "m-1", "test", "d"),
            Metric("auc", math.nan, 1, 2, "m-1", "train", "d"),
            Metric("loss", math.inf, 0, 2**63 - 1, "m-1"),
        ]
        runs.log_batch(run_id, metrics=[plain])
        for _ in range(2):
            runs.log_batch(run_id, metrics=[*points[::-1], Metric("auc", 0.5, 1, 1, "m-2")])
        kept = store.get_logged_model("m-1").metrics
        in_order = [points[0], points[2], points[1], points[3]]
        assert [comparable(it) for it in kept] == [comparable(it) for it in in_order]
        assert [(it.model_id, it.dataset_name) for it in kept] == [
            ("m-1", ""),
            ("m-1", "train"),
            ("m-1", "test"),
            ("m-1", ""),
        ]
        assert len(store.get_logged_model("m-2").metrics) == 1
        # A point of a run is one point, for however many models it was logged.
        assert len(runs.metric_history(run_id, "auc")) == 3

    def test_metrics_of_a_model_outlive_the_run(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        run_id = RunId(new_run(runs).run_id)
        _new_model(store)
        point = Metric("auc", 0.5, 1, 1, "m-1")
        runs.log_batch(run_id, metrics=[point])
        runs.delete_run(run_id)
        runs.purge_run(run_id)
        assert store.get_logged_model("m-1").metrics == (point,)

    def test_a_deleted_model_is_found_by_who_asks_for_it(self, store: LoggedModelStore) -> None:
        _new_model(store)
        store.delete_logged_model("m-1")
        with pytest.raises(RecordNotFoundError, match="'m-1'"):
            store.get_logged_model("m-1")
        found = store.get_logged_model("m-1", allow_deleted=True)
        assert found.lifecycle_stage is LifecycleStage.DELETED

    def test_an_unknown_or_deleted_model_is_refused_everywhere(
        self, store: LoggedModelStore
    ) -> None:
        _new_model(store)
        store.delete_logged_model("m-1")
        for model_id in ("m-1", "m-9"):
            calls: list[Callable[[str], object]] = [
                store.get_logged_model,
                lambda it: store.finish_logged_model(it, LoggedModelStatus.READY),
                lambda it: store.set_logged_model_tags(it, {"a": "b"}),
                lambda it: store.delete_logged_model_tag(it, "a"),
                lambda it: store.log_logged_model_params(it, {"a": "b"}),
                store.delete_logged_model,
            ]
            for call in calls:
                with pytest.raises(RecordNotFoundError, match=model_id):
                    call(model_id)
        with pytest.raises(RecordNotFoundError, match="'m-9'"):
            store.purge_logged_model("m-9")

    def test_a_purged_model_is_gone_with_all_that_it_had(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        run_id = RunId(new_run(runs).run_id)
        _new_model(store, params={"depth": "3"})
        runs.log_batch(run_id, metrics=[Metric("auc", 0.5, 1, 1, "m-1")])
        with pytest.raises(InvalidStateError, match="active"):
            store.purge_logged_model("m-1")
        store.delete_logged_model("m-1")
        store.purge_logged_model("m-1")
        with pytest.raises(RecordNotFoundError):
            store.get_logged_model("m-1", allow_deleted=True)
        again = _new_model(store)
        assert (again.params, again.metrics) == ({}, ())
        assert len(runs.metric_history(run_id, "auc")) == 1

    def test_a_model_is_gone_with_its_experiment(
        self, runs: RunStore, store: LoggedModelStore
    ) -> None:
        _new_model(store)
        runs.delete_experiment("0")
        assert store.get_logged_model("m-1").lifecycle_stage is LifecycleStage.ACTIVE
        runs.purge_experiment("0")
        with pytest.raises(RecordNotFoundError):
            store.get_logged_model("m-1", allow_deleted=True)


def _new_model(
    store: LoggedModelStore,
    *,
    experiment_id: str = "0",
    model_id: str = "m-1",
    name: str = "trees",
    params: Mapping[str, str] | None = None,
) -> LoggedModel:
    return store.create_logged_model(experiment_id, model_id=model_id, name=name, params=params)
