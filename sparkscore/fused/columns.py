"""What becomes of each column on its way through a pipeline, before any row is seen.

A block is a matrix in the making: the columns that a step hands to the next one. Every step that
is known here works value by value, so that a column is where it comes from and what is done to it.
What starts from categories is worked out once for each category, and is a table from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkscore.fused.refusals import LeftToPipelineError, NotFusedError
from sparkscore.fused.sources import Array, Codes, Number
from sparkscore.package.datatypes import ScalarType

if TYPE_CHECKING:
    from sparkscore.package.schema import ColumnSchema

Step = Callable[[Array], Array]
"""One value from one value, whatever stands beside it."""


class Form(Enum):
    """What a step hands to the next one."""

    FRAME = "frame"
    ARRAY = "array"
    SPARSE = "sparse"


@dataclass(frozen=True)
class NumberColumn:
    """Numbers of the batch, and what is done to them in turn.

    Attributes:
        source: Where they come from.
        dtype: Of the values after all steps.
        steps: Each gets the answer of the one before.
    """

    source: Number
    dtype: np.dtype[Any]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class TableColumn:
    """A value for each category.

    Attributes:
        source: Gives each row its category's number.
        table: (n_codes,) value of each number.
    """

    source: Codes
    table: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.table.dtype


@dataclass(frozen=True)
class TextColumn:
    """Text of the batch, before something encodes it.

    Attributes:
        index: Its column of the batch.
        null_as: What an imputer puts in the place of null; None: null stays.
    """

    index: int
    null_as: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Python objects, as NumPy holds text."""
        return np.dtype(object)


Column = NumberColumn | TableColumn | TextColumn


@dataclass(frozen=True)
class Block:
    """Columns side by side; those of an array share a dtype.

    Attributes:
        columns: In order.
        form: What holds them.
        names: Of a frame's columns; None where they have none.
    """

    columns: tuple[Column, ...]
    form: Form
    names: tuple[str, ...] | None = None

    def select(self, indices: Sequence[int]) -> Block:
        """The columns at these places, in this order."""
        names = None if self.names is None else tuple(self.names[i] for i in indices)
        return replace(self, columns=tuple(self.columns[i] for i in indices), names=names)


def frame_block(schema: ColumnSchema) -> Block:
    """The frame that `flavors.frames.pandas_frame` makes.

    Raises:
        NotFusedError: A column is of a type that no step here takes.
    """
    columns: list[Column] = []
    for index, spec in enumerate(schema.columns):
        if spec.type is ScalarType.STRING:
            columns.append(TextColumn(index))
        elif spec.type in _DTYPES:
            dtype, is_float = np.dtype(_DTYPES[spec.type]), spec.type in _FLOATS
            is_masked = not (spec.required or is_float)
            number = Number(index, is_masked=is_masked, takes_null=is_masked or is_float)
            columns.append(NumberColumn(number, np.dtype(np.float64) if is_masked else dtype))
        else:
            raise NotFusedError(f"column {schema.names[index]!r} is {spec.type}")
    is_named = bool(schema.columns) and schema.columns[0].name is not None
    return Block(tuple(columns), Form.FRAME, schema.names if is_named else None)


def mapped(column: Column, step: Step) -> Column:
    """The column with one more step.

    Raises:
        NotFusedError: It is text, or a category's value is not taken by the step.
    """
    if isinstance(column, TableColumn):
        try:
            return replace(column, table=step(column.table))
        except LeftToPipelineError as exc:
            raise NotFusedError("a category's number is not finite") from exc
    if isinstance(column, TextColumn):
        raise NotFusedError("numbers are wanted of a text column")
    dtype = step(np.empty(0, column.dtype)).dtype
    return replace(column, dtype=dtype, steps=(*column.steps, step))


def cast(column: Column, dtype: np.dtype[Any]) -> Column:
    """The column with its values as `dtype`.

    Raises:
        NotFusedError: It is text.
    """
    if column.dtype == dtype:
        return column
    return mapped(column, lambda values: values.astype(dtype))


def is_masked(column: Column) -> bool:
    """Whether a frame holds it as one of pandas' nullable arrays."""
    return isinstance(column, NumberColumn) and column.source.is_masked and not column.steps


def common_dtype(block: Block, *, is_validated: bool) -> np.dtype[Any]:
    """The dtype of the one array that the block becomes.

    Args:
        block: Of one or more columns.
        is_validated: Whether `sklearn.utils.check_array` makes it, which knows pandas' nullable
            arrays and booleans; else NumPy does.

    Raises:
        NotFusedError: It would be an array of objects that are not text.
    """
    dtypes = {column.dtype for column in block.columns}
    if len(dtypes) == 1 and np.dtype(object) in dtypes:
        return np.dtype(object)
    if np.dtype(object) in dtypes:
        raise NotFusedError("a step mixes text and numbers")
    if block.form is Form.FRAME:
        masked = any(is_masked(column) for column in block.columns)
        is_mixed = len(dtypes) > 1 and np.dtype(bool) in dtypes
        if not is_validated and (masked or is_mixed):
            raise NotFusedError("numbers that pandas hands on as objects pass through")
        if masked:
            return np.dtype(np.float64)
    return np.result_type(*dtypes)


_FLOATS = (ScalarType.FLOAT, ScalarType.DOUBLE)
_DTYPES: dict[object, type[np.generic]] = {
    ScalarType.BOOLEAN: np.bool_,
    ScalarType.INTEGER: np.int32,
    ScalarType.LONG: np.int64,
    ScalarType.FLOAT: np.float32,
    ScalarType.DOUBLE: np.float64,
}
