from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost
import yaml

from sparkscore.errors import (
    PackageFormatError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.environment import check_environment
from sparkscore.package.signature import infer_signature
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

ROWS = pd.DataFrame({"x": [1.0, 2.0, np.nan, 4.0] * 20, "y": [0.5, 0.25, 7.0, 1.0] * 20})
TARGET = np.arange(80.0)


class TestBooster(FlavorContract):
    flavor = "xgboost"

    def model(self) -> object:
        return xgboost.train({"nthread": 1}, xgboost.DMatrix(ROWS, TARGET), 5)

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, xgboost.Booster)
        return np.asarray(model.predict(xgboost.DMatrix(example)))


class TestRegressor(FlavorContract):
    flavor = "xgboost"

    def model(self) -> object:
        return xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(ROWS, TARGET)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestRegressorWithCategories(TestRegressor):
    def example(self) -> pd.DataFrame:
        return ROWS.assign(town=["Ulm", "Bonn", "Kiel", "Bonn"] * 20)

    def fitted_on(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows.astype({"town": "category"})

    def model(self) -> object:
        model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True)
        return model.fit(self.fitted_on(self.example()), TARGET)

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        return super().expected(model, self.fitted_on(example))


class TestClassifier(FlavorContract):
    flavor = "xgboost"

    def model(self) -> object:
        return xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, TARGET > 30)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestDroppingBooster(TestBooster):
    def model(self) -> object:
        options = {"booster": "dart", "rate_drop": 0.5, "nthread": 1}
        return xgboost.train(options, xgboost.DMatrix(ROWS, TARGET), 5)


class TestLinearRegressor(FlavorContract):
    flavor = "xgboost"

    def model(self) -> object:
        return xgboost.XGBRegressor(booster="gblinear", n_estimators=5, n_jobs=1).fit(ROWS, TARGET)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestLinearBooster(TestBooster):
    def model(self) -> object:
        options = {"booster": "gblinear", "nthread": 1}
        return xgboost.train(options, xgboost.DMatrix(ROWS, TARGET), 5)


def test_package_asks_for_xgboost_whichever_wheel_is_installed(tmp_path: Path) -> None:
    save_model(TestRegressor().model(), tmp_path / "p", input_example=ROWS)
    requirements = (tmp_path / "p" / "requirements.txt").read_text().splitlines()
    assert f"xgboost=={xgboost.__version__}" in requirements
    assert not any(line.startswith("xgboost-cpu") for line in requirements)


def test_package_of_xgboost_fits_an_environment_with_the_wheel_for_cpus(tmp_path: Path) -> None:
    package = save_model(TestBooster().model(), tmp_path / "p", input_example=ROWS)
    assert check_environment(package) == []


def test_class_of_the_users_own_is_not_loaded(tmp_path: Path) -> None:
    save_model(TestRegressor().model(), tmp_path / "p", input_example=ROWS)
    _change(tmp_path / "p", "model_class", "shop.models.Forecaster")
    with pytest.raises(UntrustedCodeError, match=r"'shop\.models\.Forecaster'"):
        load_predictor(open_package(tmp_path / "p"), TrustPolicy())


def test_class_of_the_users_own_is_not_saved(tmp_path: Path) -> None:
    class Forecaster(xgboost.XGBRegressor):
        pass

    model = Forecaster(n_estimators=1).fit(ROWS, TARGET)
    with pytest.raises(UsageError, match="Forecaster is no model of xgboost"):
        save_model(model, tmp_path / "p", flavor="xgboost", input_example=ROWS)


def test_missing_value_that_would_be_forgotten_is_refused(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=2, missing=-999.0).fit(ROWS, TARGET)
    with pytest.raises(UsageError, match=r"takes -999\.0 for a missing value"):
        save_model(model, tmp_path / "p", input_example=ROWS)


@pytest.mark.parametrize("case", [TestBooster, TestRegressor])
def test_columns_in_another_order_than_the_models_are_refused(
    case: type[TestBooster | TestRegressor], tmp_path: Path
) -> None:
    signature = infer_signature(ROWS[["y", "x"]], TARGET)
    with pytest.raises(SignatureMismatchError, match="fitted on 'x', 'y', in this order"):
        save_model(case().model(), tmp_path / "p", signature=signature)


def test_batch_whose_text_is_all_missing_is_scored(tmp_path: Path) -> None:
    case = TestRegressorWithCategories()
    example = case.example()
    model = case.model()
    signature = infer_signature(example, TARGET)
    package = save_model(model, tmp_path / "q", signature=signature)
    batch = record_batch(example.assign(town=None), column_inputs(signature))
    got = load_predictor(package, TrustPolicy()).predict(batch)
    assert isinstance(model, xgboost.XGBRegressor)
    towns = pd.Categorical([None] * len(example), categories=["Ulm"])
    assert_same(np.asarray(got), model.predict(example.assign(town=towns)))


def test_broken_model_file_is_named(tmp_path: Path) -> None:
    save_model(TestBooster().model(), tmp_path / "p", input_example=ROWS)
    (tmp_path / "p" / "model.ubj").write_bytes(b"{}")
    with pytest.raises(PackageFormatError, match=r"model\.ubj is no model that xgboost"):
        load_predictor(open_package(tmp_path / "p"), TrustPolicy())


def _change(folder: Path, key: str, value: str) -> None:
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content["flavors"]["xgboost"][key] = value
    path.write_text(yaml.safe_dump(content))
