from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.special
import yaml
from lightgbm import LGBMRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from sparkscore.direct import HowToSave
from sparkscore.errors import (
    PackageDigestError,
    PredictionError,
    RecordExistsError,
    SignatureMismatchError,
    UnknownFlavorError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import get_flavor, load_predictor, save_model, set_signature
from sparkscore.package import Package, TrustPolicy, open_package, seal, verify
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


def requirements(package: Package) -> list[str]:
    return (package.folder / "requirements.txt").read_text("utf-8").split()


class Angle:
    def predict(self, model_input: pd.DataFrame) -> np.ndarray:
        inside: np.ndarray = yaml.safe_load("1") * scipy.special.cbrt(model_input["x"].to_numpy())
        return inside


def test_libraries_that_a_model_of_python_imports_are_required(tmp_path: Path) -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    package = save_model(Angle(), tmp_path / "p", input_example=ROWS)
    cloudpickle.unregister_pickle_by_value(module)
    names = {line.partition("==")[0] for line in requirements(package)}
    assert names >= {"PyYAML", "scipy", "cloudpickle", "pandas"}
    assert not names & {"sparkscore", "pytest", "lightgbm"}


def test_libraries_that_scripts_and_code_import_are_required(tmp_path: Path) -> None:
    source = "import yaml, os\nfrom sklearn.base import clone\nfrom . import own\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "part.py").write_text(source, "utf-8")
    (tmp_path / "code" / "broken.py").write_text("import (", "utf-8")
    (tmp_path / "model.py").write_text(
        "import scipy.special as s\nimport sparkscore\n\n"
        "sparkscore.set_model(lambda model_input: s.cbrt(model_input['x'].to_numpy()))\n",
        "utf-8",
    )
    package = save_model(
        tmp_path / "model.py",
        tmp_path / "p",
        input_example=ROWS,
        code_paths=[tmp_path / "code"],
    )
    names = {line.partition("==")[0] for line in requirements(package)}
    assert names == {"PyYAML", "pandas", "scikit-learn", "scipy"}


def test_pip_requirements_stand_in_the_place_of_those_seen(tmp_path: Path) -> None:
    package = save_model(
        fitted(), tmp_path / "p", input_example=ROWS, pip_requirements=["numpy", "left-over==1.0"]
    )
    assert requirements(package) == ["left-over==1.0", f"numpy=={np.__version__}"]


@pytest.mark.parametrize("is_file", [False, True])
def test_conda_environment_says_all(is_file: bool, tmp_path: Path) -> None:
    pip = {"pip": ["scikit-learn==1.5", "skops"]}
    conda = {"channels": ["c"], "dependencies": ["python=3.10.4", "libgomp=9", pip], "name": "n"}
    (tmp_path / "conda.yaml").write_text(yaml.safe_dump(conda), "utf-8")
    given = tmp_path / "conda.yaml" if is_file else conda
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS, conda_env=given)
    assert requirements(package) == ["scikit-learn==1.5", "skops"]
    written = {
        name: yaml.safe_load((package.folder / name).read_text("utf-8"))
        for name in ("conda.yaml", "python_env.yaml")
    }
    assert written["conda.yaml"] == conda
    assert written["python_env.yaml"]["python"] == "3.10.4"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"conda_env": {"name": "n"}}, "no list 'dependencies'"),
        ({"conda_env": {"dependencies": [{"pip": ["a b c"]}]}}, "names 'a b c' for pip"),
        ({"conda_env": {"dependencies": []}, "pip_requirements": []}, "names all that"),
    ],
)
def test_conda_environment_that_is_none_leaves_nothing(
    how: HowToSave, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        save_model(fitted(), tmp_path / "p", **HowToSave(input_example=ROWS, **how))
    assert list(tmp_path.iterdir()) == []


def test_signature_is_set_on_a_package_without_one_and_it_is_sealed_anew(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    signature = package.description.signature
    assert signature is not None
    edit(package.folder, {"signature": None})
    seal(package.folder)
    again = set_signature(package.folder, signature)
    assert again.description == package.description
    verify(package.folder)
    edit(package.folder, {"signature": None})
    with pytest.raises(PackageDigestError):
        set_signature(package.folder, signature)


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
    with pytest.raises(UnknownFlavorError, match=r"'spacy'.*mlflow\.spacy.*'catboost'"):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_package_without_signature_is_refused(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    edit(package.folder, {"signature": None})
    with pytest.raises(SignatureMismatchError, match="no signature"):
        load_predictor(open_package(package.folder), TrustPolicy())
