from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from lightgbm import LGBMRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from sparkscore.errors import (
    PredictionError,
    RecordExistsError,
    SignatureMismatchError,
    UnknownFlavorError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import get_flavor, load_predictor, save_model
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.signature import infer_signature

ROWS = pd.DataFrame({"x": np.arange(20.0)})


class Fitting(Protocol):
    def fit(self, rows: pd.DataFrame, target: pd.Series[float]) -> object: ...

    def predict(self, rows: pd.DataFrame) -> np.ndarray: ...


class Silent:
    def predict(self, model_input: pd.DataFrame) -> list[float]:  # noqa: ARG002
        return [1.0]


def fitted() -> LinearRegression:
    return LinearRegression().fit(ROWS, 2 * ROWS["x"])


def edit(folder: Path, change: dict[str, object]) -> None:
    raw = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
    (folder / "MLmodel").write_text(yaml.safe_dump({**raw, **change}), "utf-8")


def test_signature_or_example_is_mandatory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="input_example="):
        save_model(fitted(), tmp_path / "p")


def test_signature_alone_is_enough(tmp_path: Path) -> None:
    signature = infer_signature(ROWS, fitted().predict(ROWS))
    package = save_model(fitted(), tmp_path / "p", signature=signature)
    assert package.description.signature == signature
    assert package.description.saved_input_example_info is None


def test_outputs_are_inferred_from_what_the_saved_model_answers(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    assert package.description.signature == infer_signature(ROWS, fitted().predict(ROWS))


def test_only_a_few_rows_of_the_example_are_kept(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    kept = pd.read_json(package.folder / "input_example.json", orient="split")
    assert kept["x"].tolist() == list(range(10))


def test_metadata_and_requirements_are_written(tmp_path: Path) -> None:
    package = save_model(
        fitted(),
        tmp_path / "p",
        input_example=ROWS,
        metadata={"team": "ops"},
        extra_requirements=["PyYAML", "left-over==1.0"],
    )
    assert package.description.metadata == {"team": "ops"}
    lines = (package.folder / "requirements.txt").read_text("utf-8").splitlines()
    assert "left-over==1.0" in lines
    assert any(line.startswith("PyYAML==") for line in lines)


def test_existing_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(RecordExistsError, match="exists"):
        save_model(fitted(), tmp_path / "p", input_example=ROWS)
    assert list(tmp_path.iterdir()) == [tmp_path / "p"]


def test_model_that_answers_too_few_rows_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="1 predictions for 20 example rows"):
        save_model(Silent(), tmp_path / "p", input_example=ROWS)
    assert list(tmp_path.iterdir()) == []


def test_object_of_no_library_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flavor="):
        save_model(object(), tmp_path / "p", input_example=ROWS)


@pytest.mark.parametrize(
    ("model", "file"),
    [
        (LinearRegression(), "model.pkl"),
        (LGBMRegressor(n_estimators=2, min_child_samples=2, n_jobs=1, verbose=-1), "model.pkl"),
    ],
)
def test_pickle_is_written_on_request_and_read_with_trust_alone(
    model: Fitting, file: str, tmp_path: Path
) -> None:
    model.fit(ROWS, 2 * ROWS["x"])
    how = "cloudpickle"
    package = save_model(model, tmp_path / "p", input_example=ROWS, serialization_format=how)
    assert (package.folder / file).is_file()
    with pytest.raises(UntrustedCodeError, match=r"model\.pkl is a pickle"):
        load_predictor(package, TrustPolicy())
    rows = pa.RecordBatch.from_pandas(ROWS)
    got = load_predictor(package, TrustPolicy(allow_code=True)).predict(rows)
    assert np.asarray(got).tolist() == model.predict(ROWS).tolist()


@pytest.mark.parametrize(("flavor", "form"), [("sklearn", "joblib"), ("python_function", "skops")])
def test_form_that_a_flavor_does_not_write_is_refused(
    flavor: str, form: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"{form}.* is not known to the flavor {flavor!r}"):
        save_model(
            fitted(), tmp_path / "p", input_example=ROWS, flavor=flavor, serialization_format=form
        )
    assert list(tmp_path.iterdir()) == []


def test_predict_fn_is_the_method_that_scores(tmp_path: Path) -> None:
    model = LogisticRegression().fit(ROWS, ROWS["x"] > 9)
    package = save_model(model, tmp_path / "p", input_example=ROWS, predict_fn="predict_proba")
    got = load_predictor(package, TrustPolicy()).predict(pa.RecordBatch.from_pandas(ROWS))
    assert np.asarray(got).tolist() == model.predict_proba(ROWS).tolist()
    signature = package.description.signature
    assert signature == infer_signature(ROWS, model.predict_proba(ROWS))


def test_predict_fn_is_for_models_that_have_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"predict_fn='score' is for models of scikit-learn"):
        save_model(Silent(), tmp_path / "p", input_example=ROWS, predict_fn="score")


def test_artifacts_belong_to_python_function(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="python_function"):
        save_model(fitted(), tmp_path / "p", input_example=ROWS, artifacts={"a": tmp_path})


def test_unknown_flavor_offers_the_nearest() -> None:
    with pytest.raises(UnknownFlavorError, match="did you mean 'lightgbm'"):
        get_flavor("lightgmb")


def test_package_of_unknown_flavors_names_those_known(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    edit(
        package.folder,
        {"flavors": {"spacy": {}, "python_function": {"loader_module": "mlflow.spacy"}}},
    )
    with pytest.raises(UnknownFlavorError, match=r"'spacy'.*mlflow\.spacy.*'sklearn'"):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_package_without_signature_is_refused(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    edit(package.folder, {"signature": None})
    with pytest.raises(SignatureMismatchError, match="no signature"):
        load_predictor(open_package(package.folder), TrustPolicy())
