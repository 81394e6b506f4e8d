"""Rejected rows of one task: counted, and written as files of their own table.

Imported by Python workers.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkscore.files.filesystem import open_input
from sparkscore.files.writing import FileLayout, ScoreWriter, WrittenFile, by_partition
from sparkscore.scoring.rejects import REASON_COLUMNS, RejectedRows, json_rows

Constants = Mapping[str, str | int | dt.date | dt.datetime | None]


@dataclass(frozen=True)
class RejectsTable:
    """How rejected rows are kept; the same for all tasks of a run.

    Attributes:
        keys: Source columns that stand in the table as they are.
        inputs: Name and type (None: as it comes) of what `reject_inputs` holds: the columns that
            the model reads, and those that the score table has.
        packed: Those of them that come as doubles, null as NaN.
        constants: Column to value, for what stands in each row.
    """

    layout: FileLayout
    keys: tuple[str, ...]
    inputs: Mapping[str, pa.DataType | None]
    packed: frozenset[str]
    constants: Constants


@dataclass
class RejectFiles:
    """What becomes of the rejected rows of one task.

    Attributes:
        rows: Counts them.
        table: Where they are kept; None: nowhere, or in the score table.
        scores: How the score table lies, whose partitions are counted.
        constants: Values of its columns that are the same in all rows.
        name: What all names of its files begin with.
    """

    rows: RejectedRows
    table: RejectsTable | None
    scores: FileLayout
    constants: Constants
    name: str
    by_partition: Counter[str] = field(default_factory=Counter)
    _writer: ScoreWriter | None = None

    def add(self, carried: pa.RecordBatch, given: pa.RecordBatch, found: pa.RecordBatch) -> None:
        """Take the rejected rows of a batch.

        Args:
            carried: The batch as columns for the score table.
            given: The same rows as what the model reads.
            found: Which of them are rejected, and why.

        Raises:
            RejectBudgetError: They are more than the run may have.
            TargetUnwritableError: The folder takes no files.
        """
        self.rows.count(found)
        carried, given = carried.take(found["row"]), given.take(found["row"])
        self._count(carried)
        if self.table is not None:
            if self._writer is None:
                self._writer = ScoreWriter(self.table.layout, self.name)
            self._writer.write(_rows(self.table, carried, given, found))

    def finish(self) -> list[WrittenFile]:
        """Close the files, and name them.

        Raises:
            TargetUnwritableError: The disk is full.
        """
        return [] if self._writer is None else self._writer.finish()

    def abort(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.abort()

    def _count(self, carried: pa.RecordBatch) -> None:
        names = self.scores.partition_by
        if not names:
            return
        kinds = self.scores.schema
        columns = [
            repeated(self.constants[name], kinds.field(name).type, carried.num_rows)
            if name in self.constants
            else carried.column(name)
            for name in names
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=list(names))
        for values, rows in by_partition(batch, names):
            partition = dict(zip(map(self.scores.in_files, names), values, strict=True))
            self.by_partition[partition_name(partition)] += rows.num_rows


def copied(files: Sequence[WrittenFile], table: RejectsTable, attempt: str) -> list[WrittenFile]:
    """Files of rejected rows, written again as those of an attempt.

    Raises:
        TargetUnwritableError: The folder takes no files.
    """
    layout, schema = table.layout, table.layout.schema
    writer = ScoreWriter(layout, f"part-00000-{attempt}-resumed")
    for file in files:
        with open_input(layout.folder / file.path) as source:
            rows = pq.read_table(source)
        columns = [
            repeated(table.constants[field.name], field.type, len(rows))
            if field.name in layout.partition_by
            else rows[layout.in_files(field.name)].cast(field.type).combine_chunks()
            for field in schema
        ]
        writer.write(pa.RecordBatch.from_arrays(columns, names=schema.names))
    return writer.finish()


def partition_name(partition: Mapping[str, str | None]) -> str:
    """A partition's values as one text, by which its rows are counted."""
    return json.dumps(dict(partition), sort_keys=True)


@lru_cache(maxsize=32)  # Most batches have one size.
def repeated(value: object, data_type: pa.DataType, n_rows: int) -> pa.Array:
    """One value `n_rows` times; a text as a dictionary of one, which Parquet keeps as it is."""
    if value is None or not pa.types.is_string(data_type):
        return pa.repeat(pa.scalar(value, data_type), n_rows)
    indices = pa.repeat(pa.scalar(0, pa.int8()), n_rows)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], data_type))


def _rows(
    table: RejectsTable, carried: pa.RecordBatch, given: pa.RecordBatch, found: pa.RecordBatch
) -> pa.RecordBatch:
    n_rows = found.num_rows
    schema = table.layout.schema
    columns: dict[str, pa.Array] = {name: carried.column(name) for name in table.keys}
    columns |= {name: found[name] for name in REASON_COLUMNS.names}
    columns["reject_inputs"] = pa.array(json_rows(_inputs(table, carried, given)), pa.string())
    columns |= {
        name: repeated(value, schema.field(name).type, n_rows)
        for name, value in table.constants.items()
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], names=schema.names)


def _inputs(table: RejectsTable, carried: pa.RecordBatch, given: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as the source has them."""
    kept, arrays = set(carried.schema.names), []
    for name, kind in table.inputs.items():
        column = carried.column(name) if name in kept else given.column(name)
        if name in table.packed and name not in kept:
            column = pc.if_else(pc.is_nan(column), None, column).cast(kind)
        arrays.append(column)
    if not arrays:  # Rows all the same.
        return carried.select([]) if carried.num_columns else given.select([])
    return pa.RecordBatch.from_arrays(arrays, names=list(table.inputs))
