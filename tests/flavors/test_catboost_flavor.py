from __future__ import annotations

from pathlib import Path

import catboost
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from sparkscore.errors import PackageFormatError, UntrustedCodeError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, open_package
from sparkscore.package.signature import infer_signature
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

ROWS = pd.DataFrame({"x": [1.0, 2.0, np.nan, 4.0] * 20, "y": [0.5, 0.25, 7.0, 1.0] * 20})
TARGET = np.arange(80.0)
SMALL: dict[str, object] = {
    "iterations": 5,
    "depth": 3,
    "thread_count": 1,
    "verbose": 0,
    "allow_writing_files": False,
}


class TestRegressor(FlavorContract):
    flavor = "catboost"

    def model(self) -> object:
        return catboost.CatBoostRegressor(**SMALL).fit(ROWS, TARGET)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestModelOfNoTask(TestRegressor):
    def model(self) -> object:
        return catboost.CatBoost({**SMALL, "loss_function": "Logloss"}).fit(ROWS, TARGET > 30)


class TestRegressorThatAnswersExponents(TestRegressor):
    def model(self) -> object:
        return catboost.CatBoostRegressor(loss_function="Poisson", **SMALL).fit(ROWS, TARGET)


class TestRegressorOfSeveralTargets(TestRegressor):
    def model(self) -> object:
        model = catboost.CatBoostRegressor(loss_function="MultiRMSE", **SMALL)
        return model.fit(ROWS, np.stack([TARGET, -TARGET], axis=1))


class TestRegressorOfOtherTrees(TestRegressor):
    def model(self) -> object:
        return catboost.CatBoostRegressor(grow_policy="Lossguide", **SMALL).fit(ROWS, TARGET)


class TestRegressorWithCategories(TestRegressor):
    def example(self) -> pd.DataFrame:
        return ROWS.assign(town=["Ulm", "Bonn", "Kiel", "Bonn"] * 20, floor=[1, 2, 3, 4] * 20)

    def model(self) -> object:
        model = catboost.CatBoostRegressor(cat_features=["town", "floor"], **SMALL)
        return model.fit(self.example(), TARGET)


class TestClassifierOnWords(TestRegressor):
    def example(self) -> pd.DataFrame:
        return ROWS.assign(note=["late again", "on time", "late", "early bird"] * 20)

    def model(self) -> object:
        model = catboost.CatBoostClassifier(text_features=["note"], **SMALL)
        return model.fit(self.example(), TARGET % 4 > 1)


class TestRanker(TestRegressor):
    def model(self) -> object:
        model = catboost.CatBoostRanker(loss_function="QueryRMSE", **SMALL)
        return model.fit(ROWS, TARGET, group_id=np.arange(80) // 8)


class TestClassifier(TestRegressor):
    def model(self) -> object:
        return catboost.CatBoostClassifier(**SMALL).fit(ROWS, TARGET > 30)


class TestClassifierOfText(TestRegressor):
    def model(self) -> object:
        labels = np.where(TARGET > 30, "late", "early")
        return catboost.CatBoostClassifier(**SMALL).fit(ROWS, labels)


class TestClassifierOfSeveralClasses(TestRegressor):
    def model(self) -> object:
        return catboost.CatBoostClassifier(**SMALL).fit(ROWS, np.arange(80) // 30)


def test_nulls_of_whole_numbers_and_booleans_are_missing_values(tmp_path: Path) -> None:
    rows = pd.DataFrame({"n": [1.0, 2.0, np.nan, 4.0] * 20, "b": [1.0, np.nan, 0.0, 1.0] * 20})
    model = catboost.CatBoostRegressor(**SMALL).fit(rows, TARGET % 4)
    typed = pd.DataFrame({"n": rows["n"].astype("Int64"), "b": rows["b"].astype("boolean")})
    package = save_model(model, tmp_path / "p", input_example=typed)
    for runtime in TreeRuntime:
        predictor = load_predictor(package, TrustPolicy(), runtime)
        assert_same(np.asarray(predictor.predict(_batch(package, typed))), model.predict(rows))


def test_signature_in_another_order_is_answered_by_the_names(tmp_path: Path) -> None:
    model = catboost.CatBoostRegressor(**SMALL).fit(ROWS, TARGET)
    turned = ROWS[["y", "x"]]
    package = save_model(model, tmp_path / "p", input_example=turned)
    predictor = load_predictor(package, TrustPolicy())
    assert_same(np.asarray(predictor.predict(_batch(package, turned))), model.predict(ROWS))
    assert "another order" in str(predictor.runtime.reason)


def test_model_that_was_fitted_without_names_takes_columns_in_their_order(tmp_path: Path) -> None:
    model = catboost.CatBoostRegressor(**SMALL).fit(ROWS.to_numpy(), TARGET)
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    predictor = load_predictor(package, TrustPolicy())
    assert_same(np.asarray(predictor.predict(_batch(package, ROWS))), model.predict(ROWS))
    assert predictor.runtime.name != "native"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (TestRegressorThatAnswersExponents, "own exp"),
        (TestRegressorOfOtherTrees, "not symmetric"),
        (TestRegressorWithCategories, "features of categories"),
        (TestClassifierOnWords, "features of text"),
    ],
)
def test_model_that_is_not_compiled_says_why(
    tmp_path: Path, test: type[TestRegressor], said: str
) -> None:
    package = save_model(test().model(), tmp_path / "p", input_example=test().example())
    assert said in str(load_predictor(package, TrustPolicy()).runtime.reason)


def test_class_of_the_users_own_is_not_loaded(tmp_path: Path) -> None:
    save_model(TestRegressor().model(), tmp_path / "p", input_example=ROWS)
    _change(tmp_path / "p", "model_type", "Pool")
    with pytest.raises(UntrustedCodeError, match="'Pool'"):
        load_predictor(open_package(tmp_path / "p"), TrustPolicy())


def test_class_of_the_users_own_is_not_saved(tmp_path: Path) -> None:
    class Forecaster(catboost.CatBoostRegressor):  # type: ignore[misc]  # it has no types
        pass

    model = Forecaster(**SMALL).fit(ROWS, TARGET)
    with pytest.raises(UsageError, match="Forecaster is no model of CatBoost"):
        save_model(model, tmp_path / "p", flavor="catboost", input_example=ROWS)


def test_model_that_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    signature = infer_signature(ROWS, TARGET)
    with pytest.raises(UsageError, match="is not fitted"):
        save_model(catboost.CatBoostRegressor(), tmp_path / "p", signature=signature)


def test_format_that_catboost_does_not_load_is_named(tmp_path: Path) -> None:
    save_model(TestRegressor().model(), tmp_path / "p", input_example=ROWS)
    _change(tmp_path / "p", "save_format", "cpp")
    with pytest.raises(PackageFormatError, match="format 'cpp'"):
        load_predictor(open_package(tmp_path / "p"), TrustPolicy())


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_broken_model_file_is_named(tmp_path: Path, content: bytes) -> None:
    save_model(TestRegressor().model(), tmp_path / "p", input_example=ROWS)
    (tmp_path / "p" / "model.cb").write_bytes(content)
    with pytest.raises(PackageFormatError, match=r"model\.cb is no model that CatBoost"):
        load_predictor(open_package(tmp_path / "p"), TrustPolicy())


def _batch(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return record_batch(rows, column_inputs(package.description.signature))


def _change(folder: Path, key: str, value: str) -> None:
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content["flavors"]["catboost"][key] = value
    path.write_text(yaml.safe_dump(content))
