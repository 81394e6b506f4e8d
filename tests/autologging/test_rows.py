from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sparkscore.autologging.rows import rows_of
from sparkscore.errors import UsageError
from sparkscore.package.signature import ColumnSchema, infer_signature

FRAME = pd.DataFrame(
    {
        "x": [1.0, 2.0, np.nan],
        "n": [1, 2, 3],
        "t": ["a", "b", None],
        "c": pd.Categorical(["k", "l", "k"]),
    }
)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(x=[1.0, 2.5, np.nan]),
        lambda f: f.assign(t=["a", "c", None]),
        lambda f: f.assign(n=f["n"].astype("int32")),
        lambda f: f.rename(columns={"n": "m"}),
        lambda f: f[["n", "x", "t", "c"]],
        lambda f: f.head(2),
        lambda f: f.iloc[::-1],
    ],
)
def test_digest_is_of_values_names_types_and_order(
    change: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    digest = rows_of(FRAME).digest
    assert rows_of(FRAME.copy()).digest == digest
    assert len(digest) == 16
    assert rows_of(change(FRAME)).digest != digest


def test_digest_covers_the_targets() -> None:
    digests = {
        rows_of(FRAME, targets).digest
        for targets in (
            None,
            [0, 1, 0],
            np.array(["a", "b", "a"], dtype=object),
            pd.Series([1, 1, 1]),
        )
    }
    assert len(digests) == 4


def test_digest_of_many_rows_is_of_some_and_of_how_many() -> None:
    many = np.zeros((150_000, 1))
    rows = rows_of(many)
    assert (rows.n_rows, len(rows.example(5)), rows.sample.shape[0]) == (150_000, 5, 100_000)
    assert rows_of(many[:-1]).digest != rows.digest
    last = many.copy()
    last[-1] = 1.0
    assert rows_of(last).digest != rows.digest


def test_one_null_far_down_makes_a_column_optional() -> None:
    frame = pd.DataFrame({"n": pd.array([1] * 150_000, "Int64")})
    frame.loc[149_990, "n"] = None
    inputs = rows_of(frame).inputs
    assert isinstance(inputs, ColumnSchema)
    assert [column.required for column in inputs.columns] == [False]


def test_arrays_lists_and_sparse_matrices_are_one_tensor() -> None:
    array = np.array([[1.0, 0.0], [0.0, 2.0]])
    expected = infer_signature(array).inputs
    for features in (array, array.tolist(), sparse.csr_matrix(array), sparse.coo_array(array)):
        rows = rows_of(features)
        assert (rows.inputs, rows.n_rows, rows.n_columns) == (expected, 2, 2)
        assert rows.example(1).to_numpy().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("features", [["a", "b"], pd.Series(["a"]), np.zeros((1, 2, 3)), "abc"])
def test_rows_that_are_no_table_are_refused(features: object) -> None:
    with pytest.raises(UsageError, match="no frame, array of two axes or sparse matrix"):
        rows_of(features)
