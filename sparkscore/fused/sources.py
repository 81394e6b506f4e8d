"""Where columns start: numbers of a batch as NumPy has them, and the numbers of categories."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.fused.levels import note_rows
from sparkscore.fused.refusals import LeftToPipelineError

if TYPE_CHECKING:
    from sparkscore.fused.columns import NumberColumn

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Number:
    """A numeric or boolean column of the batch.

    Attributes:
        index: Its place.
        is_masked: Whether null is possible beside whole numbers, which then become doubles.
        takes_null: Whether a null is missing; else the batch is refused.
    """

    index: int
    is_masked: bool
    takes_null: bool

    def read(self, batch: pa.RecordBatch) -> Array:
        """(n_rows,) values; null is NaN.

        Raises:
            LeftToPipelineError: A required column holds a null.
        """
        values = batch.column(self.index)
        if values.null_count and not self.takes_null:
            raise LeftToPipelineError("a required column holds a null")
        if self.is_masked:
            # Not safe: a long above 2**53 becomes the nearest double, as in NumPy.
            values = values.cast(pa.float64(), safe=False)
        return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Codes:
    """Numbers of categories: 0, 1, ... for `values`, then one for missing, and one for all others.

    Attributes:
        values: Text, or numbers in rising order.
        refuses_missing: Whether the encoder raises for a missing value.
        refuses_other: Whether it raises for a value that is no category.
    """

    values: tuple[Any, ...]
    refuses_missing: bool
    refuses_other: bool

    @property
    def missing(self) -> int:
        """The number of a missing value."""
        return len(self.values)

    @property
    def other(self) -> int:
        """The number of a value that is no category."""
        return len(self.values) + 1

    def read(self, batch: pa.RecordBatch) -> Array:
        """(n_rows,) numbers.

        Raises:
            LeftToPipelineError: The encoder raises for a value.
        """
        codes = self._codes(batch)
        if self.refuses_missing and (codes == self.missing).any():
            raise LeftToPipelineError("a value is missing")
        if len(codes) and codes.max() == self.other:  # The highest of all.
            if self.refuses_other:
                raise LeftToPipelineError("a value is no known category")
            note_rows(batch, self._place, codes == self.other)
        return codes

    @property
    def _place(self) -> int:
        """The place of its column in the batch."""
        raise NotImplementedError

    def _codes(self, batch: pa.RecordBatch) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class TextCodes(Codes):
    """Categories of a text column, by its index."""

    index: int

    @property
    def _place(self) -> int:
        return self.index

    def _codes(self, batch: pa.RecordBatch) -> Array:
        found = pc.index_in(batch.column(self.index), value_set=self._known)
        return found.fill_null(self.other).to_numpy().astype(np.intp)  # type: ignore[no-any-return]

    @cached_property
    def _known(self) -> pa.Array:
        return pa.array([*self.values, None], pa.string())


@dataclass(frozen=True)
class NumberCodes(Codes):
    """Categories of numbers, after the steps of `column`."""

    column: NumberColumn

    @property
    def _place(self) -> int:
        return self.column.source.index

    def _codes(self, batch: pa.RecordBatch) -> Array:
        numbers = self.column.source.read(batch)
        for step in self.column.steps:
            numbers = step(numbers)
        places = np.searchsorted(self._known[:-1], numbers)
        codes = np.where(self._known[places] == numbers, places, self.other)
        if numbers.dtype.kind == "f":
            codes[np.isnan(numbers)] = self.missing
        return codes

    @cached_property
    def _known(self) -> Array:
        return np.array(self.values)
