from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression

from sparkscore.errors import (
    PredictionError,
    RecordExistsError,
    SignatureMismatchError,
    UnknownFlavorError,
    UsageError,
)
from sparkscore.flavors import get_flavor, load_predictor, save_model
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.signature import infer_signature

ROWS = pd.DataFrame({"x": np.arange(20.0)})


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
    with pytest.raises(UnknownFlavorError, match=r"'spacy'.*mlflow\.spacy.*'catboost'"):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_package_without_signature_is_refused(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    edit(package.folder, {"signature": None})
    with pytest.raises(SignatureMismatchError, match="no signature"):
        load_predictor(open_package(package.folder), TrustPolicy())
