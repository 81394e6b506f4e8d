"""Prophet's models, and their exchange with MLflow; `make test-flavors` runs this."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import prophet
import pyarrow as pa
import pytest

from sparkscore.errors import PackageFormatError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, open_package, seal
from sparkscore.package.signature import infer_signature
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

# Prophet's own use of pandas, and of a plotting library that it can do without.
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(4)
HISTORY = pd.DataFrame(
    {
        "ds": pd.date_range("2013-01-01", periods=200, freq="D"),
        "y": np.arange(200.0) + RNG.normal(size=200),
        "price": RNG.normal(size=200),
    }
)
# Neither in the order of time nor one row for each: a table has shops.
ROWS = HISTORY[["ds", "price"]].iloc[[150, 3, 77, 3, 199, 3, 40, 150]].reset_index(drop=True)
ROWS["price"] = np.arange(8.0)

_PEER = """
import sys
import mlflow, numpy as np, pandas as pd
package, rows, answers = sys.argv[1:]
np.save(answers, mlflow.pyfunc.load_model(package).predict(pd.read_parquet(rows))["yhat"])
"""
_PEER_WRITES = """
import sys
import mlflow, prophet, pandas as pd
from mlflow.models import infer_signature
history, package = sys.argv[1:]
rows = pd.read_parquet(history)
model = prophet.Prophet(uncertainty_samples=10).fit(rows)
given = rows[["ds"]]
mlflow.prophet.save_model(model, package, signature=infer_signature(given, model.predict(given)))
"""


@cache
def fitted() -> prophet.Prophet:
    """With so few features that BLAS adds them up in one order, whatever the size of a batch."""
    model = prophet.Prophet(
        uncertainty_samples=10,
        weekly_seasonality=False,
        yearly_seasonality=False,
        daily_seasonality=False,
    )
    model.add_regressor("price")
    return model.fit(HISTORY, seed=1)


class TestForecast(FlavorContract):
    flavor = "prophet"

    def model(self) -> object:
        return fitted()

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        """Row by row, so that none can stand in the place of another."""
        assert isinstance(model, prophet.Prophet)
        whole = pd.concat([model.predict(example.iloc[[i]]) for i in range(len(example))])
        drawn = [name for name in whole.columns if name.endswith(("_lower", "_upper"))]
        return np.asarray(whole.drop(columns=["ds", *drawn]))


def test_declared_columns_alone_are_answered_whatever_their_number(tmp_path: Path) -> None:
    whole = answered(save_model(fitted(), tmp_path / "p", input_example=ROWS), ROWS)
    assert isinstance(whole, pd.DataFrame)
    for i, outputs in enumerate(({"yhat": [0.0]}, {"trend": [0.0], "yhat": [0.0]})):
        signature = infer_signature(ROWS, pd.DataFrame(outputs))
        package = save_model(fitted(), tmp_path / str(i), signature=signature)
        answer = answered(package, ROWS)
        assert isinstance(answer, pd.DataFrame)
        assert list(answer.columns) == list(outputs)
        assert answer.equals(whole[list(outputs)])


def test_single_column_of_another_name_is_the_forecast(tmp_path: Path) -> None:
    package = save_model(fitted(), tmp_path / "p", signature=infer_signature(ROWS, np.zeros(1)))
    whole = answered(save_model(fitted(), tmp_path / "q", input_example=ROWS), ROWS)
    assert isinstance(whole, pd.DataFrame)
    assert_same(np.asarray(answered(package, ROWS)), np.asarray(whole["yhat"]))


def test_intervals_are_drawn_only_where_they_are_declared(tmp_path: Path) -> None:
    outputs = pd.DataFrame({"yhat": [0.0], "yhat_lower": [0.0], "yhat_upper": [0.0]})
    package = save_model(fitted(), tmp_path / "p", signature=infer_signature(ROWS, outputs))
    answer = answered(package, ROWS)
    assert isinstance(answer, pd.DataFrame)
    assert (answer["yhat_lower"] < answer["yhat_upper"]).all()


def test_model_that_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no fitted Prophet; call its fit\(\)"):
        save_model(prophet.Prophet(), tmp_path / "p", input_example=ROWS)


@pytest.mark.parametrize("content", ["", "{}", json.dumps("{}"), json.dumps(["a"])])
def test_broken_file_is_named(tmp_path: Path, content: str) -> None:
    package = save_model(fitted(), tmp_path / "p", input_example=ROWS)
    (package.folder / "model.pr").write_text(content)
    seal(package.folder)
    with pytest.raises(PackageFormatError, match=r"model\.pr is no model of Prophet"):
        answered(package, ROWS)


def test_own_package_forecasts_the_same_in_mlflow(tmp_path: Path) -> None:
    rows = HISTORY[["ds", "price"]]  # In the order of time, which MLflow answers in.
    package = save_model(fitted(), tmp_path / "p", input_example=rows)
    rows.to_parquet(tmp_path / "rows.parquet")
    peer(_PEER, package.folder, tmp_path / "rows.parquet", tmp_path / "answers.npy")
    answer = answered(package, rows)
    assert isinstance(answer, pd.DataFrame)
    assert_same(np.asarray(answer["yhat"]), np.load(tmp_path / "answers.npy"))


def test_package_of_mlflow_forecasts_the_same_without_any_trust(tmp_path: Path) -> None:
    HISTORY[["ds", "y"]].to_parquet(tmp_path / "history.parquet")
    peer(_PEER_WRITES, tmp_path / "history.parquet", tmp_path / "p")
    HISTORY[["ds"]].to_parquet(tmp_path / "rows.parquet")
    peer(_PEER, tmp_path / "p", tmp_path / "rows.parquet", tmp_path / "answers.npy")
    answer = answered(open_package(tmp_path / "p"), HISTORY[["ds"]])
    assert isinstance(answer, pd.DataFrame)
    assert_same(np.asarray(answer["yhat"]), np.load(tmp_path / "answers.npy"))


def answered(package: Package, rows: pd.DataFrame) -> object:
    return load_predictor(package, TrustPolicy()).predict(batch_of(package, rows))


def batch_of(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return record_batch(rows, column_inputs(package.description.signature))


def peer(script: str, *arguments: object) -> None:
    """Run a script with the Python that has MLflow; fails if none is named."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    assert python, "SPARKSCORE_MLFLOW_PYTHON must name a Python with MLflow; make test-flavors does"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
