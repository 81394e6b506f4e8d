from __future__ import annotations

from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from sparkscore.errors import PackageFormatError, UntrustedCodeError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, open_package, seal
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

N_ROWS = 80
RNG = np.random.default_rng(2)
ROWS = pd.DataFrame(
    {
        "age": RNG.normal(40, 10, N_ROWS),
        "income": RNG.normal(2, 1, N_ROWS),
        "town": np.array(["Ulm", "Bonn", "Kiel"])[RNG.integers(0, 3, N_ROWS)],
    }
)
NUMBERS = ROWS[["age", "income"]]
TARGET = ROWS["age"] * 0.5 - ROWS["income"] + RNG.normal(size=N_ROWS)
PICKLE = TrustPolicy(allow_code=True)


class TestLinearModel(FlavorContract):
    flavor = "statsmodels"
    trust = PICKLE

    def model(self) -> object:
        return sm.OLS(TARGET, NUMBERS).fit()

    def example(self) -> pd.DataFrame:
        return NUMBERS


class TestGeneralizedModel(TestLinearModel):
    def model(self) -> object:
        return sm.GLM(TARGET > 18, NUMBERS, family=sm.families.Binomial()).fit()


class TestModelOfSeveralClasses(TestLinearModel):
    def model(self) -> object:
        return sm.MNLogit(np.digitize(TARGET, [16, 20]), NUMBERS).fit(disp=0)


class TestFormula(TestLinearModel):
    def model(self) -> object:
        return smf.ols("target ~ age + np.log1p(income ** 2) + C(town)", self.fitted_on()).fit()

    def example(self) -> pd.DataFrame:
        return ROWS

    def fitted_on(self) -> pd.DataFrame:
        return ROWS.assign(target=TARGET)


def test_row_with_a_missing_value_has_no_prediction_and_others_keep_theirs(tmp_path: Path) -> None:
    model = TestFormula().model()
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    rows = ROWS.head(4).copy()
    rows.loc[1, "age"] = np.nan
    assert package.description.signature is not None
    batch = record_batch(rows, column_inputs(package.description.signature))
    answer = load_predictor(package, PICKLE).predict(batch)
    expected = np.asarray(model.predict(ROWS.head(4))).copy()  # type: ignore[attr-defined]
    expected[1] = np.nan
    assert_same(np.asarray(answer), expected)


def test_pickle_is_not_loaded_without_trust(tmp_path: Path) -> None:
    package = save_model(TestLinearModel().model(), tmp_path / "p", input_example=NUMBERS)
    with pytest.raises(UntrustedCodeError, match="--trust-code"):
        load_predictor(package, TrustPolicy())


def test_flavor_is_found_by_the_class_of_the_results(tmp_path: Path) -> None:
    package = save_model(TestLinearModel().model(), tmp_path / "p", input_example=NUMBERS)
    assert "statsmodels" in package.description.flavors


def test_model_that_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"OLS is no fitted model.*fit\(\)"):
        save_model(sm.OLS(TARGET, NUMBERS), tmp_path / "p", input_example=NUMBERS)


def test_model_of_a_time_series_is_not_saved(tmp_path: Path) -> None:
    model = sm.tsa.AutoReg(np.asarray(TARGET), 1).fit()
    with pytest.raises(UsageError, match="answers spans of time and not rows"):
        save_model(model, tmp_path / "p", input_example=NUMBERS)


@pytest.mark.parametrize(
    ("held", "said"),
    [({"a": 1}, "no fitted model"), (sm.tsa.AutoReg(np.asarray(TARGET), 1).fit(), "spans of time")],
)
def test_file_that_holds_something_else_is_named(tmp_path: Path, held: object, said: str) -> None:
    save_model(TestLinearModel().model(), tmp_path / "p", input_example=NUMBERS)
    (tmp_path / "p" / "model.statsmodels").write_bytes(cloudpickle.dumps(held))
    seal(tmp_path / "p")
    with pytest.raises(PackageFormatError, match=said):
        load_predictor(open_package(tmp_path / "p"), PICKLE)
