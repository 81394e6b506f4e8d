"""Rows of any DataFrame that Python scores and writes: they cross once, and files' names come back.

Spark's own writer would have each column of the score table cross back into the JVM, and encode it
there row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql.types import StringType

from sparkscore.errors import EngineUnfitError
from sparkscore.spark.packing import (
    Packing,
    is_collated,
    packed_expression,
    packing_of,
    unpacked,
    way_of,
)
from sparkscore.spark.score_files import Inputs, ScoreFilesJob, score_into_files
from sparkscore.spark.source import quoted
from sparkscore.spark.task_slot import task_slot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkscore.files.ledger import Ledger
    from sparkscore.scoring.facts import SourceColumn
    from sparkscore.scoring.plan import ScoringPlan

_NO_COLUMN = pa.schema([pa.field("_", pa.bool_())])
"""Crosses where nothing else does, so that a batch still has rows."""

ArrowMapper = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""What `mapInArrow` runs over one partition."""


@dataclass(frozen=True)
class CrossingColumns:
    """Which columns of a DataFrame cross to Python, and what each is there.

    Attributes:
        single: Name to type of those that cross as they are; each name once.
        carried: Names of those of them that go into the score table.
        read: Names of those of them that the model reads.
        packing: What the model reads besides, as one array; None: nothing.
    """

    single: pa.Schema
    carried: tuple[str, ...]
    read: tuple[str, ...]
    packing: Packing | None

    @property
    def reason(self) -> str:
        """How the model's columns cross, in one line."""
        return way_of(self.packing)

    def inputs(self, batch: pa.RecordBatch) -> Inputs:
        """A batch as it crossed: the single columns in order, and last the array, if any."""
        # Cast on the way: Spark names fields in lists and time zones as it likes.
        n_single = len(self.single)
        single = pa.RecordBatch.from_arrays(batch.columns[:n_single], schema=self.single)
        if self.packing is None:
            return single.select(self.carried), single.select(self.read)
        read = [*(single.column(name) for name in self.read), batch.columns[-1]]
        crossed = pa.RecordBatch.from_arrays(read, names=[*self.read, "packed"])
        return single.select(self.carried), unpacked(crossed, self.packing)


def crossing_columns(plan: ScoringPlan, frame: DataFrame) -> CrossingColumns:
    """The columns of `frame` that a plan needs in Python.

    Raises:
        EngineUnfitError: A kept column would not stay what it is.
    """
    packing = packing_of(plan.bindings)
    read = {b.source.name: b.source for b in plan.bindings if b.source is not None}
    if packing is not None:
        read = {name: read[name] for name in packing.single}
    for column in plan.carried:
        _check_kept(column, frame)
    both = {column.name: column for column in plan.carried} | read
    single = pa.schema([pa.field(column.name, column.type) for column in both.values()])
    if not both and packing is None:
        single = _NO_COLUMN
    return CrossingColumns(
        single=single,
        carried=tuple(column.name for column in plan.carried),
        read=tuple(read) or (tuple(single.names[:1]) if packing is None else ()),
        packing=packing,
    )


def crossing_expressions(crossing: CrossingColumns) -> list[str]:
    """The columns that cross to Python, in order, as Spark's SQL."""
    # By number, since two columns may differ in case only, and a name may hold anything.
    columns = [
        f"{'true' if crossing.single is _NO_COLUMN else quoted(name)} AS c{i}"
        for i, name in enumerate(crossing.single.names)
    ]
    if crossing.packing is not None:
        columns.append(packed_expression(crossing.packing))
    return columns


def score_mapper(
    crossing: CrossingColumns,
    job: ScoreFilesJob,
    ledger: Ledger | None = None,
    chunks: Sequence[str] = (),
) -> ArrowMapper:
    """What scores one partition of the rows that cross, and tells what it has done.

    Args:
        crossing: What their columns are.
        job: What all tasks share.
        ledger: Where each task says what it has done; None: nowhere.
        chunks: For the ledger, what each partition is called.
    """

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        index = context.partitionId()
        inputs = (crossing.inputs(batch) for batch in batches if batch.num_rows > 0)
        with task_slot() as slot:
            result = score_into_files(job, index, inputs, slot)
        if ledger is not None:
            ledger.record(chunks[index], result.to_json())
        yield pa.RecordBatch.from_pydict({"result": [result.to_json()]})

    return score


def _check_kept(column: SourceColumn, frame: DataFrame) -> None:
    data_type = frame.schema[column.name].dataType
    if column.type is None:
        raise EngineUnfitError(f"column {column.name!r} is kept and is {column.type_name}")
    if isinstance(data_type, StringType) and is_collated(data_type):
        raise EngineUnfitError(f"column {column.name!r} is kept and has a collation")
