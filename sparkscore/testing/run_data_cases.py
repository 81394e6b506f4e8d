"""The cases of RunStoreContract that are about what is logged to runs."""

from __future__ import annotations

import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import Dataset, DatasetInput, Metric, ModelOutput, RunStatus
from sparkscore.stores.base import RunStore
from sparkscore.testing.run_records import (
    KEYS,
    POINTS,
    SHARED_STORE,
    TEXTS,
    comparable,
    new_run,
)


class RunDataCases:
    """Part of RunStoreContract."""

    def test_the_same_param_again_is_no_change(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, params={"seed": "7", "empty": ""})
        store.log_batch(run_id, params={"seed": "7", "mode": "append"})
        assert store.get_run(run_id).params == {"seed": "7", "empty": "", "mode": "append"}

    def test_a_param_never_changes_and_nothing_else_of_the_batch_is_kept(
        self, store: RunStore
    ) -> None:
        run_id = RunId(new_run(store).run_id)
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
        run_id = RunId(new_run(store, tags={"a": "1", "b": "1"}).run_id)
        store.log_batch(run_id, tags={"a": "2"})
        assert store.get_run(run_id).tags == {"a": "2", "b": "1"}

    def test_a_repeated_point_is_kept_once(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        points = [Metric("loss", 0.5, 1, 1), Metric("loss", 0.5, 1, 1), Metric("loss", 0.25, 1, 1)]
        store.log_batch(run_id, metrics=points)
        store.log_batch(run_id, metrics=points)
        history = store.metric_history(run_id, "loss")
        assert [point.value for point in history] == [0.25, 0.5]

    def test_the_latest_point_is_the_last_step_whenever_it_came(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", 9.0, timestamp_ms=1, step=5)])
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, timestamp_ms=8, step=4)])
        assert store.get_run(run_id).metrics["loss"] == Metric("loss", 9.0, 1, 5)

    def test_of_one_step_the_later_then_the_higher_point_is_the_latest(
        self, store: RunStore
    ) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", math.nan, 2), Metric("loss", 5.0, 1)])
        assert math.isnan(store.get_run(run_id).metrics["loss"].value)
        store.log_batch(run_id, metrics=[Metric("loss", 4.0, 2), Metric("loss", -1.0, 2)])
        assert store.get_run(run_id).metrics["loss"].value == 4.0

    def test_an_unknown_metric_has_no_history(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        assert list(store.metric_history(run_id, "loss")) == []

    @pytest.mark.parametrize("key", ["", "a\nb", "../up", "/root", "k" * 251, "a%b", "a\0"])
    def test_an_unusable_key_is_refused(self, store: RunStore, key: str) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, metrics=[Metric(key, 1.0, 1)])
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, params={key: "1"})
        with pytest.raises(InvalidNameError):
            store.log_batch(run_id, tags={key: "1"})

    def test_values_at_their_limit_are_kept_whole(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, params={"k" * 250: "p" * 6000}, tags={"t": "t" * 8000})
        run = store.get_run(run_id)
        assert run.params == {"k" * 250: "p" * 6000}
        assert run.tags == {"t": "t" * 8000}

    @pytest.mark.parametrize("bad", ["x" * 8001, "a\0b", "\ud800"])
    def test_values_that_cannot_be_kept_whole_are_refused(self, store: RunStore, bad: str) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(UsageError, match="param 'p'"):
            store.log_batch(run_id, params={"p": bad})
        with pytest.raises(UsageError, match="tag 't'"):
            store.log_batch(run_id, tags={"t": bad})
        with pytest.raises(UsageError, match="run name"):
            store.create_run("0", run_id=RunId("new"), run_name=bad, user_id="", start_time_ms=1)
        assert store.get_run(run_id).params == {}

    def test_numbers_over_64_bits_are_refused(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(UsageError, match="step"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1, 2**63)])
        with pytest.raises(UsageError, match="timestamp"):
            store.log_batch(run_id, metrics=[Metric("loss", 1.0, -(2**63) - 1)])
        with pytest.raises(UsageError, match="end time"):
            store.update_run(run_id, RunStatus.FINISHED, 2**63)

    @SHARED_STORE
    @given(points=st.lists(POINTS, max_size=8))
    def test_metric_points_survive(self, store: RunStore, points: list[Metric]) -> None:
        run_id = RunId(new_run(store, run_id=uuid.uuid4().hex).run_id)
        store.log_batch(run_id, metrics=points)
        kept = [
            point
            for key in {point.key for point in points}
            for point in store.metric_history(run_id, key)
        ]
        assert {comparable(point) for point in kept} == {comparable(point) for point in points}

    @SHARED_STORE
    @given(pairs=st.dictionaries(KEYS, TEXTS, max_size=8))
    def test_params_and_tags_survive(self, store: RunStore, pairs: dict[str, str]) -> None:
        run_id = RunId(new_run(store, run_id=uuid.uuid4().hex).run_id)
        store.log_batch(run_id, params=pairs, tags=pairs)
        run = store.get_run(run_id)
        assert (run.params, run.tags) == (pairs, pairs)

    def test_floats_are_kept_to_the_bit(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2.0**53 + 2, 1.7976931348623157e308]
        points = [Metric(f"m{step}", value, 1, step) for step, value in enumerate(values)]
        store.log_batch(run_id, metrics=points)
        latest = store.get_run(run_id).metrics
        for point in points:
            (kept,) = store.metric_history(run_id, point.key)
            assert comparable(kept) == comparable(point)
            assert comparable(latest[point.key]) == comparable(point)

    def test_values_of_kindred_types_go_together(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(
            run_id,
            metrics=[Metric("loss", 1, 1), Metric("loss", 0.5, 2)],
            tags={"status": RunStatus.FINISHED, "kind": "job"},
        )
        assert [point.value for point in store.metric_history(run_id, "loss")] == [1.0, 0.5]
        assert store.get_run(run_id).tags == {"status": "FINISHED", "kind": "job"}

    def test_steps_and_times_are_kept_to_the_last_bit(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        ends = [2**63 - 1, 2**53 + 1, 0, -1, -(2**63)]
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, at, at) for at in ends])
        history = store.metric_history(run_id, "loss")
        assert [(it.step, it.timestamp_ms) for it in history] == [(at, at) for at in sorted(ends)]
        assert store.get_run(run_id).metrics["loss"].step == 2**63 - 1

    def test_a_point_keeps_the_dataset_that_it_was_measured_on(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        points = [
            Metric("auc", 0.9, 1, dataset_name="test", dataset_digest="d2"),
            Metric("auc", 0.9, 1, dataset_name="train", dataset_digest="d1"),
        ]
        store.log_batch(run_id, metrics=points)
        store.log_batch(run_id, metrics=points)
        assert list(store.metric_history(run_id, "auc")) == points
        assert store.get_run(run_id).metrics["auc"] == points[0]
        with pytest.raises(UsageError, match="dataset name"):
            store.log_batch(run_id, metrics=[Metric("auc", 1.0, 1, dataset_name="x" * 501)])

    def test_a_history_is_read_by_pages(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        values = [math.nan, -math.inf, -0.0, 0.5, math.inf]
        store.log_batch(
            run_id,
            metrics=[
                *(Metric("loss", value, at, at) for at in (-1, 0, 2**63 - 1) for value in values),
                Metric("loss", math.nan, 0, 0, dataset_name="test"),
                Metric("loss", 0.5, 0, 0, dataset_name="test"),
                Metric("other", 1.0, 1),
            ],
        )
        whole = [comparable(point) for point in store.metric_history(run_id, "loss")]
        assert len(whole) == 17
        for limit in (1, 2, 5, 17, 100):
            read: list[tuple[str, str, int, int]] = []
            token = None
            while True:
                page = store.metric_history_page(run_id, "loss", limit=limit, token=token)
                assert 1 <= len(page.items) <= limit
                read.extend(comparable(point) for point in page.items)
                token = page.next_token
                if token is None:
                    break
            assert read == whole

    def test_a_page_begins_where_the_last_one_ended_though_points_came_in_between(
        self, store: RunStore
    ) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1, step) for step in (2, 4, 6)])
        first = store.metric_history_page(run_id, "loss", limit=2)
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1, step) for step in (1, 5)])
        second = store.metric_history_page(run_id, "loss", limit=9, token=first.next_token)
        assert [point.step for point in (*first.items, *second.items)] == [2, 4, 5, 6]

    def test_an_unknown_metric_has_an_empty_page(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        page = store.metric_history_page(run_id, "loss", limit=9)
        assert (page.items, page.next_token) == ((), None)
        with pytest.raises(RecordNotFoundError, match="'nobody'"):
            store.metric_history_page(RunId("nobody"), "loss", limit=9)
        with pytest.raises(UsageError, match="limit 0"):
            store.metric_history_page(run_id, "loss", limit=0)

    @pytest.mark.parametrize("token", ["", "x", "e30=", "bnVsbA==", "W10=", "\u00e9", "[" * 4000])
    def test_a_token_of_no_history_is_refused(self, store: RunStore, token: str) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(UsageError, match="page token"):
            store.metric_history_page(run_id, "loss", limit=9, token=token)

    def test_the_token_of_another_history_is_refused(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_batch(run_id, metrics=[Metric("loss", 1.0, 1, step) for step in range(2)])
        token = store.metric_history_page(run_id, "loss", limit=1).next_token
        assert token is not None
        with pytest.raises(UsageError, match="page token"):
            store.metric_history_page(run_id, "other", limit=1, token=token)

    def test_datasets_and_models_that_a_run_used_are_kept(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        train = _dataset("train", schema='{"mlflow_colspec": []}', profile='{"num_rows": 3}')
        used = [
            DatasetInput(train, {"mlflow.data.context": "training"}),
            DatasetInput(_dataset("test")),
        ]
        store.log_inputs(run_id, datasets=used, model_ids=["m-2", "m-1"])
        run = store.get_run(run_id)
        assert run.datasets == (used[1], used[0])
        assert run.model_inputs == ("m-1", "m-2")
        assert list(store.list_runs()) == [run]

    def test_a_dataset_that_a_run_has_is_kept_once_with_the_new_tags(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        for tags in ({"a": "1", "b": "1"}, {"b": "2"}, {"b": "2"}):
            store.log_inputs(
                run_id, datasets=[DatasetInput(_dataset("train"), tags)], model_ids=["m-1"]
            )
        run = store.get_run(run_id)
        assert run.datasets == (DatasetInput(_dataset("train"), {"b": "2"}),)
        assert run.model_inputs == ("m-1",)

    def test_a_dataset_is_as_its_experiment_first_saw_it(self, store: RunStore) -> None:
        other = store.create_experiment(ExperimentName("other")).experiment_id
        new_run(store, run_id="a")
        new_run(store, run_id="b")
        new_run(store, run_id="c", experiment_id=other)
        first, second = _dataset("train", schema="first"), _dataset("train", schema="second")
        for run_id, dataset in (("a", first), ("b", second), ("c", second)):
            store.log_inputs(RunId(run_id), datasets=[DatasetInput(dataset)])
        kept = [store.get_run(RunId(run_id)).datasets[0].dataset for run_id in ("a", "b", "c")]
        assert kept == [first, first, second]

    def test_inputs_that_cannot_be_kept_whole_are_refused(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(UsageError, match="dataset name"):
            store.log_inputs(run_id, datasets=[DatasetInput(_dataset("x" * 501))])
        with pytest.raises(UsageError, match="dataset schema"):
            store.log_inputs(run_id, datasets=[DatasetInput(_dataset("train", schema="a\0"))])
        with pytest.raises(UsageError, match="input tag 'k'"):
            store.log_inputs(run_id, datasets=[DatasetInput(_dataset("t"), {"k": "x" * 501})])
        with pytest.raises(InvalidNameError, match="model id"):
            store.log_inputs(run_id, model_ids=["../m"])
        assert store.get_run(run_id).datasets == ()

    def test_models_that_a_run_made_are_kept_once_at_their_last_step(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        store.log_outputs(run_id, [ModelOutput("m-1", 3), ModelOutput("m-2", 2**63 - 1)])
        again = [ModelOutput("m-1", 2), ModelOutput("m-1", 4), ModelOutput("m-0", 4)]
        store.log_outputs(run_id, again)
        outputs = (ModelOutput("m-0", 4), ModelOutput("m-1", 4), ModelOutput("m-2", 2**63 - 1))
        assert store.get_run(run_id).model_outputs == outputs
        with pytest.raises(UsageError, match="step"):
            store.log_outputs(run_id, [ModelOutput("m-1", 2**63)])
        with pytest.raises(InvalidNameError, match="model id"):
            store.log_outputs(run_id, [ModelOutput("", 1)])

    def test_a_point_of_an_unknown_model_is_refused_with_its_batch(self, store: RunStore) -> None:
        run_id = RunId(new_run(store).run_id)
        with pytest.raises(RecordNotFoundError, match="'m-9'"):
            store.log_batch(
                run_id, metrics=[Metric("auc", 1.0, 1, model_id="m-9")], tags={"a": "b"}
            )
        assert store.get_run(run_id).tags == {}


def _dataset(name: str, *, schema: str = "", profile: str = "") -> Dataset:
    return Dataset(name, f"digest of {name}", "local", '{"uri": "data.csv"}', schema, profile)
