"""The matrix that a pipeline's last step is given, filled from Arrow a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparkscore.fused.columns import Block, NumberColumn, Step, TableColumn
from sparkscore.fused.refusals import NotFusedError
from sparkscore.fused.sources import Array, Codes, Number

if TYPE_CHECKING:
    import pyarrow as pa

Order = Literal["C", "F"]

_ROWS = 4096
"""A column of so many doubles takes 32 KB, so that what is done to it stays in the cache."""
_MAX_BYTES = 2**19
"""Of the matrix, written at once: what a core's second-level cache holds."""


@dataclass(frozen=True)
class _NumberPart:
    """One column of the matrix, from a source of numbers."""

    source: int
    start: int
    steps: tuple[Step, ...]

    n_cells = 1

    is_sparse = False

    def prepare(self, values: Array) -> Array:
        """The column's values from its source's."""
        for step in self.steps:
            values = step(values)
        return values

    def fill(self, out: Array, values: Array) -> None:
        """Write the column."""
        out[:, self.start] = values

    def fill_cells(self, cells: Array, places: Array, values: Array) -> None:
        """Write the column as cells of a sparse matrix."""
        cells[:, 0] = values
        places[:, 0] = self.start


@dataclass(frozen=True)
class _TablePart:
    """Columns side by side, from a source of categories; `table` is (n_codes, n_columns)."""

    source: int
    start: int
    table: Array

    def prepare(self, codes: Array) -> Array:
        """The codes as they are."""
        return codes

    def fill(self, out: Array, codes: Array) -> None:
        """Write the columns; `out` holds zeros where `is_sparse`."""
        if self.is_sparse and out.flags.c_contiguous:
            values, columns = self._compact
            places = columns[:, 0].take(codes)
            places += np.arange(0, out.size, out.shape[1])
            out.reshape(-1)[places] = values[:, 0].take(codes)
            return
        for j, values in enumerate(self.table.T, self.start):
            out[:, j] = values.take(codes)

    @property
    def is_sparse(self) -> bool:
        """Whether a category has one value of many that is not zero: then one write is enough."""
        return self.n_cells == 1 and self.table.shape[1] > 1

    def fill_cells(self, cells: Array, places: Array, codes: Array) -> None:
        """Write the values that are not zero as cells of a sparse matrix."""
        values, columns = self._compact
        for j in range(self.n_cells):
            cells[:, j] = values[:, j].take(codes)
            places[:, j] = columns[:, j].take(codes)

    @cached_property
    def n_cells(self) -> int:
        """The most values of a category that are not zero."""
        return int((self.table != 0).sum(axis=1).max())

    @cached_property
    def _compact(self) -> tuple[Array, Array]:
        """(n_codes, n_cells) values that are not zero, then zeros, and their columns."""
        columns = np.argsort(self.table == 0, axis=1, kind="stable")[:, : self.n_cells]
        return np.take_along_axis(self.table, columns, axis=1), columns + self.start


