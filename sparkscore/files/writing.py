"""Writing scores as Parquet files of a Delta table; nobody sees them before the commit.

Runs in Python workers. A file's name carries the attempt that wrote it, so that what a failed or a
second attempt leaves is told from what is committed.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkscore.errors import TargetUnwritableError, shown
from sparkscore.files.filesystem import StorePath, TablePath, store_error
from sparkscore.files.predicate import plain
from sparkscore.files.statistics import FileStatistics

_MAX_OPEN_FILES = 32
"""Partitions that a task writes at once; each open file holds up to a row group in memory."""
_ROW_GROUP_BYTES = 8 * 2**20
"""In memory; about 300,000 rows of a key and a prediction."""
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_ODD_IN_FOLDERS = frozenset("\"#%'*/:=?\\{}[]^\x7f") | {chr(code) for code in range(32)}
PARTITION_TYPES = "integers, booleans, texts, dates and decimals"


@dataclass(frozen=True)
class WrittenFile:
    """A finished data file.

    Attributes:
        path: Below the table's folder.
        partition: Its partition values as Delta writes them.
        statistics: Delta's statistics as JSON.
        modified_ms: When it was finished.
    """

    path: str
    n_bytes: int
    n_rows: int
    partition: Mapping[str, str | None]
    statistics: str
    modified_ms: int


@dataclass(frozen=True)
class FileLayout:
    """How a score table lies in its folder.

    Attributes:
        folder: The table's folder.
        schema: All columns of the table in order.
        partition_by: Those that make folders instead of standing in the files.
        varied: Columns whose values seldom repeat, for which a dictionary does not pay.
        mapped: Name and Parquet field id in the files of each column, where these differ.
    """

    folder: TablePath
    schema: pa.Schema
    partition_by: tuple[str, ...]
    varied: frozenset[str]
    mapped: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def in_files(self, name: str) -> str:
        """What a column is called in the files and in the log."""
        return self.mapped[name][0] if self.mapped else name

    def stored(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of the table as they stand in a file."""
        rows = rows.select([name for name in rows.schema.names if name not in self.partition_by])
        if not self.mapped:
            return rows
        fields = []
        for column in rows.schema:
            name, field_id = self.mapped[column.name]
            metadata = {b"PARQUET:field_id": str(field_id)}
            fields.append(column.with_name(name).with_metadata(metadata))
        return pa.RecordBatch.from_arrays(rows.columns, schema=pa.schema(fields))


@dataclass
class ScoreWriter:
    """Writes one task's rows, a file a partition.

    Attributes:
        layout: The table.
        name: What all file names of this attempt at this task begin with.
    """

    layout: FileLayout
    name: str
    _open: dict[tuple[str | None, ...], _OpenFile] = field(default_factory=dict)
    _finished: list[WrittenFile] = field(default_factory=list)
    _n_files: int = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch that has the layout's columns.

        Raises:
            TargetUnwritableError: The folder takes no files, or the disk is full.
        """
        if batch.num_rows == 0:
            return
        with _target_errors(self.layout.folder):
            for partition, rows in by_partition(batch, self.layout.partition_by):
                self._file_of(partition).write(rows)

    def finish(self) -> list[WrittenFile]:
        """Close what is open, and name all files.

        Raises:
            TargetUnwritableError: The disk is full.
        """
        with _target_errors(self.layout.folder):
            for partition in list(self._open):
                self._finish(partition)
        return self._finished

    def abort(self) -> None:
        """Remove what was written; a file that cannot be removed is left to the driver."""
        for file in self._open.values():
            file.abort()
        for written in self._finished:
            (self.layout.folder / written.path).unlink(missing_ok=True)

    def _file_of(self, partition: tuple[str | None, ...]) -> _OpenFile:
        if partition not in self._open:
            if len(self._open) == _MAX_OPEN_FILES:
                self._finish(next(iter(self._open)))
            self._open[partition] = self._new_file(partition)
        return self._open[partition]

    def _finish(self, partition: tuple[str | None, ...]) -> None:
        self._finished.append(self._open[partition].finish())
        del self._open[partition]  # Not before: what fails to finish is there to be aborted.

    def _new_file(self, partition: tuple[str | None, ...]) -> _OpenFile:
        names = [self.layout.in_files(name) for name in self.layout.partition_by]
        values = dict(zip(names, partition, strict=True))
        folders = [f"{_escaped(name)}={_folder_of(value)}" for name, value in values.items()]
        path = "/".join([*folders, f"{self.name}-c{self._n_files:03d}.zstd.parquet"])
        self._n_files += 1
        return _OpenFile(self.layout, path, values)


@dataclass
class _OpenFile:
    layout: FileLayout
    path: str
    partition: Mapping[str, str | None]
    statistics: FileStatistics = field(default_factory=FileStatistics)
    _sink: pa.NativeFile | None = None
    _writer: pq.ParquetWriter | None = None
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _n_waiting_bytes: int = 0

    def write(self, rows: pa.RecordBatch) -> None:
        rows = self.layout.stored(rows)
        self.statistics.add(rows)
        self._waiting.append(rows)
        self._n_waiting_bytes += rows.nbytes
        if self._n_waiting_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> WrittenFile:
        self._flush()
        self._close()
        facts, statistics = self._full_path.stat(), self.statistics
        return WrittenFile(
            path=self.path,
            n_bytes=facts.st_size,
            n_rows=statistics.n_rows,
            partition=self.partition,
            statistics=statistics.to_json(),
            modified_ms=int(facts.st_mtime * 1000),
        )

    def abort(self) -> None:
        if self._sink is not None:
            with suppress(OSError, pa.ArrowException):  # Its content does not matter any more.
                self._close()
        self._full_path.unlink(missing_ok=True)

    @property
    def _full_path(self) -> TablePath:
        return self.layout.folder / self.path

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = pa.Table.from_batches(self._waiting)
        if self._writer is None:
            varied = frozenset(map(self.layout.in_files, self.layout.varied))
            self._sink = new_file(self._full_path)
            self._writer = _parquet_writer(self._sink, rows.schema, varied)
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._waiting, self._n_waiting_bytes = [], 0

    def _close(self) -> None:
        assert self._writer is not None
        assert self._sink is not None
        self._writer.close()
        self._sink.close()


def new_file(path: TablePath) -> pa.NativeFile:
    """A file to be written, with the folders above it; whole when it is closed."""
    if isinstance(path, StorePath):
        return path.store.open_output(path.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return pa.OSFile(str(path), "wb")


def _parquet_writer(
    sink: pa.NativeFile, schema: pa.Schema, varied: frozenset[str]
) -> pq.ParquetWriter:
    repeated = [name for name in schema.names if name not in varied]
    # Bounds of floats would leave out NaN, and Spark then leaves out such rows of `x > 5`.
    bounded = [f.name for f in schema if not pa.types.is_floating(f.type)]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeated or False,
        write_statistics=bounded or False,
        column_encoding=_encodings(schema, varied) or None,
        store_schema=False,
    )


def file_prefix(attempt: str, index: int, task_attempt: int) -> str:
    """How all files of one attempt at one task begin; the task attempt is Spark's own number."""
    return f"part-{index:05d}-{attempt}-{task_attempt}"


