"""Scalers and imputers: scikit-learn's own float operations, in its order, column by column.

`sklearn/preprocessing/_data.py` and `sklearn/impute/_base.py`; fitted attributes are read by name,
so that nothing here imports scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparkscore.fused.columns import (
    Block,
    Column,
    Form,
    NumberColumn,
    Step,
    TextColumn,
    cast,
    common_dtype,
    mapped,
)
from sparkscore.fused.refusals import LeftToPipelineError, NotFusedError
from sparkscore.fused.sources import Array

_Operation = tuple[np.ufunc, Array]
"""With an operand for each column."""

_FLOAT_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))


def read_standard_scaler(scaler: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """Without the mean, by the scale."""
    floats = _floats(block)
    steps: list[_Operation] = []
    if scaler.with_mean:
        steps.append((np.subtract, scaler.mean_.astype(floats.columns[0].dtype)))
    if scaler.with_std:
        steps.append((np.divide, scaler.scale_.astype(floats.columns[0].dtype)))
    return _scaled(floats, steps)


def read_min_max_scaler(scaler: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """Times the scale, plus the minimum, clipped where it says so."""
    steps: list[_Operation] = [(np.multiply, scaler.scale_), (np.add, scaler.min_)]
    low, high = scaler.feature_range
    return _clipped(_scaled(_floats(block), steps), low, high, is_clipped=scaler.clip)


def read_max_abs_scaler(scaler: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """By the scale."""
    scaled = _scaled(_floats(block), [(np.divide, scaler.scale_)])
    return _clipped(scaled, -1.0, 1.0, is_clipped=getattr(scaler, "clip", False))


def read_robust_scaler(scaler: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """Without the centre, by the scale."""
    steps: list[_Operation] = []
    if scaler.with_centering:
        steps.append((np.subtract, scaler.center_))
    if scaler.with_scaling:
        steps.append((np.divide, scaler.scale_))
    return _scaled(_floats(block), steps)


def read_simple_imputer(imputer: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """Missing values replaced, columns without any value left out, indicators at the end.

    Raises:
        NotFusedError: Another value stands for a missing one, or text has indicators.
    """
    if callable(imputer.strategy):
        raise NotFusedError("an imputer's strategy is a function")
    if imputer._fit_dtype.kind == "O":
        return _with_text_imputed(imputer, block)
    if not _is_nan_or_na(imputer.missing_values):
        raise NotFusedError(f"an imputer takes {imputer.missing_values!r} for missing")
    dtype = common_dtype(block)
    if imputer.strategy in {"mean", "median"}:
        dtype = _float_dtype(dtype)
    if dtype.kind not in "fiu" or (
        imputer.strategy == "constant" and not np.can_cast(imputer._fill_dtype, dtype, "same_kind")
    ):
        raise NotFusedError(f"an imputer is given {dtype}")
    columns = [finite(cast(column, dtype)) for column in block.columns]
    statistics = imputer.statistics_
    filled = [
        mapped(column, _Fill(np.asarray(value).astype(imputer._fill_dtype).astype(dtype)))
        for column, value in zip(columns, statistics, strict=True)
        if imputer.keep_empty_features or not np.isnan(value)
    ]
    return Block((*filled, *_indicators(imputer, columns, dtype)), Form.ARRAY)


def finite(column: Column) -> Column:
    """The column where no value is infinite; a batch that has one is left to the pipeline."""
    is_checked = isinstance(column, NumberColumn) and _is_checked(column.steps)
    return column if column.dtype.kind != "f" or is_checked else mapped(column, _refuse_infinite)


def _is_checked(steps: tuple[Step, ...]) -> bool:
    """Whether values were looked at, and then at most filled with what is no infinity."""
    *before, last = steps or (None,)
    is_finite_fill = isinstance(last, _Fill) and bool(np.isfinite(last.value))
    return last is _refuse_infinite or (is_finite_fill and _is_checked(tuple(before)))


def _with_text_imputed(imputer: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    if imputer.add_indicator:
        raise NotFusedError("an imputer of text adds indicators")
    # Text is None where it is missing, which is no NaN: that is left as it is.
    is_known = imputer.missing_values is None or _is_nan_or_na(imputer.missing_values)
    if not is_known:
        raise NotFusedError(f"an imputer takes {imputer.missing_values!r} for missing")
    fills_none = not isinstance(imputer.missing_values, float)
    columns: list[Column] = []
    for column, value in zip(block.columns, imputer.statistics_, strict=True):
        if not isinstance(column, TextColumn) or not isinstance(value, str):
            raise NotFusedError("an imputer of text is given, or fills in, something else")
        is_filled = fills_none and column.null_as is None
        columns.append(replace(column, null_as=value) if is_filled else column)
    return Block(tuple(columns), Form.ARRAY)


def _indicators(imputer: Any, columns: list[Column], dtype: np.dtype[Any]) -> Iterable[Column]:  # noqa: ANN401 - untyped library
    if not imputer.add_indicator:
        return ()
    if imputer.indicator_.features != "missing-only":
        raise NotFusedError("an imputer's indicators are not those of missing values only")
    # Beside the numbers a boolean becomes one of them.
    return (
        mapped(columns[i], lambda values: np.isnan(values).astype(np.result_type(dtype, bool)))
        for i in imputer.indicator_.features_
    )


@dataclass(frozen=True, eq=False)
class _Fill:
    """A value in the place of missing ones."""

    value: Array

    def __call__(self, values: Array) -> Array:
        if values.dtype.kind != "f":
            return values
        return np.where(np.isnan(values), self.value, values)


def _is_nan_or_na(value: object) -> bool:
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _floats(block: Block) -> Block:
    """What a scaler makes of its input: one float dtype; no value may be infinite."""
    dtype = _float_dtype(common_dtype(block))
    return Block(tuple(finite(cast(column, dtype)) for column in block.columns), Form.ARRAY)


def _float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "O":
        raise NotFusedError("numbers are wanted of a text column")
    return dtype if dtype in _FLOAT_DTYPES else _FLOAT_DTYPES[0]


def _refuse_infinite(values: Array) -> Array:
    # The sum alone is cheap, and tells for most columns that all is well.
    if not math.isfinite(values.sum()) and np.isinf(values).any():
        raise LeftToPipelineError("a number is infinite")
    return values


def _scaled(block: Block, steps: Iterable[_Operation]) -> Block:
    columns = block.columns
    for function, operands in steps:
        columns = tuple(
            mapped(column, _by_operand(function, operands[i : i + 1]))
            for i, column in zip(range(len(operands)), columns, strict=True)
        )
    return replace(block, columns=columns)


def _by_operand(function: np.ufunc, operand: Array) -> Step:
    def step(values: Array) -> Array:
        # In place in scikit-learn: computed in the wider dtype, kept in that of the values.
        answer: Array = function(values, operand)
        return answer.astype(values.dtype, copy=False)

    return step


def _clipped(block: Block, low: float, high: float, *, is_clipped: bool) -> Block:
    if not is_clipped:
        return block

    def clip(values: Array) -> Array:
        return np.clip(values, values.dtype.type(low), values.dtype.type(high))

    return replace(block, columns=tuple(mapped(column, clip) for column in block.columns))
