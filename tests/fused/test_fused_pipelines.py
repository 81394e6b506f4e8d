"""scikit-learn's own predictions, to the bit, from pipelines whose steps are fused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeRegressor

from sparkscore.flavors.base import Predictor
from sparkscore.flavors.frames import pandas_frame
from sparkscore.flavors.fused_sklearn import fuse
from sparkscore.flavors.sklearn_answers import MethodAnswer
from sparkscore.fused.levels import noting_levels
from sparkscore.fused.refusals import NotFusedError
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.package.signature import arrow_schema

Estimator = Any
"""scikit-learn has no types."""

PREDICT = MethodAnswer("predict")
N_TRAINING_ROWS = 300
SCHEMA = ColumnSchema(
    (
        ColumnSpec("d0", ScalarType.DOUBLE, required=False),
        ColumnSpec("d1", ScalarType.DOUBLE, required=False),
        ColumnSpec("full", ScalarType.DOUBLE),
        ColumnSpec("f0", ScalarType.FLOAT, required=False),
        ColumnSpec("f1", ScalarType.FLOAT),
        ColumnSpec("i0", ScalarType.INTEGER),
        ColumnSpec("l0", ScalarType.LONG),
        ColumnSpec("l1", ScalarType.LONG, required=False),
        ColumnSpec("b0", ScalarType.BOOLEAN),
        ColumnSpec("s0", ScalarType.STRING, required=False),
        ColumnSpec("s1", ScalarType.STRING, required=False),
        ColumnSpec("s2", ScalarType.STRING),
    )
)
TEXTS = ["s0", "s1", "s2"]
NUMBERS = [name for name in SCHEMA.names if name not in TEXTS]
FULL_NUMBERS = ["full", "f1", "i0", "l0"]
TOWNS = ["Ulm", "Bonn", "Kiel", "", "a'b", "Köln", "rare"]


def table(seed: int, n_rows: int, *, is_new: bool = False) -> pa.RecordBatch:
    """Rows of SCHEMA; new ones also have categories and sizes that were not seen in training."""
    rng = np.random.default_rng(seed)
    towns = np.array([*TOWNS[:-1] * 5, "rare", *(["unseen"] if is_new else [])], dtype=object)
    values: dict[str, Any] = {}
    for field in arrow_schema(SCHEMA):
        if pa.types.is_string(field.type):
            column = rng.choice(towns, n_rows)
        elif pa.types.is_boolean(field.type):
            column = rng.random(n_rows) < 0.5
        elif pa.types.is_integer(field.type):
            column = rng.integers(0, 6 + is_new, n_rows)
        else:
            column = rng.normal(3.0, 2.0, n_rows) * 10.0 ** rng.integers(-3, 3 + 4 * is_new, n_rows)
        empty = rng.random(n_rows) < 0.15 if field.nullable else np.zeros(n_rows, bool)
        values[field.name] = pa.array(column, mask=empty).cast(field.type)
    return pa.RecordBatch.from_pydict(values, schema=arrow_schema(SCHEMA))


TRAINING = table(0, N_TRAINING_ROWS)
TARGET = np.nan_to_num(TRAINING["full"].to_numpy()) + TRAINING["l0"].to_numpy()


class Native:
    """The model itself, given the frames that the flavor makes."""

    def __init__(self, model: Estimator, predict_fn: str = "predict") -> None:
        self.model = model
        self.predict_fn = predict_fn

    def predict(self, batch: pa.RecordBatch) -> object:
        return getattr(self.model, self.predict_fn)(pandas_frame(batch, SCHEMA))


def fitted(model: Estimator) -> Estimator:
    frame = pandas_frame(TRAINING, SCHEMA)
    target: np.ndarray = TARGET
    if hasattr(model[-1], "classes_") or "Classifier" in type(model[-1]).__name__:
        target = np.array(["low", "high"])[(TARGET > 3).astype(int)]
    if isinstance(model[-1], LogisticRegression):
        target = np.digitize(TARGET, [1.0, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some do not converge, which is all the same here.
        return model.fit(frame, target)


def outcome(predictor: Predictor, batch: pa.RecordBatch) -> tuple[object, ...]:
    """What comes out: all of an answer's bits, or the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of unknown categories.
        try:
            answer = predictor.predict(batch)
        except (ValueError, TypeError) as exc:
            return (type(exc), str(exc))
    assert isinstance(answer, np.ndarray)
    values = answer.tolist() if answer.dtype == object else answer.tobytes()
    return (answer.dtype, answer.shape, values)