def can_partition_by(data_type: pa.DataType) -> bool:
    """Whether values of the type are written here as Spark writes them; see PARTITION_TYPES."""
    types = pa.types
    return bool(
        types.is_integer(data_type)
        or types.is_boolean(data_type)
        or types.is_string(data_type)
        or types.is_date(data_type)
        or types.is_decimal(data_type)
    )


def by_partition(
    batch: pa.RecordBatch, names: Sequence[str]
) -> Iterator[tuple[tuple[str | None, ...], pa.RecordBatch]]:
    """The rows of each partition, with its values as Delta writes them."""
    if not names:
        yield (), batch
        return
    columns = {name: plain(batch.column(name)) for name in names}
    keys = pa.table(columns).group_by(list(names), use_threads=False).aggregate([])
    for key in keys.to_pylist():
        mask = pa.repeat(pa.scalar(True), batch.num_rows)
        for name, value in key.items():
            mask = pc.and_(mask, _is_equal(columns[name], value))
        yield tuple(serialized(key[name]) for name in names), batch.filter(mask)


def _is_equal(column: pa.Array, value: object) -> pa.Array:
    if value is None:
        return pc.is_null(column)
    return pc.fill_null(pc.equal(column, pa.scalar(value, column.type)), False)


def serialized(value: object) -> str | None:
    """A partition value as Delta writes it."""
    if value is None or value == "":  # Delta's partitions know no empty text; Spark makes it null.
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.date):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _folder_of(value: str | None) -> str:
    return _NULL_PARTITION if value is None else _escaped(value)


def _escaped(text: str) -> str:
    """`text` as a folder's name, escaped as Hive and Spark do."""
    return "".join(f"%{ord(c):02X}" if c in _ODD_IN_FOLDERS else c for c in text)


def _encodings(fields: pa.Schema, varied: frozenset[str]) -> dict[str, str]:
    """Deltas for integers such as keys: a sixth of the time of plain ones, and smaller."""
    return {
        f.name: "DELTA_BINARY_PACKED"
        for f in fields
        if f.name in varied and f.type in (pa.int32(), pa.int64())
    }


@contextmanager
def _target_errors(folder: TablePath) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if isinstance(folder, StorePath):
            raise store_error(folder, "target", TargetUnwritableError, exc) from exc
        raise TargetUnwritableError(
            f"target {shown(str(folder))} cannot be written; nothing was committed: {exc}"
        ) from exc


def new_attempt() -> str:
    """A name that no other attempt at a run has."""
    return uuid.uuid4().hex
