"""Two models of the arrival delay, from two libraries, as packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.demo.flights import LABEL, NUMBERS, TEXTS, features
from sparkscore.flavors import save_model
from sparkscore.package import Package
from sparkscore.package.signature import infer_signature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from lightgbm import LGBMRegressor
    from sklearn.pipeline import Pipeline

_N_TREES = 50
_N_EXAMPLE_ROWS = 1000


def train_pipeline(flights: pa.Table) -> Pipeline:
    """A scikit-learn pipeline: impute numbers, encode text, boost trees on histograms.

    Args:
        flights: Rows of `flights.read_flights`; those without a label are left out.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), list(NUMBERS)),
            ("texts", encoder, list(TEXTS)),
        ]
    )
    trees = HistGradientBoostingRegressor(max_iter=_N_TREES, random_state=0)
    return make_pipeline(columns, trees).fit(*_labelled(flights))


def train_lightgbm(flights: pa.Table) -> LGBMRegressor:
    """A LightGBM regressor that takes nulls as they are, and text as pandas categories.

    Args:
        flights: Rows of `flights.read_flights`; those without a label are left out.
    """
    from lightgbm import LGBMRegressor

    frame, delays = _labelled(flights)
    model = LGBMRegressor(n_estimators=_N_TREES, random_state=0, verbose=-1)
    return model.fit(categorised(frame), delays)


def categorised(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with its text columns as categories, as the LightGBM model was fitted on them."""
    return frame.astype(dict.fromkeys(TEXTS, "category"))


def package(model: Pipeline | LGBMRegressor, flights: pa.Table, folder: Path) -> Package:
    """Save `model` into the new folder `folder`; its signature knows which columns have nulls.

    Args:
        model: What one of the functions above returned.
        flights: The flights it was trained on, cancelled ones among them.
        folder: Must not exist.

    Raises:
        RecordExistsError: The folder exists.
    """
    return save_trained(model, features(flights), folder)


def save_trained(model: object, inputs: pd.DataFrame, folder: Path) -> Package:
    """Save a model that answers one double a row, with the first of its inputs as an example.

    Args:
        model: Of any library that a flavor knows.
        inputs: All rows that it was trained on.
        folder: Must not exist.

    Raises:
        RecordExistsError: The folder exists.
    """
    # Every null counts: from a few rows alone a column would look as if it had none.
    signature = infer_signature(inputs, pa.array([0.0]))
    example = inputs.head(_N_EXAMPLE_ROWS)
    return save_model(model, folder, signature=signature, input_example=example)


def _labelled(flights: pa.Table) -> tuple[pd.DataFrame, np.ndarray]:
    rows = flights.filter(pc.is_valid(flights[LABEL]))
    return features(rows), rows[LABEL].to_numpy()
