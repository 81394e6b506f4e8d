"""Whole conversions of each library's models, over a sample in files; no Spark takes part."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sparkscore.conversion import N_TIES, Conversion, ConversionRequest, convert
from sparkscore.errors import NotConvertedError, SourceError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.names import parse_model_name
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.workspace import Workspace

N_ROWS = 500
RNG = np.random.default_rng(11)
NUMBERS = pd.DataFrame(RNG.normal(size=(N_ROWS, 3)), columns=["a", "b", "c"])
ROWS = NUMBERS.assign(town=np.array(["Ulm", "Bonn", "Kiel"])[RNG.integers(0, 3, N_ROWS)])
TARGET = np.asarray(NUMBERS["a"] + np.sin(3 * NUMBERS["b"]))
LABELS = np.array(["low", "middle", "high"])[np.digitize(TARGET, [-0.5, 0.5])]
QUIET = {"verbose": -1, "num_threads": 1}


@dataclass
class Bench:
    """A workspace, a sample of rows, and models registered as `m`."""

    folder: Path
    workspace: Workspace
    notes: list[str] = field(default_factory=list)

    def register(
        self, model: object, rows: pd.DataFrame = NUMBERS, signature: Signature | None = None
    ) -> str:
        """The URI of the model as a new version."""
        package = self.folder / "package"
        while package.exists():
            package = package.with_name(f"{package.name}_")
        save_model(model, package, signature=signature, input_example=rows)
        version = self.workspace.registry.register(package, parse_model_name("m"))
        return f"models:/m/{version.version}"

    def convert(self, uri: str, **options: object) -> Conversion:
        given = {"sample": str(self.folder / "rows.parquet"), **options}
        return convert(
            self.workspace,
            uri,
            ConversionRequest(**given),  # type: ignore[arg-type]
            self.notes.append,
        )

    @property
    def n_versions(self) -> int:
        return len(self.workspace.registry.versions(parse_model_name("m")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    ROWS.to_parquet(tmp_path / "rows.parquet")
    settings = {
        "tracking.uri": f"sqlite:///{tmp_path}/runs.db",
        "artifacts.uri": f"{tmp_path}/artifacts",
        "cache.folder": f"{tmp_path}/cache",
    }
    return Bench(tmp_path, Workspace.open(overrides=settings))


def a_forest() -> object:
    return RandomForestClassifier(10, random_state=0).fit(NUMBERS, LABELS)


def a_tree() -> object:
    return DecisionTreeClassifier(random_state=0).fit(NUMBERS, TARGET > 0)


def a_grown_classifier() -> object:
    return xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(
        NUMBERS, np.digitize(TARGET, [0, 1])
    )


@pytest.mark.parametrize("train", [a_forest, a_tree, a_grown_classifier])
def test_labels_that_are_equal_on_all_ties_are_accepted_without_tolerance(
    bench: Bench, train: Callable[[], object]
) -> None:
    done = bench.convert(bench.register(train()))
    assert (done.version.name, done.version.version) == ("m", 2)
    assert done.facts["n_rows"] == N_ROWS + N_TIES
    assert done.facts["n_ties"] == N_TIES
    assert (done.facts["n_differing"], done.facts["largest_difference"]) == (0, 0.0)


def a_booster() -> object:
    return xgboost.train({"nthread": 1}, xgboost.DMatrix(NUMBERS, TARGET), 10)


def a_booster_of_two_classes() -> object:
    settings = {"objective": "binary:logistic", "nthread": 1}
    return xgboost.train(settings, xgboost.DMatrix(NUMBERS, TARGET > 0), 10)


def a_booster_of_three_classes() -> object:
    settings = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    return xgboost.train(settings, xgboost.DMatrix(NUMBERS, np.digitize(TARGET, [0, 1])), 10)


def a_boosted_regressor() -> object:
    return GradientBoostingRegressor(n_estimators=10).fit(NUMBERS, TARGET)


@pytest.mark.parametrize(
    "train",
    [a_booster, a_booster_of_two_classes, a_booster_of_three_classes, a_boosted_regressor],
)
def test_numbers_are_accepted_only_within_the_tolerance(
    bench: Bench, train: Callable[[], object]
) -> None:
    uri = bench.register(train())
    with pytest.raises(NotConvertedError, match="and the tolerance is 0: for"):
        bench.convert(uri)
    assert bench.n_versions == 1
    done = bench.convert(uri, tolerance=1e-5)
    largest = done.facts["largest_difference"]
    assert isinstance(largest, float)
    assert 0 < largest <= 1e-5


def test_a_version_says_what_it_was_made_of_and_how_it_was_compared(bench: Bench) -> None:
    uri = bench.register(a_forest())
    done = bench.convert("models:/m/1", name=parse_model_name("fast"))
    (stored,) = bench.workspace.registry.versions(parse_model_name("fast"))
    assert stored.tags["sparkscore.converted_from"] == uri
    facts = json.loads(stored.tags["sparkscore.conversion"])
    assert facts == done.facts
    assert facts["digest"] == bench.workspace.model(uri).digest
    assert facts["sample"] == {"uri": str(bench.folder / "rows.parquet"), "version": ""}
    assert {"onnx", "onnxruntime", "skl2onnx"} <= facts["libraries"].keys()
    assert bench.n_versions == 1


def test_a_version_scores_under_the_signature_of_the_model(bench: Bench) -> None:
    model = RandomForestClassifier(10, random_state=0).fit(NUMBERS, LABELS)
    signature = infer_signature(
        NUMBERS, pd.DataFrame({"class": ["low"], "chances": [[0.1, 0.2, 0.7]]})
    )
    bench.register(model, signature=signature)
    bench.convert("models:/m/1", tolerance=1e-6)
    pinned = bench.workspace.model("models:/m/2")
    assert pinned.signature == signature
    opened = open_package(pinned.folder)
    assert set(opened.description.flavors) == {"onnx", "python_function"}
    answer = load_predictor(opened, TrustPolicy()).predict(
        record_batch(NUMBERS, column_inputs(signature))
    )
    assert isinstance(answer, dict)
    assert answer["class"].tolist() == model.predict(NUMBERS).tolist()
    np.testing.assert_allclose(answer["chances"], model.predict_proba(NUMBERS), atol=1e-6)


@pytest.mark.parametrize("name", ["label", "output_label", "probabilities"])
def test_prediction_may_be_called_as_converters_call_theirs(bench: Bench, name: str) -> None:
    signature = infer_signature(NUMBERS, pd.DataFrame({name: [True]}))
    uri = bench.register(a_tree(), signature=signature)
    assert bench.convert(uri).facts["n_differing"] == 0


def test_trees_in_double_precision_are_refused_for_their_ties(
    bench: Bench,
) -> None:
    data = lightgbm.Dataset(NUMBERS, TARGET)
    booster = lightgbm.train({**QUIET, "min_data_in_leaf": 2}, data, 20)
    uri = bench.register(booster)
    with pytest.raises(NotConvertedError, match=r"in \d+ of 20500 rows") as refused:
        bench.convert(uri, tolerance=1e-5)
    assert "Nothing was registered" in str(refused.value)
    assert bench.n_versions == 1


def test_trees_behind_other_steps_are_compared_on_ties_that_were_searched(bench: Bench) -> None:
    trees = DecisionTreeClassifier(max_depth=4, random_state=0)
    model = make_pipeline(StandardScaler(), trees).fit(NUMBERS, LABELS)
    uri = bench.register(model)
    with pytest.raises(NotConvertedError, match="in a label") as refused:
        bench.convert(uri)
    assert "(0 of them on and beside" not in str(refused.value)


def test_text_and_numbers_go_through_the_steps_of_a_pipeline(bench: Bench) -> None:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]),
        (StandardScaler(), ["a", "b"]),
        sparse_threshold=0,
    )
    model = make_pipeline(columns, LogisticRegression()).fit(ROWS, LABELS)
    done = bench.convert(bench.register(model, ROWS))
    assert (done.facts["n_rows"], done.facts["n_ties"]) == (N_ROWS, 0)
    assert done.facts["precision"] == "double"


def test_whole_numbers_booleans_and_nulls_have_ties_of_their_own(bench: Bench) -> None:
    rows = pd.DataFrame(
        {
            "n": pd.array([None, *RNG.integers(0, 50, N_ROWS - 1)], "Int64"),
            "flag": RNG.random(N_ROWS) < 0.5,
            "x": NUMBERS["a"].astype("float32"),
        }
    )
    rows.to_parquet(bench.folder / "typed.parquet")
    target = rows["n"].fillna(0).astype(float) > 25
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1)
    model.fit(rows.astype("float64"), target ^ rows["flag"])
    done = bench.convert(bench.register(model, rows), sample=str(bench.folder / "typed.parquet"))
    assert (done.facts["n_ties"], done.facts["n_differing"]) == (N_TIES, 0)


def test_columns_of_other_names_are_mapped(bench: Bench) -> None:
    ROWS.rename(columns={"a": "first"}).to_parquet(bench.folder / "other.parquet")
    uri = bench.register(a_tree())
    done = bench.convert(uri, sample=str(bench.folder / "other.parquet"), columns={"a": "first"})
    assert done.version.version == 2


def test_fewer_rows_are_drawn_if_asked(bench: Bench) -> None:
    assert bench.convert(bench.register(a_tree()), n_rows=100).facts["n_rows"] == 100 + N_TIES


def test_model_that_no_converter_knows_is_refused_in_one_line(bench: Bench) -> None:
    model = HistGradientBoostingRegressor(max_iter=3).fit(NUMBERS, TARGET)
    with pytest.raises(NotConvertedError, match="HistGradientBoostingRegressor cannot") as refused:
        bench.convert(bench.register(model))
    assert "\n" not in str(refused.value)


def test_categories_of_lightgbm_are_refused(bench: Bench) -> None:
    rows = ROWS.assign(town=ROWS["town"].astype("category"))
    booster = lightgbm.train(QUIET, lightgbm.Dataset(rows, TARGET), 3)
    with pytest.raises(NotConvertedError, match="'town' are no numbers"):
        bench.convert(bench.register(booster, ROWS))


def test_model_of_another_flavor_is_refused(bench: Bench) -> None:
    bench.register(a_tree())
    bench.convert("models:/m/1")
    with pytest.raises(NotConvertedError, match="known are sklearn, lightgbm and xgboost"):
        bench.convert("models:/m/2")


def test_folder_needs_a_name_for_its_conversion(bench: Bench) -> None:
    bench.register(a_tree())
    with pytest.raises(UsageError, match="--name"):
        bench.convert(str(bench.folder / "package"))


def test_sample_without_rows_accepts_nothing(bench: Bench) -> None:
    ROWS.head(0).astype({"town": "string"}).to_parquet(bench.folder / "none.parquet")
    with pytest.raises(SourceError, match="has no row"):
        bench.convert(bench.register(a_tree()), sample=str(bench.folder / "none.parquet"))


def test_linear_models_differ_in_last_digits(bench: Bench) -> None:
    uri = bench.register(LinearRegression().fit(NUMBERS, TARGET))
    done = bench.convert(uri, tolerance=1e-12)
    assert (done.facts["precision"], done.facts["n_ties"]) == ("double", 0)
