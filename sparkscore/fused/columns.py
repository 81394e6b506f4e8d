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


def common_dtype(block: Block) -> np.dtype[Any]:
    """The dtype of the one array that the block becomes.

    Numbers that a frame holds as objects, once they are one array, count as the doubles that every
    later step makes of them.

    Args:
        block: Of one or more columns.

    Raises:
        NotFusedError: It would mix text and numbers.
    """
    dtypes = {column.dtype for column in block.columns}
    if len(dtypes) == 1:
        return dtypes.pop()
    if np.dtype(object) in dtypes:
        raise NotFusedError("a step mixes text and numbers")
    return np.result_type(*dtypes)


def passed_through(block: Block) -> Block:
    """The block as NumPy makes an array of a frame, without scikit-learn's validation.

    Nullable whole numbers and booleans beside numbers are objects there. A missing one among them
    is no number to any later step.
    """
    if block.form is not Form.FRAME:
        return block
    columns = tuple(
        mapped(column, _refuse_missing) if is_masked(column) else column for column in block.columns
    )
    is_mixed = len({column.dtype for column in columns}) > 1
    if is_mixed and any(column.dtype == np.bool_ for column in columns):
        columns = tuple(cast(column, np.dtype(np.float64)) for column in columns)
    return replace(block, columns=columns)


def _refuse_missing(values: Array) -> Array:
    if np.isnan(values).any():
        raise LeftToPipelineError("a number is missing where it passes through")
    return values


_FLOATS = (ScalarType.FLOAT, ScalarType.DOUBLE)
_DTYPES: dict[object, type[np.generic]] = {
    ScalarType.BOOLEAN: np.bool_,
    ScalarType.INTEGER: np.int32,
    ScalarType.LONG: np.int64,
    ScalarType.FLOAT: np.float32,
    ScalarType.DOUBLE: np.float64,
}
