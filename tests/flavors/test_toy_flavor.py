from __future__ import annotations

import importlib

import pandas as pd
import pytest

from sparkscore.flavors import known_flavors
from sparkscore.testing.flavor_contract import FlavorContract


@pytest.mark.usefixtures("toy_installed")
class TestToyFlavor(FlavorContract):
    flavor = "toy"

    def model(self) -> object:
        return importlib.import_module("toy_flavor").Shift(0.5)

    def example(self) -> pd.DataFrame:
        return pd.DataFrame({"x": [1.0, 2.0, 3.0]})


def test_plugged_flavor_is_unknown_where_it_is_not_installed() -> None:
    assert known_flavors() == (
        "catboost",
        "keras",
        "lightgbm",
        "onnx",
        "prophet",
        "pytorch",
        "sklearn",
        "spark",
        "statsmodels",
        "tensorflow",
        "transformers",
        "xgboost",
        "python_function",
    )
