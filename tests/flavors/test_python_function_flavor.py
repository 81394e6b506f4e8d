from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from sparkscore.errors import MissingExtraError, PackageFormatError, UntrustedCodeError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.python_model import PythonContext
from sparkscore.package import TrustPolicy, open_package
from sparkscore.testing.flavor_contract import FlavorContract

ROWS = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "n": pd.array([1, None, 3, 2**62 + 1], "Int64")})
PICKLE = TrustPolicy(allow_code=True)


class Doubler:
    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        return model_input["x"].to_numpy() * 2


class Scaler:
    """Takes its factor from an artifact, and no context in predict."""

    def load_context(self, context: PythonContext) -> None:
        self.factor = float(Path(context.artifacts["factor"]).read_text("utf-8"))

    def predict(self, model_input: pd.DataFrame) -> list[float]:
        return [value * self.factor for value in model_input["x"]]


@pytest.fixture(autouse=True)
def _by_value() -> object:
    """Pickle this module's classes whole: a fresh process cannot import a test file."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


class TestPythonFunctionFlavor(FlavorContract):
    flavor = "python_function"
    trust = PICKLE

    def model(self) -> object:
        return Doubler()

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, Doubler)
        return model.predict(None, example)


def test_artifacts_travel_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "factor.txt").write_text("2.5", "utf-8")
    package = save_model(
        Scaler(),
        tmp_path / "p",
        input_example=ROWS,
        artifacts={"factor": tmp_path / "factor.txt"},
    )
    moved = tmp_path / "elsewhere"
    package.folder.rename(moved)
    (tmp_path / "factor.txt").unlink()
    reopened = open_package(moved)
    assert reopened.description.signature is not None
    batch = record_batch(ROWS, column_inputs(reopened.description.signature))
    assert load_predictor(reopened, PICKLE).predict(batch) == [2.5, 5.0, 7.5, 10.0]


def test_loading_asks_for_trust_and_says_what_the_pickle_wants(tmp_path: Path) -> None:
    package = save_model(Doubler(), tmp_path / "p", input_example=ROWS)
    with pytest.raises(UntrustedCodeError, match=r"asks for .*trust\.allow_code.*--trust-code"):
        load_predictor(package, TrustPolicy())


def test_cut_pickle_is_a_broken_file(tmp_path: Path) -> None:
    package = save_model(Doubler(), tmp_path / "p", input_example=ROWS)
    path = package.folder / "python_model.pkl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PackageFormatError, match="cannot be unpickled"):
        load_predictor(package, PICKLE)


def test_pickle_that_needs_a_missing_library_names_it(tmp_path: Path) -> None:
    package = save_model(Doubler(), tmp_path / "p", input_example=ROWS)
    (package.folder / "python_model.pkl").write_bytes(b"cnot_installed.model\nModel\n.")
    with pytest.raises(MissingExtraError, match="'not_installed'"):
        load_predictor(package, PICKLE)


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".."])
def test_artifact_name_cannot_lead_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1", "utf-8")
    with pytest.raises(UsageError, match="plain file name"):
        save_model(Scaler(), tmp_path / "p", input_example=ROWS, artifacts={name: tmp_path / "f"})
    assert not (tmp_path / "p").exists()


def test_model_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    model = Doubler()
    model.lock = (n for n in range(3))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="load_context"):
        save_model(model, tmp_path / "p", input_example=ROWS)
