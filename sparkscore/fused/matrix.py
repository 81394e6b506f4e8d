"""The matrix that a pipeline's last step is given, filled from Arrow some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparkscore.fused.columns import Block, Column, NumberColumn, TableColumn, TextColumn
from sparkscore.fused.refusals import NotFusedError
from sparkscore.fused.sources import Array, Codes, Number

if TYPE_CHECKING:
    import pyarrow as pa

Order = Literal["C", "F"]

_ROWS = 8192
"""A column of so many doubles takes 64 KB, so that what is done to it stays in the cache."""
_MAX_BYTES = 2**19
"""Of the matrix, written at once: what a core's second-level cache holds."""


class Filling:
    """Fills matrices of one block.

    Attributes:
        n_columns: Of a matrix.
        dtype: Of its values.
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
        if any(isinstance(column, TextColumn) for column in block.columns):
            raise NotFusedError("text reaches the last step")
        self.dtype: np.dtype[Any] = np.result_type(*(each.dtype for each in block.columns))
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
            for rows, values in self._chunks(batch):
                chunk = matrix[rows]
                for start in range(0, len(chunk), step):
                    piece = slice(start, start + step)
                    self._fill(chunk[piece], [each[:, piece] for each in values])
        return matrix

    def sparse(
        self, batch: pa.RecordBatch, index_dtype: np.dtype[Any]
    ) -> tuple[Array, Array, Array]:
        """Values, column indices and row pointers of a CSR matrix; what is zero is left out.

        Raises:
            LeftToPipelineError: A value is one that a step refuses.
        """
        cells_of_chunks, indices, counts = [], [], []
        with np.errstate(all="ignore"):
            for _, values in self._chunks(batch):
                cells, places = self._cells(values, index_dtype)
                is_kept = cells != 0
                kept = np.flatnonzero(is_kept)
                cells_of_chunks.append(cells.take(kept))
                indices.append(places.take(kept))
                counts.append(np.count_nonzero(is_kept, axis=1))
        pointers = np.concatenate([[0], *counts]).cumsum(dtype=index_dtype)
        return np.concatenate(cells_of_chunks), np.concatenate(indices), pointers

    def _chunks(self, batch: pa.RecordBatch) -> Iterator[tuple[slice, list[Array]]]:
        """Some rows at a time: which, and what each part writes."""
        columns = [source.read(batch) for source in self.sources]
        for start in range(0, batch.num_rows, _ROWS):
            rows = slice(start, start + _ROWS)
            chunk = [column[rows] for column in columns]
            yield rows, [part.values(chunk) for part in self._parts]

    def _fill(self, out: Array, values: Sequence[Array]) -> None:
        if self._has_zeros:
            out.fill(0)
        for part, each in zip(self._parts, values, strict=True):
            part.fill(out, each)

    def _cells(self, values: Sequence[Array], index_dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """(n_rows, n_cells) values that may be zero, and the column of each."""
        shape = (values[0].shape[1], sum(part.n_cells for part in self._parts))
        cells, places = np.empty(shape, self.dtype), np.empty(shape, index_dtype)
        start = 0
        for part, each in zip(self._parts, values, strict=True):
            stop = start + part.n_cells
            part.fill_cells(cells[:, start:stop], places[:, start:stop], each)
            start = stop
        return cells, places


@dataclass(frozen=True)
class _NumbersPart:
    """Columns side by side from `start` on, from sources of numbers."""

    start: int
    columns: tuple[NumberColumn, ...]
    sources: tuple[int, ...]
    dtype: np.dtype[Any]

    is_sparse = False

    @property
    def n_cells(self) -> int:
        """How many columns there are."""
        return len(self.columns)

    def values(self, sources: Sequence[Array]) -> Array:
        """(n_columns, n_rows) after all steps."""
        answer = np.empty((len(self.columns), len(sources[self.sources[0]])), self.dtype)
        for i, (column, source) in enumerate(zip(self.columns, self.sources, strict=True)):
            values = sources[source]
            for step in column.steps:
                values = step(values)
            answer[i] = values
        return answer

    def fill(self, out: Array, values: Array) -> None:
        """Write the columns."""
        out[:, self.start : self.start + len(values)] = values.T

    def fill_cells(self, cells: Array, places: Array, values: Array) -> None:
        """Write the columns as cells of a sparse matrix."""
        cells[:] = values.T
        places[:] = np.arange(self.start, self.start + len(values))


@dataclass(frozen=True)
class _TablePart:
    """Columns side by side, from a source of categories; `table` is (n_codes, n_columns)."""

    start: int
    table: Array
    source: int

    @cached_property
    def n_cells(self) -> int:
        """The most values of a category that are not zero."""
        return int((self.table != 0).sum(axis=1).max())

    @cached_property
    def is_sparse(self) -> bool:
        """Whether a category has one value of many that is not zero: then one write is enough."""
        return self.n_cells == 1 and self.table.shape[1] > 1

    def values(self, sources: Sequence[Array]) -> Array:
        """(1, n_rows) codes."""
        return sources[self.source][None]

    def fill(self, out: Array, codes: Array) -> None:
        """Write the columns; `out` holds zeros where `is_sparse`."""
        if self.is_sparse and out.flags.c_contiguous:
            values, columns = self._compact
            places = columns[:, 0].take(codes[0])
            places += np.arange(0, out.size, out.shape[1])
            out.reshape(-1)[places] = values[:, 0].take(codes[0])
            return
        for j, values in enumerate(self.table.T, self.start):
            out[:, j] = values.take(codes[0])

    def fill_cells(self, cells: Array, places: Array, codes: Array) -> None:
        """Write the values that are not zero as cells of a sparse matrix."""
        values, columns = self._compact
        for j in range(self.n_cells):
            cells[:, j] = values[:, j].take(codes[0])
            places[:, j] = columns[:, j].take(codes[0])

    @cached_property
    def _compact(self) -> tuple[Array, Array]:
        """(n_codes, n_cells) values that are not zero, then zeros, and their columns."""
        columns = np.argsort(self.table == 0, axis=1, kind="stable")[:, : self.n_cells]
        return np.take_along_axis(self.table, columns, axis=1), columns + self.start


def _sources(block: Block) -> Iterator[Number | Codes]:
    for column in block.columns:
        if not isinstance(column, TextColumn):
            yield column.source


def _parts(
    block: Block, sources: Sequence[Number | Codes], dtype: np.dtype[Any]
) -> Iterator[_NumbersPart | _TablePart]:
    """Numbers side by side become one part, and so do columns of one encoded column."""
    places = {source: i for i, source in enumerate(sources)}
    start = 0
    for table_source, group in groupby(block.columns, _table_source):
        columns = list(group)
        if table_source is None:
            numbers = tuple(each for each in columns if isinstance(each, NumberColumn))
            read = tuple(places[each.source] for each in numbers)
            yield _NumbersPart(start, numbers, read, dtype)
        else:
            tables = [each.table for each in columns if isinstance(each, TableColumn)]
            yield _TablePart(start, np.column_stack(tables).astype(dtype), places[table_source])
        start += len(columns)


def _table_source(column: Column) -> Codes | None:
    return column.source if isinstance(column, TableColumn) else None
