"""A sample of a table's rows, read from its files without Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkscore.errors import EngineUnfitError, SourceError, listed, shown
from sparkscore.files.facts import DataFile
from sparkscore.files.log import check_folder, is_delta_table, read_snapshot
from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.files.schema import TableColumn
from sparkscore.scoring.facts import SourceColumn, SourceTable

_MAX_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class LocalTable:
    """A Delta table, or Parquet files, of this machine.

    Attributes:
        columns: How the table's columns are called in the files.
        files: All of its data files.
    """

    table: SourceTable
    columns: tuple[TableColumn, ...]
    files: tuple[DataFile, ...]

    def sample(self, names: Sequence[str], n_rows: int) -> pa.Table:
        """At most `n_rows` rows, each as likely as any other; the same ones each time.

        Args:
            names: The columns to read.
            n_rows: All rows, if there are no more.

        Raises:
            SourceError: A file is gone, or holds a column that files alone do not tell.
            DataError: A file has a column of another type than the table.
        """
        reading = self._reading(names)
        rng = np.random.default_rng(0)
        kept, keys = reading.schema.empty_table(), np.empty(0)
        for file in self.files:
            piece = FilePiece(file.path, 0, file.n_bytes, file.partition, file.deleted)
            for batch in read_piece(piece, reading):
                kept = pa.concat_tables([kept, pa.Table.from_batches([batch])])
                keys = np.concatenate([keys, rng.random(batch.num_rows)])
                if len(keys) > n_rows:
                    smallest = np.sort(np.argpartition(keys, n_rows)[:n_rows])
                    kept, keys = kept.take(smallest), keys[smallest]
        return kept.combine_chunks()

    def _reading(self, names: Sequence[str]) -> TableReading:
        columns = [next(c for c in self.columns if c.column.name == name) for name in names]
        for column in columns:
            if column.doubt is not None or column.column.type is None:
                what = column.doubt or f"is {column.column.type_name}"
                raise SourceError(
                    f"column {column.column.name!r} of {self.table.uri!r} {what}, which cannot be "
                    "read without Spark; copy the rows into a table of plain types"
                )
        return TableReading(
            schema=pa.schema([pa.field(c.column.name, c.column.type) for c in columns]),
            outputs=tuple(names),
            physical={c.column.name: c.in_files for c in columns},
            where=None,
            max_bytes=_MAX_BATCH_BYTES,
        )


def open_local(uri: str, version: int | None = None) -> LocalTable:
    """The Delta table in a folder, or one Parquet file or a folder of them.

    Args:
        uri: A path or file:// URI.
        version: Of a Delta table; None: the newest.

    Raises:
        SourceError: It is none of these, has no such version, or only Spark can read it.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise SourceError(f"sample {uri!r} lies in {parts.scheme}; copy it to this machine")
    root = Path(unquote(parts.path) if parts.scheme else uri).absolute()
    try:
        return _delta(root, version) if is_delta_table(root) else _parquet(root, version)
    except EngineUnfitError as exc:
        raise SourceError(
            f"sample {uri!r} cannot be read without Spark: {exc.reason}; copy some of its rows "
            "into a table of their own"
        ) from exc


def _delta(root: Path, version: int | None) -> LocalTable:
    check_folder(root)
    snapshot = read_snapshot(root, version)
    table = SourceTable(
        uri=str(root),
        format="delta",
        version=str(snapshot.version),
        columns=tuple(column.column for column in snapshot.columns),
        table_id=snapshot.table_id,
    )
    return LocalTable(table, snapshot.columns, snapshot.files(None))


def _parquet(root: Path, version: int | None) -> LocalTable:
    if version is not None:
        raise SourceError(f"sample {str(root)!r} is no Delta table, and has no version {version}")
    paths = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    paths = [path for path in paths if not path.name.startswith(("_", "."))]
    if not paths:
        raise SourceError(
            f"sample {str(root)!r} is no Delta table, no Parquet file and no folder of them"
        )
    nested = [str(path) for path in paths if "=" in str(path.relative_to(root))]
    if nested:
        raise SourceError(
            f"sample {str(root)!r} has partitions in its folders, {listed(nested)}; name one "
            "of them"
        )
    try:
        schema = pq.read_schema(paths[0])
    except (OSError, pa.ArrowInvalid) as exc:
        raise SourceError(f"{shown(str(paths[0]))} is no Parquet file: {exc}") from exc
    columns = tuple(
        TableColumn(SourceColumn(field.name, field.type, str(field.type)), field.name, None)
        for field in schema
    )
    table = SourceTable(str(root), "parquet", "", tuple(column.column for column in columns))
    files = tuple(DataFile(str(path), path.stat().st_size) for path in paths)
    return LocalTable(table, columns, files)