def assert_equal_bits(model: Estimator, predict_fn: str = "predict") -> None:
    native = Native(model, predict_fn)
    fused = fuse(model, MethodAnswer(predict_fn), SCHEMA, native)
    for seed, n_rows in enumerate((1, 2, 3, 64, 1000, 5000)):
        for is_new in (False, True):
            batch = table(seed + 10, n_rows, is_new=is_new)
            assert outcome(fused, batch) == outcome(native, batch)


def columns(*parts: tuple[Estimator, list[str]], **options: Any) -> ColumnTransformer:  # noqa: ANN401
    named = [(f"part{i}", step, names) for i, (step, names) in enumerate(parts)]
    return ColumnTransformer(named, **options)


def imputed() -> Estimator:
    return make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())


def one_hot(**options: Any) -> OneHotEncoder:  # noqa: ANN401
    return OneHotEncoder(**{"handle_unknown": "ignore", "sparse_output": False, **options})


def ordinal(**options: Any) -> OrdinalEncoder:  # noqa: ANN401
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, **options)


FUSED: dict[str, Callable[[], Estimator]] = {
    "imputer and scaler": lambda: [columns((imputed(), NUMBERS)), LinearRegression()],
    "singles stay singles": lambda: [columns((imputed(), ["f0", "f1"])), Ridge()],
    "min and max": lambda: [
        columns((make_pipeline(SimpleImputer(), MinMaxScaler(clip=True)), NUMBERS)),
        Lasso(alpha=0.01),
    ],
    "largest": lambda: [columns((MaxAbsScaler(), FULL_NUMBERS)), LinearRegression()],
    "robust": lambda: [columns((RobustScaler(), FULL_NUMBERS)), SGDRegressor(max_iter=5)],
    "one-hot": lambda: [columns((one_hot(), TEXTS), (imputed(), NUMBERS)), LinearRegression()],
    "one-hot, sparse": lambda: [
        columns((one_hot(sparse_output=True), TEXTS), (imputed(), ["d0"])),
        LogisticRegression(max_iter=20),
    ],
    "one-hot, all sparse": lambda: [
        columns((one_hot(sparse_output=True), TEXTS), sparse_threshold=1.0),
        LinearRegression(),
    ],
    "one-hot, rare ones together": lambda: [
        columns((one_hot(min_frequency=20, handle_unknown="infrequent_if_exist"), TEXTS)),
        LogisticRegression(max_iter=20),
    ],
    "one-hot, first ones dropped": lambda: [
        columns((one_hot(drop="first"), TEXTS), (one_hot(drop="if_binary"), ["b0"])),
        LinearRegression(),
    ],
    "one-hot, unknown ones refused": lambda: [
        columns((one_hot(handle_unknown="error"), ["s2"])),
        LinearRegression(),
    ],
    "one-hot of numbers": lambda: [
        columns((one_hot(), ["i0", "l0", "b0"]), (one_hot(), ["l1", "d0"])),
        LinearRegression(),
    ],
    "ordinal": lambda: [
        columns((ordinal(encoded_missing_value=-2), TEXTS), (imputed(), NUMBERS)),
        HistGradientBoostingClassifier(max_iter=3),
    ],
    "text imputed": lambda: [
        columns(
            (
                make_pipeline(
                    SimpleImputer(missing_values=None, strategy="constant", fill_value="Ulm"),
                    one_hot(),
                    StandardScaler(),
                ),
                TEXTS,
            ),
            (SimpleImputer(strategy="most_frequent"), ["d0", "l1"]),
        ),
        SGDClassifier(max_iter=5, loss="log_loss"),
    ],
    "remainder passes": lambda: [
        columns(
            (ordinal(), TEXTS), (imputed(), ["d0", "d1", "f0", "l1", "b0"]), remainder="passthrough"
        ),
        DecisionTreeRegressor(max_depth=4),
    ],
    "part dropped": lambda: [
        columns(("drop", ["d0"]), (FunctionTransformer(), FULL_NUMBERS)),
        LinearRegression(),
    ],
    "objects pass": lambda: [
        columns(("passthrough", ["full", "b0", "f1", "l0"]), (one_hot(), ["s2"])),
        LinearRegression(),
    ],
    "unknown ones refused by the estimator": lambda: [
        columns(
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
                ["s2"],
            ),
        ),
        LinearRegression(),
    ],
    "booleans pass": lambda: [columns(("passthrough", ["b0"])), LinearRegression()],
    "nested": lambda: [
        columns((make_pipeline(columns((imputed(), ["d0", "d1"])), MinMaxScaler()), NUMBERS)),
        StandardScaler(),
        make_pipeline(RobustScaler(), LinearRegression()),
    ],
    "missing values reach the trees": lambda: [
        columns((StandardScaler(), ["d0", "d1", "l1"])),
        RandomForestRegressor(3),
    ],
}


