"""A year of New York's three weather stations, hour by hour, and models of the next hour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.demo.models import save_trained
from sparkscore.demo.nycflights import nullable_frame, read_table
from sparkscore.package import Package
from sparkscore.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

FEATURES = (
    "hour",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
"""What a station tells: `hour` and `wind_dir` as whole numbers; all but `hour` may be null."""

LABEL = "next_temp"
"""Degrees Fahrenheit an hour later at the same station; null before a gap."""

_LAST_MONTH_OF_TRAINING = 9
_N_TREES = 50


def read_weather() -> pa.Table:
    """All 26,115 readings, the oldest first: `station`, `time` (UTC), FEATURES, LABEL and `month`.

    Raises:
        MissingExtraError: The package with the data is not installed.
    """
    table = read_table("weather").rename_columns({"origin": "station", "time_hour": "time"})
    table = table.select(["station", "time", *FEATURES, "month"])
    next_hour = table.select(["station", "time", "temp"]).rename_columns(["station", "time", LABEL])
    hour = pa.scalar(3600, pa.duration("s"))
    earlier = pc.subtract(next_hour["time"], hour)
    next_hour = next_hour.set_column(1, "time", earlier)
    both = table.join(next_hour, ["station", "time"], join_type="left outer")
    return both.sort_by([("time", "ascending"), ("station", "ascending")])


def training_weather(weather: pa.Table) -> pa.Table:
    """January to September."""
    return weather.filter(pc.less_equal(weather["month"], _LAST_MONTH_OF_TRAINING))


def autumn_weather(weather: pa.Table) -> pa.Table:
    """The 6,497 readings of October to December, which no model was trained on."""
    return weather.filter(pc.greater(weather["month"], _LAST_MONTH_OF_TRAINING))


def write_day_files(weather: pa.Table, folder: Path) -> int:
    """Write readings as a station's logger would: lines of JSON, a file for each day in UTC.

    A file is seen when all of it is there, so that a stream may read the folder meanwhile. It does
    not read a file twice, so that a day should be written whole.

    Args:
        weather: Rows of `read_weather`; label and month are left out.
        folder: Made if it is not there.

    Returns:
        How many files it wrote.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = weather.select(["station", "time", *FEATURES])
    days = pc.strftime(rows["time"], "%Y-%m-%d")
    for day in pc.unique(days).to_pylist():
        readings = rows.filter(pc.equal(days, day)).to_pylist()
        lines = (json.dumps(row | {"time": row["time"].isoformat()}) for row in readings)
        write_whole(folder / f"weather-{day}.json", "".join(f"{line}\n" for line in lines))
    return len(pc.unique(days))


def train_linear(weather: pa.Table) -> Pipeline:
    """A scikit-learn pipeline: impute by the median, and a straight line.

    Args:
        weather: Rows of `read_weather`; those without a label are left out.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(strategy="median"), LinearRegression()).fit(
        *_labelled(weather)
    )


def train_trees(weather: pa.Table) -> HistGradientBoostingRegressor:
    """Boosted trees, which take nulls as they are.

    Args:
        weather: Rows of `read_weather`; those without a label are left out.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(max_iter=_N_TREES, random_state=0)
    return trees.fit(*_labelled(weather))


def package(
    model: Pipeline | HistGradientBoostingRegressor, weather: pa.Table, folder: Path
) -> Package:
    """Save `model` into the new folder `folder`.

    Args:
        model: What one of the functions above returned.
        weather: The readings it was trained on.
        folder: Must not exist.

    Raises:
        RecordExistsError: The folder exists.
    """
    return save_trained(model, features(weather), folder)


def features(weather: pa.Table) -> pd.DataFrame:
    """The columns FEATURES as pandas, whole numbers as Int64, which keeps a null beside them."""
    return nullable_frame(weather.select(FEATURES))


def _labelled(weather: pa.Table) -> tuple[pd.DataFrame, np.ndarray]:
    rows = weather.filter(pc.is_valid(weather[LABEL]))
    return features(rows), rows[LABEL].to_numpy()
