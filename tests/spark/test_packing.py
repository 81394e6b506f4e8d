"""Which columns cross packed into one array, and what a worker makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.facts import SourceColumn
from sparkscore.spark.packing import Packing, crossing_of, unpacked

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DOUBLES = tuple("abcd")
SCHEMA = "a DOUBLE, b DOUBLE, c DOUBLE, d DOUBLE, n BIGINT, word STRING, tags ARRAY<STRING>"


def bound(
    name: str,
    *,
    have: pa.DataType | None = None,
    want: pa.DataType | None = None,
    cast: Cast = Cast.EXACT,
    needs_value: bool = False,
) -> Binding:
    source = SourceColumn(name, have or pa.float64(), "double")
    return Binding(name.upper(), source, want or pa.float64(), cast, needs_value)


FOUR = [bound(name) for name in DOUBLES]


def test_doubles_are_packed_and_others_stand_beside_them(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], SCHEMA)
    whole = bound("n", have=pa.int64(), want=pa.int64(), needs_value=True)
    packing, why = crossing_of([whole, *FOUR], frame, ["word"])
    assert packing == Packing(packed=DOUBLES, single=("n",))
    assert why == "packed: 4 doubles in one array, 1 columns beside it"


@pytest.mark.parametrize(
    ("bindings", "carried", "why"),
    [
        (FOUR[:3], [], "one by one: fewer than 4 columns are doubles"),
        # A null that must be rejected would be a NaN that is not.
        ([*FOUR[:3], bound("d", needs_value=True)], [], "one by one: fewer than 4"),
        # Beyond 2**53 a long is no double, which only the worker's cast finds.
        ([*FOUR[:3], bound("n", have=pa.int64(), cast=Cast.CHECKED)], [], "one by one: fewer"),
        # The same column, once as a double and once as text.
        ([*FOUR, bound("d", want=pa.string())], [], "one by one: fewer"),
        (FOUR, ["word", "tags"], "one by one: column 'tags' is kept and is array<string>"),
    ],
)
def test_what_packing_would_change_crosses_one_by_one(
    bindings: list[Binding], carried: list[str], why: str, spark: SparkSession
) -> None:
    packing, said = crossing_of(bindings, spark.createDataFrame([], SCHEMA), carried)
    assert packing is None
    assert said.startswith(why)


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_an_array_is_unpacked_into_its_columns(n_rows: int) -> None:
    values = np.arange(4.0 * n_rows).reshape(n_rows, 4)
    values[n_rows // 2 :, 1] = np.nan
    packed = pa.array(list(values), pa.list_(pa.float64()))
    batch = pa.RecordBatch.from_arrays([pa.array(range(n_rows), pa.int64()), packed], ["s0", "x"])
    # A slice has an offset, which flatten minds and values does not.
    for part in (batch, batch.slice(n_rows // 2)):
        rows = unpacked(part, Packing(DOUBLES, ("n",)))
        assert rows.schema.names == ["n", *DOUBLES]
        expected = values[n_rows - part.num_rows :]
        got = np.stack([rows[name].to_numpy() for name in DOUBLES], axis=1)
        assert np.array_equal(got, expected, equal_nan=True)
