"""Encoders of categories, asked once for each category what they make of it.

So every setting of theirs holds, known here or not: what to drop, rare categories put together,
the codes of unknown and missing values.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sparkscore.fused.columns import (
    Block,
    Column,
    Form,
    NumberColumn,
    TableColumn,
    TextColumn,
    cast,
    common_dtype,
)
from sparkscore.fused.numeric_steps import finite
from sparkscore.fused.refusals import NotFusedError
from sparkscore.fused.sources import Array, Codes, NumberCodes, TextCodes

_MAX_CELLS = 2**22
"""Of a table, 32 MB: what 2,000 categories one-hot take."""


def read_one_hot_encoder(encoder: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """A column for each category that is not dropped."""
    form = Form.SPARSE if encoder.sparse_output else Form.ARRAY
    return Block(_encoded(encoder, block, encoder._n_features_outs), form)


def read_ordinal_encoder(encoder: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """A number for each category."""
    return Block(_encoded(encoder, block, [1] * len(block.columns)), Form.ARRAY)


def _encoded(encoder: Any, block: Block, widths: Sequence[int]) -> tuple[Column, ...]:  # noqa: ANN401 - untyped library
    asking = _Asking(encoder, block, sum(widths))
    ends = np.cumsum([0, *widths]).tolist()
    columns: list[Column] = []
    for i, (start, stop) in enumerate(pairwise(ends)):
        codes, table = asking.table(i, start, stop)
        columns += [TableColumn(codes, table[:, j]) for j in range(stop - start)]
    return tuple(columns)


class _Asking:
    """Questions to an encoder about one column; the others hold their first category."""

    def __init__(self, encoder: Any, block: Block, width: int) -> None:  # noqa: ANN401 - untyped library
        if len(block.columns) != len(encoder.categories_):
            raise NotFusedError("an encoder is given another number of columns")
        self._encoder = encoder
        self._n_cells = len(block.columns) + width
        self._is_frame = block.form is Form.FRAME
        if self._is_frame:
            self._columns = block.columns
        else:
            dtype = common_dtype(block)
            self._columns = tuple(cast(column, dtype) for column in block.columns)

    def table(self, index: int, start: int, stop: int) -> tuple[Codes, Array]:
        """The codes of a column, and (n_codes, stop - start) what the encoder makes of each."""
        column, categories = self._columns[index], self._encoder.categories_[index]
        known = [value for value in categories.tolist() if not _is_missing(value)]
        if (len(known) + 2) * self._n_cells > _MAX_CELLS:
            raise NotFusedError(f"an encoder knows {len(known)} categories of one column")
        kind = column.dtype.kind
        if categories.dtype.kind != kind or (
            kind == "O" and not all(isinstance(value, str) for value in known)
        ):
            raise NotFusedError(f"an encoder of {categories.dtype} is given {column.dtype}")
        if not known:
            raise NotFusedError("an encoder knows no category of a column")
        rows = self._rows(index, known, start, stop)
        special = [
            self._special(index, value, start, stop) for value in _missing_and_other(known, kind)
        ]
        if isinstance(column, TextColumn) and column.null_as is not None:
            is_known = column.null_as in known
            special[0] = rows[[known.index(column.null_as)]] if is_known else special[1]
        blank = np.zeros((1, stop - start))
        table = np.concatenate([rows, *(blank if row is None else row for row in special)])
        refuses_missing, refuses_other = (row is None for row in special)
        codes = self._codes(column, tuple(known), refuses_missing, refuses_other)
        return codes, table.astype(self._encoder.dtype, copy=False)

    def _codes(
        self, column: Column, values: tuple[Any, ...], refuses_missing: bool, refuses_other: bool
    ) -> Codes:
        if isinstance(column, TextColumn):
            return TextCodes(values, refuses_missing, refuses_other, column.index)
        numbers = finite(column)
        if isinstance(numbers, NumberColumn):
            return NumberCodes(values, refuses_missing, refuses_other, numbers)
        raise NotFusedError("an encoder is given what another one has made")

    def _special(self, index: int, value: object, start: int, stop: int) -> Array | None:
        """What the encoder makes of a missing or unknown value; None: it raises."""
        if value is _NO_VALUE:
            return None
        try:
            return self._rows(index, [value], start, stop)
        except ValueError:
            return None

    def _rows(self, index: int, values: list[Any], start: int, stop: int) -> Array:
        columns = []
        for i, column in enumerate(self._columns):
            filler = self._encoder.categories_[i][:1].tolist() * len(values)
            asked = np.empty(len(values), column.dtype)
            asked[:] = values if i == index else filler
            columns.append(asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of unknown categories, which are meant here.
            answer = self._encoder.transform(self._input(columns))
        dense = answer.toarray() if hasattr(answer, "toarray") else answer
        return np.asarray(dense)[:, start:stop]

    def _input(self, columns: list[Array]) -> object:
        if not self._is_frame:
            return np.column_stack(columns)
        import pandas as pd

        names = getattr(self._encoder, "feature_names_in_", range(len(columns)))
        return pd.DataFrame(dict(enumerate(columns))).set_axis(names, axis="columns")


_NO_VALUE = object()


def _is_missing(value: object) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN


def _missing_and_other(known: list[Any], kind: str) -> tuple[object, object]:
    """A missing value of a dtype's kind, and one that is no category."""
    if kind == "O":
        return None, "?".join(["", *known, ""])
    if kind == "f":
        return np.nan, float(np.nextafter(max(known), np.inf))
    if kind == "b":
        return _NO_VALUE, next((value for value in (False, True) if value not in known), _NO_VALUE)
    return _NO_VALUE, max(known) + 1
