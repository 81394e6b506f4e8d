"""Which files of a table give way to a replace, and what of them has to stay.

A file whose rows all satisfy the predicate is removed, one without such a row is kept. What the
log's statistics do not decide, reading decides; from a file that is cut through, the other rows
are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from sparkscore.errors import EngineUnfitError
from sparkscore.files.change import RemovedFile
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import StorePath, TablePath, below
from sparkscore.files.log import data_files
from sparkscore.files.planning import FilePiece
from sparkscore.files.predicate import Predicate, columns_in, evaluate, possible
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.files.schema import TableColumn, table_columns
from sparkscore.files.writing import FileLayout, ScoreWriter, WrittenFile, serialized

_MAX_COPIED_BYTES = 256 * 2**20
"""Files that the driver rewrites alone; beyond this, Spark's own writer does it on all cores."""
_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class GivingWay:
    """A file of which rows give way.

    Attributes:
        path: Below the table's folder.
        logged: The same as the log has it, encoded.
        is_cut: Whether some of its rows stay.
    """

    file: DataFile
    path: str
    logged: str
    is_cut: bool
    columns: tuple[TableColumn, ...]


@dataclass(frozen=True)
class Replaced:
    """What a replace removes, and the copies of what it may not remove."""

    removals: tuple[RemovedFile, ...] = ()
    copies: tuple[WrittenFile, ...] = ()
    n_removed_rows: int = 0
    n_removed_bytes: int = 0

    def plus(
        self, one: GivingWay, layout: FileLayout, predicate: Predicate, attempt: str
    ) -> Replaced:
        """This and one file more, whose other rows are copied to files of the attempt."""
        index = len(self.removals)
        copies = _copied(one, layout, predicate, f"part-{index:05d}-{attempt}-kept")
        partition = {
            layout.in_files(name): serialized(value) for name, value in one.file.partition.items()
        }
        removal = RemovedFile(one.path, one.logged, one.file.n_bytes, partition)
        return Replaced(
            removals=(*self.removals, removal),
            copies=(*self.copies, *copies),
            n_removed_rows=self.n_removed_rows + (one.file.n_rows or 0),
            n_removed_bytes=self.n_removed_bytes + one.file.n_bytes,
        )


def replaced_files(table: DeltaTable, root: TablePath, predicate: Predicate) -> Iterator[GivingWay]:
    """The files of which rows satisfy the predicate.

    Raises:
        EngineUnfitError: One has a deletion vector, or too much would have to be copied.
        SourceError: A file that has to be read cannot be.
    """
    mode = table.metadata().configuration.get("delta.columnMapping.mode")
    columns = table_columns(table.schema().to_json(), by_id=mode == "id")
    n_copied = 0
    for logged, file in data_files(table, root, columns, predicate):
        truths = possible(predicate, file.bounds)
        if True not in truths:
            continue
        n_inside, n_rows = (1, 1) if truths == {True} else _counted(file, root, predicate, columns)
        if n_inside == 0:
            continue
        if file.deleted is not None:
            raise EngineUnfitError("the target has deletion vectors on files that give way")
        is_cut = n_inside < n_rows
        n_copied += file.n_bytes if is_cut else 0
        if n_copied > _MAX_COPIED_BYTES:
            raise EngineUnfitError("the replaced rows share large files with rows that stay")
        yield GivingWay(file, below(root, file.path), logged, is_cut, columns)


def file_rows(
    file: DataFile, root: TablePath, columns: tuple[TableColumn, ...], names: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of a file of a table, with those of its columns that have one of these names.

    Raises:
        SourceError: The file cannot be read.
    """
    read = [column for column in columns if column.column.name in names]
    schema = pa.schema([pa.field(c.column.name, c.column.type) for c in read])
    reading = TableReading(
        schema=schema,
        outputs=tuple(schema.names),
        physical={c.column.name: c.in_files for c in read},
        where=None,
        max_bytes=_BATCH_BYTES,
        store=root.store if isinstance(root, StorePath) else None,
    )
    piece = FilePiece(file.path, 0, max(1, file.n_bytes), file.partition, file.deleted)
    return read_piece(piece, reading)


def _counted(
    file: DataFile, root: TablePath, predicate: Predicate, columns: tuple[TableColumn, ...]
) -> tuple[int, int]:
    """Rows of the file that satisfy the predicate, and all of its rows."""
    n_inside = n_rows = 0
    for batch in file_rows(file, root, columns, columns_in(predicate)):
        n_rows += batch.num_rows
        n_inside += pc.sum(pc.fill_null(evaluate(predicate, batch), False)).as_py() or 0
    return n_inside, n_rows


def _copied(
    one: GivingWay, layout: FileLayout, predicate: Predicate, name: str
) -> list[WrittenFile]:
    if not one.is_cut:
        return []
    writer = ScoreWriter(layout, name)
    for batch in file_rows(one.file, layout.folder, one.columns, frozenset(layout.schema.names)):
        inside = pc.fill_null(evaluate(predicate, batch), False)
        writer.write(batch.filter(pc.invert(inside)))
    return writer.finish()
