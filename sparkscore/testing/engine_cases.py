"""What every engine is given: rows with values that are easily changed, and requests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from sparkscore.flavors import load_predictor
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.signature import ColumnSchema, ColumnSpec, DataType, ScalarType
from sparkscore.scoring.batch import BatchTask, score_batch
from sparkscore.scoring.comparison import compare
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable
from sparkscore.scoring.plan import ScoringRequest, WriteMode
from sparkscore.scoring.rejects import InvalidRows

TRUST = TrustPolicy(allow_code=True)
ODD_LONG = 9223372036854775707
YEAR_1 = dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)
YEAR_9999 = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)
_IN_2013 = dt.datetime(2013, 10, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)

ROWS = pa.table(
    {
        "id": pa.array(range(6), pa.int64()),
        "x": pa.array([1.0, -0.1, None, float("inf"), 1e-300, 2.0], pa.float64()),
        "n": pa.array([ODD_LONG, None, -1, -ODD_LONG, 2**53 + 1, None], pa.int64()),
        "whole": pa.array([1, 2, 3, 4, 5, -(2**31)], pa.int32()),
        "flag": pa.array([True, None, False, True, None, False], pa.bool_()),
        "word": pa.array(["a", None, "", "ü€😀", "null", " "], pa.string()),
        "at": pa.array([_IN_2013, None, _IN_2013, None, _IN_2013, None], pa.timestamp("us", "UTC")),
        "tags": pa.array([["a", None], None, [], ["b"], None, ["ü"]], pa.list_(pa.string())),
    }
)
"""Rows for models with the inputs of `sparkscore.testing.models`."""

_NAN, _INF, _TINY = float("nan"), float("inf"), 5e-324
MANY_DOUBLES = pa.table(
    {
        "id": pa.array(range(6), pa.int64()),
        "a": pa.array([-0.0, 0.0, None, _NAN, _INF, -_TINY], pa.float64()),
        "b": pa.array([None, 0.1, _TINY, -_INF, 1e308, 3.0], pa.float64()),
        "narrow": pa.array([-0.0, 0.1, None, _NAN, 1e-45, 3.4e38], pa.float32()),
        "int": pa.array([2**31 - 1, -(2**31), 0, None, 7, 8], pa.int32()),
        "short": pa.array([None, -1, 2, 3, 32767, -32768], pa.int16()),
        "whole": pa.array([2**53 + 1, -1, None, 3, 4, ODD_LONG], pa.int64()),
        "p0": pa.array([b"\x00", None, b"", b"a", b"b", b"c"], pa.binary()),
        "valid": pa.array(["", None, "ü", "a", "b", "c"], pa.string()),
        "report": pa.array([Decimal("1.50"), None, *map(Decimal, "1234")], pa.decimal128(10, 2)),
        "at": pa.array([YEAR_1, YEAR_9999, None, _IN_2013, None, None], pa.timestamp("us", "UTC")),
    }
)
"""Rows for a model of doubles and one required long, which are missing in different places."""

ARRAYS = pa.table(
    {
        "id": pa.array(range(4), pa.int64()),
        "lists": [[i + 0.5, float(2**53 - i)] for i in range(4)],
        "0": [i + 0.5 for i in range(4)],
        "1": pa.array([2**53 - i for i in range(4)], pa.int64()),
        "one": pa.array([2**53 - i for i in range(4)], pa.int64()),
        "wide": pa.array([0.0, 0.5, 1.0, 1.5], pa.float32()),
        "image": pa.array([[[1, 2, 3], [4, 5, 255]]] * 4, pa.list_(pa.list_(pa.int16()))),
        "word": ["", "ab", "abcd", "ä"],
    }
)
"""Columns that stand for tensors: lists, and single values."""

_THING = pa.struct([("more", pa.string()), ("b", pa.int32()), ("a", pa.int64())])
_WHOLE_THING = {"more": "left out", "b": 1, "a": ODD_LONG}
OBJECTS = pa.table(
    {
        "id": pa.array(range(3), pa.int64()),
        "thing": pa.array([_WHOLE_THING, None, {"more": "", "b": 2, "a": None}], _THING),
        "things": pa.array([[_WHOLE_THING, None], None, []], pa.list_(_THING)),
        "marks": pa.array(
            [[("x", 0.5), ("y", None)], None, []], pa.map_(pa.string(), pa.float32())
        ),
        "free": pa.array([{"z": [1, 2]}, None, None], pa.struct([("z", pa.list_(pa.int32()))])),
    }
)
"""Objects with parts in another order and further ones; the last lacks one that models need."""

TEXT: dict[str, DataType] = {"prediction": ScalarType.STRING}
X = ColumnSchema((ColumnSpec("x", ScalarType.DOUBLE),))
WHOLE_X = ColumnSchema((ColumnSpec("x", ScalarType.LONG),))


def with_invalid_rows() -> pa.Table:
    """Five rows, two of which have no value for a required integer."""
    x = pa.array([1, None, 3, 4, None], pa.int64())
    return pa.table({"id": pa.array(range(5), pa.int64()), "x": x})


def wide_rows(kind: str) -> tuple[pa.Table, ColumnSchema, int]:
    """A hundred rows of texts or of many doubles, the inputs of a model of them, bytes a row."""
    n_rows, n_bytes = 100, 10_000
    ids = pa.array(range(n_rows), pa.int64())
    if kind == "doubles":
        names = [f"x{i}" for i in range(40)]
        columns = {name: pa.array(np.arange(n_rows) / 3) for name in names}
        inputs = ColumnSchema(tuple(ColumnSpec(name, ScalarType.DOUBLE) for name in names))
        return pa.table({"id": ids, **columns}), inputs, 8 * len(names)
    words = [str(i if kind == "text" else 0) * n_bytes for i in range(n_rows)]
    inputs = ColumnSchema((ColumnSpec("word", ScalarType.STRING),))
    return pa.table({"id": ids, "word": [word[:n_bytes] for word in words]}), inputs, n_bytes


def request(
    target: Path,
    *,
    keys: tuple[str, ...] = ("id",),
    keep: tuple[str, ...] = (),
    columns: dict[str, str] | None = None,
    mode: WriteMode = WriteMode.APPEND,
    replace_where: str | None = None,
    run_key: str = "night",
    on_invalid: InvalidRows = InvalidRows.FAIL,
    partition_by: tuple[str, ...] = (),
) -> ScoringRequest:
    """A request to score into `target`."""
    return ScoringRequest(
        job="contract",
        target=str(target),
        run_key=run_key,
        keys=keys,
        keep=keep,
        columns=columns or {},
        mode=mode,
        replace_where=replace_where,
        on_invalid=on_invalid,
        partition_by=partition_by,
    )


def described(rows: pa.Table) -> SourceTable:
    """A table in memory as a plan knows a source."""
    columns = tuple(SourceColumn(f.name, f.type, str(f.type)) for f in rows.schema)
    return SourceTable(uri="memory", format="arrow", version="0", columns=columns)


def direct(
    model: ModelFacts, rows: pa.Table, columns: Mapping[str, str] | None = None
) -> list[dict[str, object]]:
    """The model's predictions for `rows` in order, by the worker code and without an engine."""
    bindings, _ = compare(model, described(rows), columns or {})
    task = BatchTask(model.label, bindings, model.predictions)
    predictor = load_predictor(open_package(model.folder), TRUST)
    (batch,) = rows.combine_chunks().to_batches()
    answer: Sequence[dict[str, object]] = score_batch(
        predictor, batch, task
    ).predictions.to_pylist()
    return [comparable(row) for row in answer]


def comparable(row: dict[str, object]) -> dict[str, object]:
    """A row whose floats are compared bit by bit; NaN equals itself."""
    return {name: value.hex() if isinstance(value, float) else value for name, value in row.items()}
