from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from sparkscore.errors import PackageFormatError, UntrustedCodeError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, open_package
from sparkscore.testing.flavor_contract import FlavorContract, assert_same, mixed_frame


def pipeline(rows: pd.DataFrame) -> Pipeline:
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "income"]),
            ("town", OneHotEncoder(handle_unknown="ignore"), ["town"]),
            (
                "plan",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                ["plan"],
            ),
        ],
        sparse_threshold=0,
    )
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    return Pipeline([("columns", columns), ("model", model)]).fit(rows, rows["plan"])


class TestSklearnFlavor(FlavorContract):
    flavor = "sklearn"

    def model(self) -> object:
        return pipeline(mixed_frame())

    def example(self) -> pd.DataFrame:
        return mixed_frame()

    def test_flavor_is_found_by_the_class(self, tmp_path: Path) -> None:
        package = save_model(self.model(), tmp_path / "found", input_example=mixed_frame())
        assert "sklearn" in package.description.flavors


def rewritten(package: Package, **changes: object) -> Package:
    """The package with other values under flavors.sklearn and python_function."""
    path = package.folder / "MLmodel"
    raw = yaml.safe_load(path.read_text("utf-8"))
    for conf in raw["flavors"].values():
        conf.update({key: value for key, value in changes.items() if key in conf})
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return open_package(package.folder)


def test_predict_fn_of_mlflow_is_called(mixed_rows: pd.DataFrame, tmp_path: Path) -> None:
    model = pipeline(mixed_rows)
    package = save_model(model, tmp_path / "p", input_example=mixed_rows)
    other = rewritten(package, predict_fn="predict_proba")
    assert other.description.signature is not None
    batch = record_batch(mixed_rows, column_inputs(other.description.signature))
    got = load_predictor(other, TrustPolicy()).predict(batch)
    assert_same(np.asarray(got), model.predict_proba(mixed_rows))


def test_predict_fn_cannot_name_any_method(mixed_rows: pd.DataFrame, tmp_path: Path) -> None:
    package = save_model(pipeline(mixed_rows), tmp_path / "p", input_example=mixed_rows)
    with pytest.raises(PackageFormatError, match="predict_fn 'fit'"):
        load_predictor(rewritten(package, predict_fn="fit"), TrustPolicy())


def test_pickle_of_mlflow_needs_the_operators_word(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = LinearRegression().fit(rows, [2.0, 4.0, 6.0])
    package = save_model(model, tmp_path / "p", input_example=rows)
    (package.folder / "model.skops").write_bytes(pickle.dumps(model))
    changed = rewritten(package, serialization_format="pickle")
    with pytest.raises(UntrustedCodeError, match="--trust-code"):
        load_predictor(changed, TrustPolicy())
    batch = record_batch(rows, column_inputs(changed.description.signature))  # type: ignore[arg-type]
    got = load_predictor(changed, TrustPolicy(allow_code=True)).predict(batch)
    assert_same(np.asarray(got), model.predict(rows))


def test_function_that_writes_files_is_not_trusted(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = Pipeline([("f", FunctionTransformer(np.save)), ("m", LinearRegression())])
    with pytest.raises(UntrustedCodeError, match=r"numpy\.save.*--trust numpy\.save"):
        save_model(model, tmp_path / "p", input_example=rows)
    assert list(tmp_path.iterdir()) == []


def test_type_that_the_operator_names_is_trusted(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = Pipeline([("f", FunctionTransformer(np.nan_to_num)), ("m", LinearRegression())])
    model.fit(rows, [1.0, 2.0, 3.0])
    trust = TrustPolicy(types=("numpy.*",))
    package = save_model(model, tmp_path / "p", input_example=rows, trust=trust)
    with pytest.raises(UntrustedCodeError, match=r"numpy\.nan_to_num"):
        load_predictor(package, TrustPolicy())
    load_predictor(package, trust)
