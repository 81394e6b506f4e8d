from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from sparkscore.flavors import save_model

Run = Callable[..., Any]


@pytest.fixture
def registered(run: Run, folder: Path) -> Path:
    rows = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 2)), columns=["a", "b"])
    rows.to_parquet(folder / "rows.parquet")
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(rows, rows.sum(axis=1))
    save_model(model, folder / "package", input_example=rows)
    assert run("models", "register", str(folder / "package"), "--name", "m").exit_code == 0
    return folder


@pytest.mark.usefixtures("registered")
def test_conversion_within_the_tolerance_becomes_a_version(run: Run) -> None:
    options = ("--to", "onnx", "--sample", "rows.parquet", "--rows", "50", "--tolerance", "1e-5")
    answer = run("models", "convert", "models:/m/1", *options, "-o", "json")
    assert answer.exit_code == 0, answer.stderr
    record = answer.json
    assert (record["uri"], record["status"]) == ("models:/m/2", "READY")
    assert record["converted_from"] == "models:/m/1"
    assert record["n_rows"] == record["n_ties"] + 50
    assert "Sampling at most 50 rows" in answer.stderr


@pytest.mark.usefixtures("registered")
def test_conversion_that_differs_is_an_error_of_the_model(run: Run) -> None:
    options = ("--to", "onnx", "--sample", "rows.parquet")
    answer = run("--quiet", "models", "convert", "models:/m/1", *options)
    assert (answer.exit_code, answer.stdout) == (4, "")
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error [NOT_CONVERTED]: model 'm' version 1 as an ONNX graph in")
    assert len(run("models", "show", "m", "-o", "json").json) == 1