@pytest.mark.parametrize("name", FUSED)
def test_pipeline_of_known_steps_is_fused_and_answers_equal_bits(name: str) -> None:
    assert_equal_bits(fitted(make_pipeline(*FUSED[name]())))


@pytest.mark.parametrize("predict_fn", ["predict_proba", "decision_function", "predict_log_proba"])
@pytest.mark.parametrize("name", ["one-hot, sparse", "one-hot, rare ones together"])
def test_every_answer_of_a_classifier_is_equal(name: str, predict_fn: str) -> None:
    assert_equal_bits(fitted(make_pipeline(*FUSED[name]())), predict_fn)


def test_values_that_an_encoder_was_not_fitted_on_are_noted() -> None:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    steps = columns((OneHotEncoder(handle_unknown="ignore"), ["s2"]), (encoder, ["i0"]))
    model = fitted(make_pipeline(steps, LinearRegression()))
    fused = fuse(model, MethodAnswer("predict"), SCHEMA, Native(model))
    rows = table(1, 500, is_new=True)
    with noting_levels() as noted:
        fused.predict(TRAINING)
        assert not noted
        fused.predict(rows)
    words, sizes = np.array(rows["s2"].to_pylist()), rows["i0"].to_numpy()
    assert noted == {
        "s2": ((words == "unseen").sum(), "'unseen'"),
        "i0": ((sizes == 6).sum(), "6"),
    }


def test_nullable_numbers_pass_as_they_do_in_the_pipeline_or_are_refused_alike() -> None:
    model = make_pipeline(
        columns(("passthrough", ["l1"]), (StandardScaler(), ["full"])),
        RobustScaler(),
        LinearRegression(),
    )
    frame = pandas_frame(TRAINING, SCHEMA)
    assert_equal_bits(model.fit(frame.assign(l1=frame["l1"].fillna(0)), TARGET))


def test_infinite_number_is_refused_in_the_pipelines_own_words() -> None:
    model = fitted(make_pipeline(columns((imputed(), ["d0"])), LinearRegression()))
    native = Native(model)
    batch = table(1, 5)
    batch = batch.set_column(0, SCHEMA.names[0], pa.array([1.0, np.inf, None, 2.0, 3.0]))
    got = outcome(fuse(model, PREDICT, SCHEMA, native), batch)
    assert got == outcome(native, batch)
    assert "infinity" in str(got[1])


def test_missing_number_is_refused_in_the_estimators_own_words() -> None:
    model = fitted(make_pipeline(columns((StandardScaler(), ["full"])), LinearRegression()))
    native = Native(model)
    batch = table(1, 3)
    batch = batch.set_column(2, pa.field("full", pa.float64()), pa.array([1.0, None, 2.0]))
    got = outcome(fuse(model, PREDICT, SCHEMA, native), batch)
    assert got == outcome(native, batch)
    assert "NaN" in str(got[1])


