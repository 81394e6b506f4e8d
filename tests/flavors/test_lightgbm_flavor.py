from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.fused.levels import UnknownLevels, noting_levels
from sparkscore.package import TrustPolicy
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

ROWS = pd.DataFrame({"x": [1.0, 2.0, np.nan, 4.0] * 20, "y": [0.5, 0.25, 7.0, 1.0] * 20})
TARGET = np.arange(80.0)
SETTINGS = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}


class TestBooster(FlavorContract):
    flavor = "lightgbm"

    def model(self) -> object:
        return lightgbm.train(SETTINGS, lightgbm.Dataset(ROWS, TARGET), num_boost_round=5)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestBoosterWithCategories(TestBooster):
    def example(self) -> pd.DataFrame:
        return ROWS.assign(town=["Ulm", "Bonn", "Kiel", "Bonn"] * 20)

    def fitted_on(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows.astype({"town": "category"})

    def model(self) -> object:
        data = lightgbm.Dataset(self.fitted_on(self.example()), TARGET)
        return lightgbm.train(SETTINGS, data, num_boost_round=5)

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        return super().expected(model, self.fitted_on(example))


class TestRegressor(FlavorContract):
    flavor = "lightgbm"

    def model(self) -> object:
        return lightgbm.LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1).fit(ROWS, TARGET)

    def example(self) -> pd.DataFrame:
        return ROWS


class TestClassifier(FlavorContract):
    flavor = "lightgbm"

    def model(self) -> object:
        labels = np.where(TARGET > 30, "late", "early")
        return lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(ROWS, labels)

    def example(self) -> pd.DataFrame:
        return ROWS


@pytest.mark.parametrize("n_rows", [80, 800])
@pytest.mark.parametrize("runtime", TreeRuntime)
def test_town_that_the_booster_was_not_fitted_on_is_noted(
    runtime: TreeRuntime, n_rows: int, tmp_path: Path
) -> None:
    contract = TestBoosterWithCategories()
    rows = contract.example()
    package = save_model(contract.model(), tmp_path / "p", input_example=rows)
    assert package.description.signature is not None
    known = record_batch(rows, column_inputs(package.description.signature))
    new = rows.assign(town=np.array(["Rome", None, "Kiel", "Bari"] * 20, object))
    batch = record_batch(new, column_inputs(package.description.signature))
    predictor = load_predictor(package, TrustPolicy(), runtime)
    with noting_levels() as noted:
        predictor.predict(known)
        assert not noted
        predictor.predict(pa.concat_batches([batch] * (n_rows // 80)))
    assert noted == {"town": UnknownLevels(n_rows // 2, "'Rome'")}


@pytest.mark.parametrize("n_threads", ["2", "", "many"])
def test_thread_setting_of_the_scorer_changes_no_value(
    n_threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", n_threads)
    model = TestBooster().model()
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    assert package.description.signature is not None
    batch = record_batch(ROWS, column_inputs(package.description.signature))
    got = load_predictor(package, TrustPolicy()).predict(batch)
    assert_same(np.asarray(got), TestBooster().expected(model, ROWS))
