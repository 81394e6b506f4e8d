"""What every store's searches do; an implementation's tests subclass `SearchContract`.

Those of a store that is not the reference subclass `SearchAgreement` too.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkscore.errors import UsageError
from sparkscore.names import ExperimentName, ModelName, RunId
from sparkscore.records import Dataset, DatasetInput, LoggedModelStatus, Metric, RunStatus
from sparkscore.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    All,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Operator,
    Order,
    Page,
    Query,
    Searchable,
    ValueType,
    View,
)
from sparkscore.search import Any as AnyOf
from sparkscore.search_grammar import parse_filter, parse_order_by
from sparkscore.stores.base import RunStore
from sparkscore.stores.memory import open_memory
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.testing.clock import ticking_clock

Record = TypeVar("Record")

_SHARED_STORE = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_WORDS = ("", "a", "A", "ab", "b%", "_b", "a*b", "[a]", "é", "É", "\\", "x" * 300, "x" * 299 + "y")
_NUMBERS = (0.0, -0.0, 1.0, -1.5, 1e300, math.inf, -math.inf, math.nan, 5e-324, 2.0**53 + 2)
_PATTERNS = ("%", "a%", "%B", "_", "__", "a*b", "[a]", "b\\%", "\\", "É", "%é%", "x" * 299 + "_")
_TIMES = (-1, 0, 1, 2**53 + 1, 2**62)


_RUNS_FOUND = {
    "": ["r04", "r09", "r14", "r19", "r24"],
    "metrics.m > 1": ["r04", "r09", "r19", "r24", "r29"],
    "NOT metrics.m > 1": ["r14", "r03", "r13", "r18", "r23"],
    "metrics.m IS NULL": ["r14", "r28", "r00"],
    "metrics.n BETWEEN 1 AND 2": ["r09", "r29", "r13", "r33", "r37"],
    "params.p = 'a'": ["r34"],
    "params.p ILIKE 'A%'": ["r29", "r34", "r22", "r37", "r11"],
    "params.p LIKE 'a*b'": ["r22"],
    "tags.`u v` = '1' AND NOT tags.t IS NULL": ["r09", "r19", "r29", "r39", "r03"],
    "tags.t NOT IN ('a', 'b%')": ["r09", "r19", "r24", "r29", "r34"],
    "end_time > 0": ["r09", "r33"],
    "NOT end_time > 0": ["r04", "r14", "r19", "r24", "r29"],
    "end_time IS NULL AND status = 'FINISHED'": [],
    "dataset.name = 'd2'": ["r18", "r06", "r30"],
    "dataset.context = 'train'": ["r18", "r06", "r30"],
    "dataset.digest != 'x0'": [],
    "run_id IN ('r01', 'r02', 'nobody')": ["r02", "r01"],
    "start_time = 9007199254740993": ["r03", "r13", "r18", "r23", "r28"],
    "(params.p = 'a' OR params.p = 'A') AND user_id = 'Bob'": ["r29"],
}
_RUNS_ORDERED = {
    (): ["r04", "r09", "r14", "r19"],
    ("metrics.m",): ["r06", "r16", "r36", "r03", "r13", "r23", "r33", "r01", "r11", "r31", "r10"],
    ("metrics.m DESC",): ["r05", "r15", "r25", "r04", "r24", "r34", "r09"],
    ("params.p DESC", "start_time ASC"): ["r25", "r38", "r20", "r07", "r05", "r31"],
    ("end_time",): ["r25", "r01", "r33", "r09", "r04", "r14"],
    ("run_name DESC", "run_id DESC"): ["r39", "r32", "r25", "r18"],
}


class Stores(Protocol):
    """The record stores that belong together."""

    @property
    def runs(self) -> RunStore: ...
    @property
    def models(self) -> ModelStore: ...
    @property
    def logged_models(self) -> LoggedModelStore: ...


def fill(stores: Stores) -> None:
    """Records whose fields have all that is hard to compare, or lack it."""
    for i in range(12):
        name = ExperimentName(f"e{i}{_WORDS[i % len(_WORDS)][:20]}")
        stores.runs.create_experiment(name, tags={"t": _WORDS[i % len(_WORDS)]} if i % 3 else {})
    stores.runs.delete_experiment("3")
    for i in range(40):
        _add_run(stores.runs, i)
    for i in range(10):
        _add_model(stores.models, i)
    for i in range(14):
        _add_logged_model(stores, i)


def _add_run(runs: RunStore, i: int) -> None:
    run_id = RunId(f"r{i:02}")
    tags = {"t": _WORDS[i % len(_WORDS)], **({"u v": "1"} if i % 2 else {})}
    runs.create_run(
        "0" if i % 4 else "1",
        run_id=run_id,
        run_name=_WORDS[i % 7],
        user_id=("ann", "Bob")[i % 2],
        start_time_ms=_TIMES[i % len(_TIMES)],
        tags=tags if i % 5 else {},
    )
    params = {"p": _WORDS[(i * 5) % len(_WORDS)]} if i % 3 else {}
    points = [Metric("m", _NUMBERS[i % len(_NUMBERS)], 1, 2)] if i % 7 else []
    points += [Metric("m", 0.5, 1, 1), Metric("n", i % 4, 1)] if i % 2 else []
    runs.log_batch(run_id, params=params, metrics=points)
    if i % 6 == 0:
        dataset = Dataset(f"d{i % 4}", f"x{i % 3}", "local", "{}")
        tags = {"mlflow.data.context": "train"} if i % 12 else {}
        runs.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])
    if i % 8 == 1:
        runs.update_run(run_id, RunStatus.FINISHED, _TIMES[i % len(_TIMES)])
    if i % 9 == 8:
        runs.delete_run(run_id)


def _add_model(models: ModelStore, i: int) -> None:
    name = ModelName(f"m{i}{_WORDS[i][:3]}")
    models.create_model(name, tags={"t": _WORDS[i]} if i % 2 else {})
    for _ in range(i % 4):
        tags = {"t": _WORDS[i]} if i % 3 else {}
        models.create_version(name, source=f"s{i}", run_id=f"r{i}", tags=tags)


def _add_logged_model(stores: Stores, i: int) -> None:
    model_id = f"m-{i:02}"
    stores.logged_models.create_logged_model(
        str(i % 2),
        model_id=model_id,
        name=f"n{i % 3}",
        model_type=_WORDS[i % 3],
        params={"p": _WORDS[i % len(_WORDS)]} if i % 3 else {},
        tags={"t": _WORDS[i % 5]} if i % 2 else {},
    )
    if i % 5 == 1:
        stores.logged_models.finish_logged_model(model_id, LoggedModelStatus.READY)
    if i % 9 != 8 and i % 3:
        value, on = _NUMBERS[i % len(_NUMBERS)], ("d", "x") if i % 2 else ("", "")
        points = [Metric("m", value, 1, 3, model_id, *on), Metric("m", 1.0, 1, 1, model_id)]
        stores.runs.log_batch(RunId(f"r{i:02}"), metrics=points)
    if i == 13:
        stores.logged_models.delete_logged_model(model_id)


def _conditions(searchable: Searchable) -> st.SearchStrategy[Condition]:
    return st.recursive(
        _comparisons(searchable),
        lambda part: st.one_of(
            st.builds(Not, part),
            st.builds(All, st.lists(part, min_size=2, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(part, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=5,
    )


def _fields(searchable: Searchable) -> list[Field]:
    keys = {
        FieldKind.PARAM: ("p", "none"),
        FieldKind.METRIC: ("m", "n", "none"),
        FieldKind.TAG: ("t", "u v", "none"),
        FieldKind.DATASET: ("name", "digest", "context"),
    }
    return [
        *(Field(FieldKind.ATTRIBUTE, name) for name in searchable.attributes),
        *(Field(kind, key) for kind in sorted(searchable.kinds) for key in keys[kind]),
    ]


@st.composite
def _comparisons(draw: st.DrawFn, searchable: Searchable) -> Comparison:
    field = draw(st.sampled_from(_fields(searchable)))
    is_attribute = field.kind is FieldKind.ATTRIBUTE
    is_number = field.kind is FieldKind.METRIC or (
        is_attribute and searchable.attributes[field.key] is ValueType.NUMBER
    )
    if draw(st.integers(0, 5)) == 0:
        operator = draw(st.sampled_from([Operator.IS_NULL, Operator.IS_NOT_NULL]))
        return Comparison(field, operator, None)
    words = st.sampled_from([*_WORDS, "0", "1", "r01", "FINISHED", "train", "d0", "n1", "m1a"])
    numbers = (
        st.sampled_from([*_TIMES, 1.5, 1e23])
        if is_attribute
        else st.sampled_from([it for it in _NUMBERS if not math.isnan(it)])
    )
    values: st.SearchStrategy[Any] = numbers if is_number else words
    if draw(st.integers(0, 3)) == 0:
        operator = draw(st.sampled_from([Operator.IN, Operator.NOT_IN]))
        return Comparison(field, operator, tuple(draw(st.lists(values, min_size=1, max_size=3))))
    if not is_number and draw(st.booleans()):
        operator = draw(st.sampled_from([Operator.LIKE, Operator.ILIKE]))
        return Comparison(field, operator, draw(st.sampled_from(_PATTERNS)))
    ordered = [Operator.LESS, Operator.LESS_EQUAL, Operator.GREATER, Operator.GREATER_EQUAL]
    equal = [Operator.EQUAL, Operator.NOT_EQUAL]
    operator = draw(st.sampled_from(equal + ordered if is_number else equal))
    return Comparison(field, operator, draw(values))


@st.composite
def _queries(draw: st.DrawFn, searchable: Searchable) -> Query:
    fields = [it for it in _fields(searchable) if it.kind is not FieldKind.DATASET]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=3, unique=True))
    return Query(
        where=draw(st.none() | _conditions(searchable)),
        order=tuple(Order(field, draw(st.booleans())) for field in chosen),
        view=draw(st.sampled_from(View)),
        limit=draw(st.sampled_from([1, 3, 7, 1000])),
    )


class SearchContract:
    """Subclass with `implementation` and a fixture `stores`: new ones with a ticking clock.

    Where to fill stores takes long, override `filled`, which is only read, and `writable`.
    """

    implementation: ClassVar[type]

    @pytest.fixture
    def filled(self, stores: Stores) -> Stores:
        fill(stores)
        return stores

    @pytest.fixture
    def writable(self, filled: Stores) -> Stores:
        return filled

    @pytest.mark.parametrize(("text", "found"), list(_RUNS_FOUND.items()))
    def test_runs_are_found(self, filled: Stores, text: str, found: Sequence[str]) -> None:
        page = _runs(filled)(Query(parse_filter(text, RUNS), limit=5))
        assert [run.run_id for run in page.items] == found

    @pytest.mark.parametrize(("texts", "first"), list(_RUNS_ORDERED.items()))
    def test_runs_are_ordered(
        self, filled: Stores, texts: Sequence[str], first: Sequence[str]
    ) -> None:
        page = _runs(filled)(Query(order=parse_order_by(texts, RUNS), limit=len(first)))
        assert [run.run_id for run in page.items] == first

    def test_runs_without_a_metric_are_last_and_those_with_nan_before_them(
        self, filled: Stores
    ) -> None:
        for text in ("metrics.m ASC", "metrics.m DESC"):
            found = _all(_runs(filled), Query(order=parse_order_by([text], RUNS), limit=4))
            ids = [run.run_id for run in found]
            assert ids[-6:] == ["r07", "r27", "r37", "r14", "r28", "r00"]

    def test_a_found_run_is_whole(self, filled: Stores) -> None:
        page = _runs(filled)(Query(parse_filter("run_id = 'r18'", RUNS)))
        assert page.items == (filled.runs.get_run(RunId("r18")),)
        assert page.items[0].datasets

    def test_experiments_are_ordered_by_number(self, filled: Stores) -> None:
        query = Query(order=parse_order_by(["experiment_id"], EXPERIMENTS), view=View.ALL)
        found = filled.runs.search_experiments(query).items
        assert [it.experiment_id for it in found] == [str(i) for i in range(13)]
        deleted = filled.runs.search_experiments(Query(view=View.DELETED_ONLY)).items
        assert [it.experiment_id for it in deleted] == ["3"]

    def test_models_and_versions_are_found(self, filled: Stores) -> None:
        models = Query(parse_filter("name LIKE 'm_a%'", REGISTERED_MODELS))
        names = [it.name for it in filled.models.search_models(models).items]
        assert names == ["m1a", "m3ab", "m6a*b"]
        where = "name = 'm3ab' AND version_number >= 2"
        versions = filled.models.search_versions(Query(parse_filter(where, MODEL_VERSIONS))).items
        assert [(it.name, it.version) for it in versions] == [("m3ab", 3), ("m3ab", 2)]

    def test_a_logged_model_is_ordered_by_its_metric_on_a_dataset(self, filled: Stores) -> None:
        order = Order(Field(FieldKind.METRIC, "m"), ascending=False, dataset=("d", "x"))
        page = filled.logged_models.search_logged_models(["0", "1"], Query(order=(order,)))
        assert [model.model_id for model in page.items][:4] == ["m-05", "m-11", "m-01", "m-07"]

    def test_uses_of_datasets_are_found_once_each(self, writable: Stores) -> None:
        # A context that says nothing is none.
        unsaid = DatasetInput(Dataset("d0", "x0", "local", "{}"), {"mlflow.data.context": ""})
        writable.runs.log_inputs(RunId("r12"), datasets=[unsaid])
        found = writable.runs.search_datasets(["0", "1", "99"])
        assert [
            (experiment, it.dataset.name, it.dataset.digest, dict(it.tags))
            for experiment, it in found
        ] == [
            ("0", "d2", "x0", {"mlflow.data.context": "train"}),
            ("1", "d0", "x0", {}),
        ]
        assert list(writable.runs.search_datasets(["0", "1"], limit=1)) == list(found[:1])

    def test_what_comes_between_two_pages_doubles_and_hides_nothing(self, writable: Stores) -> None:
        query = Query(order=parse_order_by(["metrics.m DESC"], RUNS), limit=5)
        whole = [run.run_id for run in _all(_runs(writable), query)]
        first = _runs(writable)(query)
        for i, value in enumerate((math.inf, 1e200, 0.0, math.nan)):
            run_id = RunId(f"new{i}")
            writable.runs.create_run(
                "0", run_id=run_id, run_name="new", user_id="ann", start_time_ms=1
            )
            writable.runs.log_batch(run_id, metrics=[Metric("m", value, 1, 9)])
        writable.runs.delete_run(RunId(whole[2]))
        assert first.next_token is not None
        rest = _all(_runs(writable), replace(query, token=first.next_token))
        seen = [*(run.run_id for run in first.items), *(run.run_id for run in rest)]
        assert [run_id for run_id in seen if not run_id.startswith("new")] == whole

    @pytest.mark.parametrize(
        "token", ["", "x", "é", "bnVsbA==", "W10=", "eyJhIjoxfQ==", "e" * 9999]
    )
    def test_a_token_that_nobody_gave_is_refused(self, filled: Stores, token: str) -> None:
        with pytest.raises(UsageError, match="page token"):
            _runs(filled)(Query(token=token))

    @pytest.mark.parametrize("keys", [[], [[0, 1]], [[0, "x"], [0, "r"]], [[0, 1], [0, 2]]])
    def test_a_token_whose_keys_were_changed_is_refused(
        self, filled: Stores, keys: Sequence[object]
    ) -> None:
        token = _runs(filled)(Query(limit=1)).next_token
        assert token is not None
        digest, _ = json.loads(base64.urlsafe_b64decode(token))
        changed = base64.urlsafe_b64encode(json.dumps([digest, keys]).encode()).decode()
        with pytest.raises(UsageError, match="page token"):
            _runs(filled)(Query(limit=1, token=changed))

    def test_the_token_of_another_search_is_refused(self, filled: Stores) -> None:
        token = _runs(filled)(Query(limit=1)).next_token
        other = parse_filter("params.p = 'a'", RUNS)
        for query in (Query(where=other, limit=1), Query(view=View.ALL)):
            with pytest.raises(UsageError, match="page token"):
                _runs(filled)(replace(query, token=token))
        with pytest.raises(UsageError, match="page token"):
            filled.runs.search_runs(["0"], Query(token=token))
        with pytest.raises(UsageError, match="page token"):
            filled.runs.search_experiments(Query(token=token))

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_page_without_records_is_refused(self, filled: Stores, limit: int) -> None:
        with pytest.raises(UsageError, match="limit"):
            _runs(filled)(Query(limit=limit))


class SearchAgreement:
    """Subclass with a fixture `stores`: new ones with a ticking clock."""

    @pytest.fixture
    def filled(self, stores: Stores) -> Stores:
        fill(stores)
        return stores

    @pytest.fixture
    def expected(self) -> Stores:
        stores = open_memory("file:///artifacts", ticking_clock())
        fill(stores)
        return stores

    @_SHARED_STORE
    @given(query=_queries(RUNS), ids=st.sampled_from([("0",), ("0", "1"), ("1", "99"), ()]))
    def test_runs_are_found_as_the_reference_finds_them(
        self, filled: Stores, expected: Stores, query: Query, ids: Sequence[str]
    ) -> None:
        def found(stores: Stores) -> list[str]:
            runs = _all(lambda q: stores.runs.search_runs(ids, q), query)
            return [run.run_id for run in runs]

        assert found(filled) == found(expected)

    @_SHARED_STORE
    @given(query=_queries(EXPERIMENTS))
    def test_experiments_are_found_as_the_reference_finds_them(
        self, filled: Stores, expected: Stores, query: Query
    ) -> None:
        assert _all(filled.runs.search_experiments, query) == _all(
            expected.runs.search_experiments, query
        )

    @_SHARED_STORE
    @given(query=_queries(REGISTERED_MODELS))
    def test_models_are_found_as_the_reference_finds_them(
        self, filled: Stores, expected: Stores, query: Query
    ) -> None:
        assert _all(filled.models.search_models, query) == _all(
            expected.models.search_models, query
        )

    @_SHARED_STORE
    @given(query=_queries(MODEL_VERSIONS))
    def test_versions_are_found_as_the_reference_finds_them(
        self, filled: Stores, expected: Stores, query: Query
    ) -> None:
        assert _all(filled.models.search_versions, query) == _all(
            expected.models.search_versions, query
        )

    @_SHARED_STORE
    @given(
        query=_queries(LOGGED_MODELS),
        datasets=st.sampled_from([(), (("d", ""),), (("d", "x"), ("e", ""))]),
    )
    def test_logged_models_are_found_as_the_reference_finds_them(
        self,
        filled: Stores,
        expected: Stores,
        query: Query,
        datasets: Sequence[tuple[str, str]],
    ) -> None:
        def ids(stores: Stores) -> list[str]:
            search = stores.logged_models.search_logged_models
            found = _all(lambda q: search(["0", "1"], q, datasets=datasets), query)
            return [model.model_id for model in found]

        assert ids(filled) == ids(expected)


def _runs(stores: Stores) -> Callable[[Query], Page[Any]]:
    return lambda query: stores.runs.search_runs(["0", "1"], query)


def _all(search: Callable[[Query], Page[Record]], query: Query) -> list[Record]:
    """The records of all pages, none of which is larger than asked for or empty but the last."""
    found: list[Record] = []
    while True:
        page = search(query)
        assert len(page.items) <= query.limit
        found.extend(page.items)
        if page.next_token is None:
            return found
        assert len(page.items) == query.limit
        query = replace(query, token=page.next_token)
