"""Data whose signature MLflow and sparkscore infer; read by both, each in its own process."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64")
OBJECTS = [{"a": 1, "b": "x"}, {"a": 2}]

INPUTS: dict[str, object] = {
    "numbers": pd.DataFrame({kind: np.array([1, 2], kind) for kind in (*NUMBERS, "bool")}),
    "missing": pd.DataFrame(
        {
            "double": [1.0, None],
            "long": pd.array([1, None], "Int64"),
            "whole": pd.array([1, 2], "Int32"),
            "flag": pd.array([True, None], "boolean"),
            "text": ["a", None],
            "string": pd.array(["a", None], "string"),
        }
    ),
    "others": pd.DataFrame(
        {
            "time": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "date": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)],
            "bytes": [b"1", b"2"],
            "category": pd.Categorical(["u", "v"]),
        }
    ),
    "nested": pd.DataFrame({"list": [[1.0], [2.0, 3.0]], "object": OBJECTS, "lists": [[[1]], []]}),
    "positions": pd.DataFrame(np.zeros((2, 2))),
    "vector": np.zeros(2, "int32"),
    "matrix": np.zeros((2, 3)),
    "images": np.zeros((2, 4, 4, 1), "uint8"),
    "words": np.array([["a", "long"]]),
    "named": {"a": np.zeros((2, 3)), "b": np.zeros(2, "float32"), "c": np.array(["x", "y"])},
}
PARAMS: dict[str, object] = {"flag": True, "n": 1, "by": 0.5, "word": "x", "many": [1, 2]}