class OwnScaler(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
    """A subclass may do anything."""


REFUSED: dict[str, tuple[Callable[[], list[Estimator]], str]] = {
    "step of another kind": (
        lambda: [columns((KNNImputer(), ["d0", "d1"])), LinearRegression()],
        "the step KNNImputer is not known",
    ),
    "subclass": (
        lambda: [columns((OwnScaler(), FULL_NUMBERS)), LinearRegression()],
        "the step OwnScaler is not known",
    ),
    "function": (
        lambda: [columns((FunctionTransformer(np.abs), FULL_NUMBERS)), LinearRegression()],
        "a FunctionTransformer calls a function",
    ),
    "frames between steps": (
        lambda: [
            columns((StandardScaler(), FULL_NUMBERS)).set_output(transform="pandas"),
            LinearRegression(),
        ],
        "the step ColumnTransformer has pandas for output",
    ),
    "weights": (
        lambda: [
            columns((StandardScaler(), FULL_NUMBERS), transformer_weights={"part0": 0.5}),
            LinearRegression(),
        ],
        "a column transformer weighs its columns",
    ),
    "sparse matrix scaled": (
        lambda: [
            columns((one_hot(sparse_output=True), TEXTS), sparse_threshold=1.0),
            StandardScaler(with_mean=False),
            LinearRegression(),
        ],
        "the step StandardScaler is given a sparse matrix",
    ),
    "another value for missing": (
        lambda: [columns((SimpleImputer(missing_values=0), ["i0"])), LinearRegression()],
        "an imputer takes 0 for missing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    steps, reason = REFUSED[name]
    model = fitted(make_pipeline(*steps()))
    with pytest.raises(NotFusedError, match=reason):
        fuse(model, PREDICT, SCHEMA, Native(model))


def test_fused_pipeline_that_was_changed_is_seen_to_differ() -> None:
    model = fitted(make_pipeline(columns((StandardScaler(), FULL_NUMBERS)), LinearRegression()))
    other = fitted(make_pipeline(columns((StandardScaler(), FULL_NUMBERS)), LinearRegression()))
    other[-1].intercept_ = np.nextafter(other[-1].intercept_, np.inf)
    with pytest.raises(NotFusedError, match="its answer was seen to differ"):
        fuse(model, PREDICT, SCHEMA, Native(other))


def fused_or_reason(model: Estimator, native: Predictor) -> tuple[Predictor | None, str]:
    try:
        return fuse(model, PREDICT, SCHEMA, native), "fused"
    except NotFusedError as exc:
        return None, str(exc)


SCALERS = st.one_of(
    st.builds(StandardScaler, with_mean=st.booleans(), with_std=st.booleans()),
    st.builds(MinMaxScaler, clip=st.booleans()),
    st.builds(MaxAbsScaler),
    st.builds(RobustScaler, with_centering=st.booleans(), with_scaling=st.booleans()),
    st.builds(FunctionTransformer),
)
IMPUTERS = st.one_of(
    st.builds(
        SimpleImputer,
        strategy=st.sampled_from(["mean", "median", "most_frequent"]),
        add_indicator=st.booleans(),
        keep_empty_features=st.booleans(),
    ),
    st.builds(SimpleImputer, strategy=st.just("constant"), fill_value=st.just(-1)),
)
TEXT_IMPUTERS = st.builds(
    SimpleImputer,
    missing_values=st.sampled_from([None, np.nan, pd.NA]),
    strategy=st.just("most_frequent"),
)
ENCODERS = st.one_of(
    st.builds(
        OneHotEncoder,
        handle_unknown=st.sampled_from(["ignore", "error", "infrequent_if_exist"]),
        drop=st.sampled_from([None, None, "first", "if_binary"]),
        min_frequency=st.sampled_from([None, 20, 0.1]),
        sparse_output=st.booleans(),
    ),
    st.builds(
        OrdinalEncoder,
        handle_unknown=st.just("use_encoded_value"),
        unknown_value=st.sampled_from([-1, np.nan, 99]),
        encoded_missing_value=st.sampled_from([-2, np.nan]),
        min_frequency=st.sampled_from([None, 20]),
    ),
)
HEADS = st.sampled_from(
    [LinearRegression, Ridge, LogisticRegression, SGDClassifier, DecisionTreeRegressor]
)


@st.composite
def parts(draw: st.DrawFn) -> tuple[Estimator, list[str]]:
    """One part of a column transformer, and its columns in any order."""
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, unique=True))
        steps = draw(st.lists(st.one_of(IMPUTERS, SCALERS), min_size=1, max_size=3))
        return make_pipeline(*steps), names
    names = draw(st.lists(st.sampled_from([*TEXTS, *TEXTS, "i0", "l0"]), min_size=1, unique=True))
    steps = [*draw(st.lists(TEXT_IMPUTERS, max_size=1)), draw(ENCODERS)]
    return make_pipeline(*steps, *draw(st.lists(SCALERS, max_size=1))), names


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    transformer = columns(
        *draw(st.lists(parts(), min_size=1, max_size=3)),
        remainder=draw(st.sampled_from(["drop", "drop", "passthrough"])),
        sparse_threshold=draw(st.sampled_from([0, 0.3, 1.0])),
    )
    return make_pipeline(transformer, *draw(st.lists(SCALERS, max_size=1)), draw(HEADS)())


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=pipelines(), seed=st.integers(0, 1000), n_rows=st.integers(1, 300))
def test_any_pipeline_answers_equal_bits_or_is_refused(
    model: Pipeline, seed: int, n_rows: int
) -> None:
    try:
        fitted(model)
    except (ValueError, TypeError):
        assume(False)
    native = Native(model)
    fused, reason = fused_or_reason(model, native)
    event(reason[:60])
    # What is thought to be understood must be; the look at probe rows is for what is to come.
    assert "seen to differ" not in reason
    assert "another form" not in reason
    if fused is None:
        return
    for is_new in (False, True):
        batch = table(seed, n_rows, is_new=is_new)
        assert outcome(fused, batch) == outcome(native, batch)