class Filling:
    """Fills matrices of one block.

    Attributes:
        sources: What is read of a batch.

    Args:
        block: What the last step is given; no text.

    Raises:
        NotFusedError: A column is text, or there is none.
    """

    def __init__(self, block: Block) -> None:
        self.n_columns = len(block.columns)
        if not self.n_columns:
            raise NotFusedError("no column reaches the last step")
        self.dtype: np.dtype[Any] = np.result_type(*(each.dtype for each in block.columns))
        if self.dtype.kind == "O":
            raise NotFusedError("text reaches the last step")
        self.sources: tuple[Number | Codes, ...] = tuple(dict.fromkeys(_sources(block)))
        self._parts = tuple(_parts(block, self.sources, self.dtype))
        self._has_zeros = any(part.is_sparse for part in self._parts)

    def dense(self, batch: pa.RecordBatch, order: Order) -> Array:
        """(n_rows, n_columns) in this memory order.

        Raises:
            LeftToPipelineError: A value is one that a step refuses.
        """
        matrix = np.empty((batch.num_rows, self.n_columns), self.dtype, order)
        # Row by row, neighbours share a cache line, and are best written soon after each other.
        step = _ROWS if order == "F" else max(1, _MAX_BYTES // matrix[:1].nbytes)
        with np.errstate(all="ignore"):  # What becomes of a value is the pipeline's business.
            for rows, columns in self._chunks(batch):
                chunk = matrix[rows]
                for start in range(0, len(chunk), step):
                    piece = slice(start, start + step)
                    self._fill(chunk[piece], [column[piece] for column in columns])
        return matrix

    def sparse(
        self, batch: pa.RecordBatch, index_dtype: np.dtype[Any]
    ) -> tuple[Array, Array, Array]:
        """Values, column indices and row pointers of a CSR matrix; what is zero is left out.

        Raises:
            LeftToPipelineError: A value is one that a step refuses.
        """
        values, indices, counts = [], [], []
        with np.errstate(all="ignore"):
            for rows, columns in self._chunks(batch):
                n_rows = min(rows.stop, batch.num_rows) - rows.start
                cells, places = self._cells(n_rows, columns, index_dtype)
                is_kept = cells != 0
                kept = np.flatnonzero(is_kept)
                values.append(cells.take(kept))
                indices.append(places.take(kept))
                counts.append(np.count_nonzero(is_kept, axis=1))
        pointers = np.concatenate([[0], *counts]).cumsum(dtype=index_dtype)
        return np.concatenate(values), np.concatenate(indices), pointers

    def _fill(self, out: Array, columns: Sequence[Array]) -> None:
        if self._has_zeros:
            out.fill(0)
        for part, values in zip(self._parts, columns, strict=True):
            part.fill(out, values)

    def _cells(
        self, n_rows: int, columns: Sequence[Array], index_dtype: np.dtype[Any]
    ) -> tuple[Array, Array]:
        """(n_rows, n_cells) values that may be zero, and the column of each."""
        n_cells = sum(part.n_cells for part in self._parts)
        cells = np.empty((n_rows, n_cells), self.dtype)
        places = np.empty((n_rows, n_cells), index_dtype)
        start = 0
        for part, values in zip(self._parts, columns, strict=True):
            stop = start + part.n_cells
            part.fill_cells(cells[:, start:stop], places[:, start:stop], values)
            start = stop
        return cells, places

    def _chunks(self, batch: pa.RecordBatch) -> Iterator[tuple[slice, list[Array]]]:
        """Some rows at a time: which, and what each part writes."""
        columns = [source.read(batch) for source in self.sources]
        for start in range(0, batch.num_rows, _ROWS):
            rows = slice(start, start + _ROWS)
            yield rows, [part.prepare(columns[part.source][rows]) for part in self._parts]


def _sources(block: Block) -> Iterator[Number | Codes]:
    for column in block.columns:
        if isinstance(column, NumberColumn | TableColumn):
            yield column.source


def _parts(
    block: Block, sources: Sequence[Number | Codes], dtype: np.dtype[Any]
) -> Iterator[_NumberPart | _TablePart]:
    """Columns of one table side by side become one part."""
    numbers = {source: i for i, source in enumerate(sources)}
    start, columns = 0, list(block.columns)
    while start < len(columns):
        column = columns[start]
        stop = start + 1
        if isinstance(column, TableColumn):
            while stop < len(columns) and _is_beside(column, columns[stop]):
                stop += 1
            tables = [each.table for each in columns[start:stop] if isinstance(each, TableColumn)]
            table = np.column_stack(tables).astype(dtype)
            yield _TablePart(numbers[column.source], start, table)
        elif isinstance(column, NumberColumn):
            yield _NumberPart(numbers[column.source], start, column.steps)
        start = stop


def _is_beside(column: TableColumn, other: object) -> bool:
    return isinstance(other, TableColumn) and other.source == column.source
