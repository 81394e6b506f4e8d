"""What a Delta log says of a table at one version: columns, files, their values and bounds.

`deltalake` reads the log; no JVM is needed and no data file is opened.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sparkscore.errors import EngineUnfitError, SourceError, listed, shown
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import (
    StorePath,
    TablePath,
    storage_options,
)
from sparkscore.files.predicate import Bounds, Predicate, columns_in, possible
from sparkscore.files.schema import TableColumn, table_columns

DRAFT = re.compile(r"\.\d{20}\.json\.(tmp\.\d+|[0-9a-f-]{36}\.tmp)|\d{20}\.json#\d+")
"""What `deltalake` and Spark call a commit in folders before they rename it."""

_READABLE = frozenset(
    {
        "columnMapping",
        "deletionVectors",
        "timestampNtz",
        "typeWidening",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
"""Table features that a reader must know, and that are known here."""

_MAX_READER_VERSION = 3
_ACTIONS_AT_ONCE = 10_000
_COMMIT = re.compile(r"\d{20}\.json")

_PLAIN_SIGNS = ":/=+,@!$&'()*;"
"""What deltalake never encodes in a folder's name, beside letters, digits and '-._~'."""


@dataclass(frozen=True)
class TableSnapshot:
    """A Delta table at one version.

    Attributes:
        table_id: The id that the table was created with.
        columns: Its columns in order, partition columns among them.
        partition_by: Names of its partition columns.
        table: Its log, as it was opened.
    """

    root: TablePath
    version: int
    table_id: str
    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...]
    table: DeltaTable

    def files(self, where: Predicate | None) -> tuple[DataFile, ...]:
        """Its data files that can hold a row which the predicate selects; None: all of them.

        Raises:
            EngineUnfitError: See `data_files`.
        """
        found = data_files(self.table, self.root, self.columns, where)
        return tuple(
            file for _, file in found if where is None or True in possible(where, file.bounds)
        )


def is_delta_table(root: TablePath) -> bool:
    """Whether a Delta log lies in the folder, and has more in it than drafts of commits."""
    log = root / "_delta_log"
    # A log whose first commits have expired has a checkpoint, and perhaps too much to be listed.
    is_begun = _is_logged(root, 0) or (log / "_last_checkpoint").is_file()
    return is_begun or any(not DRAFT.fullmatch(path.name) for path in log.glob("*"))


def commits(root: TablePath, newest: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Version and commit information of each commit that the log still has, the newest first.

    `DeltaTable.history` counts versions back from the newest one, and is wrong where another
    writer has just committed, or a commit says nothing of itself.

    Args:
        root: The table's folder.
        newest: Where to begin, so that the log, which may be long, is not listed; None: unknown.
    """
    for path in _listed_commits(root) if newest is None else _commits_before(root, newest + 1):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if '"commitInfo"' in line and "commitInfo" in (action := json.loads(line)):
                    yield int(path.stem), action["commitInfo"]


def _listed_commits(root: TablePath) -> Iterator[TablePath]:
    paths = {p.name: p for p in (root / "_delta_log").glob("*.json") if _COMMIT.fullmatch(p.name)}
    for _, path in sorted(paths.items(), reverse=True):
        yield path


def _commits_before(root: TablePath, version: int) -> Iterator[TablePath]:
    """Files of the commits below a version, down to the first that has expired."""
    for number in reversed(range(version)):
        path = root / _commit_name(number)
        if not path.is_file():
            return
        yield path


def added_paths(root: TablePath, version: int) -> set[str]:
    """Paths below a table's folder of the files that a commit added, which the log still has."""
    with (root / _commit_name(version)).open(encoding="utf-8") as lines:
        actions = [json.loads(line) for line in lines]
    return {unquote(action["add"]["path"]) for action in actions if "add" in action}


def read_snapshot(root: TablePath, version: int | None) -> TableSnapshot:
    """The table in a folder at a version (None: the newest).

    Raises:
        SourceError: There is no such version.
        EngineUnfitError: The log cannot be read, or needs of its readers what is not known here.
    """
    table = _opened(root, version)
    _check_readable(table)
    columns = table_columns(table.schema().to_json(), by_id=_mapping(table) == "id")
    partition_by = tuple(table.metadata().partition_columns)
    return TableSnapshot(
        root=root,
        version=table.version(),
        table_id=str(table.metadata().id),
        columns=columns,
        partition_by=partition_by,
        table=table,
    )


def delta_table(root: TablePath, version: int | None = None) -> DeltaTable:
    """The log of the table in a folder, at a version (None: the newest).

    Raises:
        DeltaError: There is none, or it cannot be read.
    """
    return DeltaTable(str(root), version=version, storage_options=storage_options(root))


@dataclass
class FollowedTable:
    """The newest version of a table on this machine, opened once and then brought up to date.

    To open a table is to read its log anew, which takes longer the more commits it has; a stream
    asks for its target several times a batch. Each thread has its own `DeltaTable`, since bringing
    it up to date changes what was handed out before. One in a store is opened at each look: what
    was opened keeps credentials that expire.
    """

    _of_thread: threading.local = field(default_factory=threading.local)

    def newest(self, root: TablePath) -> DeltaTable:
        """The table in a folder, at the version that is its newest now.

        Raises:
            DeltaError: There is none, or it cannot be read.
        """
        if not isinstance(root, Path):
            return delta_table(root)
        held: _HeldTable | None = getattr(self._of_thread, "held", None)
        if held is None or held.newest_commit != _newest_commit(root, held.table):
            held = _HeldTable(delta_table(root))
        elif (root / _commit_name(held.table.version() + 1)).is_file():
            held.update(root)
        held.newest_commit = _newest_commit(root, held.table)
        self._of_thread.held = held
        return held.table

    def transaction_version(self, table: DeltaTable, app_id: str) -> int | None:
        """The version that a table has committed last under an application id; None: none.

        `deltalake` reads all commits after the newest checkpoint for each answer. Of a table that
        was handed out here, those are read that came after the last question.
        """
        held: _HeldTable | None = getattr(self._of_thread, "held", None)
        if held is None or held.table is not table:
            return table.transaction_version(app_id)
        if app_id not in held.transactions:
            held.transactions[app_id] = table.transaction_version(app_id)
        return held.transactions[app_id]


@dataclass
class _HeldTable:
    """What one thread knows of a table.

    Attributes:
        newest_commit: Which file is the newest commit of `table`.
        transactions: Last versions by the application ids that were asked for.
    """

    table: DeltaTable
    newest_commit: tuple[str, int, int] | None = None
    transactions: dict[str, int | None] = field(default_factory=dict)

    def update(self, root: Path) -> None:
        """Read the commits that are new.

        Raises:
            DeltaError: They cannot be read.
        """
        first = self.table.version() + 1
        self.table.update_incremental()
        for version in range(first, self.table.version() + 1):
            try:
                found = _transactions(root, version)
            except FileNotFoundError:  # It is in a checkpoint already, and has expired.
                self.transactions.clear()
                return
            self.transactions |= {i: found[i] for i in found.keys() & self.transactions.keys()}


def _transactions(root: Path, version: int) -> dict[str, int]:
    """Versions by the application ids of a commit."""
    with (root / _commit_name(version)).open(encoding="utf-8") as lines:
        actions = [json.loads(line) for line in lines if '"txn"' in line]
    return {a["txn"]["appId"]: a["txn"]["version"] for a in actions if "txn" in a}


def _newest_commit(root: Path, table: DeltaTable) -> tuple[str, int, int] | None:
    """Which file a table's newest commit is: another table at its place has another file.

    None: there is no such file any more.
    """
    path = root / _commit_name(table.version())
    try:
        facts = path.stat()
    except OSError:
        return None
    return str(path), facts.st_ino, facts.st_mtime_ns


def _commit_name(version: int) -> str:
    return f"_delta_log/{version:020}.json"


def check_folder(root: TablePath) -> None:
    """Refuse a folder whose name deltalake would decode or encode: it means another folder.

    Raises:
        EngineUnfitError: The name has a '%' with two digits after it, or is not plain.
    """
    if unquote(str(root)) != str(root):
        raise EngineUnfitError(f"the folder's name has a '%' and digits: {shown(str(root))}")
    is_encoded = isinstance(root, StorePath) and root.store.encodes_names
    if is_encoded and quote(str(root), safe=_PLAIN_SIGNS) != str(root):
        raise EngineUnfitError(f"deltalake encodes the folder's name: {shown(str(root))}")


def data_files(
    table: DeltaTable, root: TablePath, columns: Sequence[TableColumn], where: Predicate | None
) -> Iterator[tuple[str, DataFile]]:
    """The active files of an opened table, in the log's order, each after its path in the log.

    Args:
        table: The log.
        root: The table's folder.
        columns: The table's columns.
        where: Bounds are given for the columns that it reads, and for no others.

    Raises:
        EngineUnfitError: A file lies outside of this machine, deleted rows in none of them, a
            partition is of empty text, or a date is outside of the years that Python has.
    """
    deleted = _deleted_rows(table, root)
    read = frozenset() if where is None else columns_in(where)
    names = {c.physical: c.column.name for c in columns if c.column.name in read}
    for row in _actions(table, names):
        path = file_path(root, row["path"])
        partition = row.get("partition") or {}
        if None in partition.values() and "=/" in row["path"]:
            # delta-rs writes '' where Spark writes null; Spark reads both as they are written.
            raise EngineUnfitError(f"a partition may be of empty text: {listed([row['path']])}")
        bounds = _bounds(row, names)
        bounds |= {name: _exactly(value) for name, value in partition.items() if name in read}
        yield (
            row["path"],
            DataFile(
                path=path,
                n_bytes=row["size_bytes"],
                n_rows=row["num_records"],
                partition=partition,
                bounds=bounds,
                deleted=deleted.pop(path, None),
            ),
        )
    if deleted:
        raise EngineUnfitError(
            f"deleted rows are in files that it does not find: {listed(deleted)}"
        )


def _actions(table: DeltaTable, physical: Collection[str]) -> Iterator[dict[str, Any]]:
    """The log's facts of each file; statistics only of the columns of these physical names.

    A million files are as many rows of Arrow, of which few become Python objects at a time.
    """
    actions = pa.table(table.get_add_actions())
    for name in ("min", "max", "null_count"):
        if name in actions.column_names:
            index = actions.column_names.index(name)
            actions = actions.set_column(index, name, _fields(actions[name], physical))
    try:
        for batch in actions.to_batches(max_chunksize=_ACTIONS_AT_ONCE):
            yield from batch.to_pylist()
    except (OverflowError, ValueError) as exc:
        raise EngineUnfitError(
            f"the table has dates outside of the years 1 to 9999: {exc}"
        ) from exc


def _fields(column: pa.ChunkedArray, names: Collection[str]) -> pa.ChunkedArray:
    """Structs with those of their fields that have one of these names."""
    kept = [field for field in column.type if field.name in names]
    chunks = []
    for chunk in column.chunks:
        arrays = [chunk.field(field.name) for field in kept]
        mask = chunk.is_null()
        # A struct without fields has no length of its own to be made from.
        chunks.append(
            pa.StructArray.from_arrays(arrays, fields=kept, mask=mask)
            if kept
            else pa.nulls(len(chunk), pa.struct([]))
        )
    return pa.chunked_array(chunks, pa.struct(kept))


def _opened(root: TablePath, version: int | None) -> DeltaTable:
    check_folder(root)
    try:
        return delta_table(root, version)
    except DeltaError as exc:
        if version is None or _is_logged(root, version):
            raise EngineUnfitError(f"the log of the source cannot be read here: {exc}") from exc
        raise SourceError(
            f"version {version} of source {shown(str(root))} cannot be read: {exc}; "
            "check --source-version"
        ) from exc


def _is_logged(root: TablePath, version: int) -> bool:
    return (root / _commit_name(version)).is_file()


def _check_readable(table: DeltaTable) -> None:
    protocol = table.protocol()
    unknown = sorted(set(protocol.reader_features or ()) - _READABLE)
    if unknown:
        raise EngineUnfitError(f"the source needs table features that it cannot read: {unknown}")
    if protocol.min_reader_version > _MAX_READER_VERSION:
        raise EngineUnfitError(f"the source needs reader version {protocol.min_reader_version}")
    if _mapping(table) not in ("none", "name", "id"):
        raise EngineUnfitError(f"the source maps its columns by {_mapping(table)}")


def _mapping(table: DeltaTable) -> str:
    return str(table.metadata().configuration.get("delta.columnMapping.mode", "none"))


def _deleted_rows(table: DeltaTable, root: TablePath) -> dict[str, np.ndarray]:
    """Positions of deleted rows by the path of their file, as `file_path` gives it."""
    features = table.protocol().reader_features or ()
    if "deletionVectors" not in features:
        return {}
    if "typeWidening" in features:
        raise EngineUnfitError(
            "it may have deletion vectors, which deltalake cannot read beside typeWidening"
        )
    try:
        masks = pa.RecordBatchReader.from_stream(table.deletion_vectors()).read_all()
    except (DeltaError, OSError, pa.ArrowException) as exc:
        raise SourceError(
            f"the deletion vectors of source {shown(str(root))} cannot be read: {exc}; nothing "
            "was written; restore the table's files, or read an earlier version of the table"
        ) from exc
    deleted = {}
    # Where `root` is a link, deltalake names files by what it points to; in a store, by its URI.
    real_root = unquote(urlsplit(table.table_uri).path).rstrip("/") + "/"
    for batch in masks.to_batches():
        for uri, kept in zip(batch["filepath"], batch["selection_vector"], strict=True):
            mask = kept.values.to_numpy(zero_copy_only=False)
            path = unquote(urlsplit(uri.as_py()).path)
            if path.startswith(real_root):
                path = f"{root}/{path.removeprefix(real_root)}"
            deleted[path] = np.flatnonzero(~mask)
    return deleted


def file_path(root: TablePath, logged: str) -> str:
    """Where a file lies that the log names by an encoded path or URI.

    Raises:
        EngineUnfitError: In another store than the table, or in another bucket.
    """
    parts = urlsplit(logged)
    path = unquote(parts.path)
    if isinstance(root, StorePath):
        top = root.store.uri_of(root.bucket)
        if parts.scheme in root.store.schemes and parts.netloc == urlsplit(top).netloc:
            return f"{top}{path}"
        is_elsewhere = bool(parts.scheme) or path.startswith("/")
    else:
        is_elsewhere = parts.scheme not in ("", "file")
    if is_elsewhere:
        raise EngineUnfitError(f"the source has files in {parts.scheme}: {listed([logged])}")
    return path if path.startswith("/") else f"{root}/{path}"


def _bounds(row: Mapping[str, object], names: Mapping[str, str]) -> dict[str, Bounds]:
    lows, highs, nulls = (row.get(key) or {} for key in ("min", "max", "null_count"))
    assert isinstance(lows, Mapping)
    assert isinstance(highs, Mapping)
    assert isinstance(nulls, Mapping)
    n_rows = row["num_records"]
    return {
        names[physical]: Bounds(
            low=lows.get(physical) if _is_exact(lows.get(physical)) else None,
            high=highs.get(physical) if _is_exact(highs.get(physical)) else None,
            may_be_null=n_nulls != 0,
            may_be_value=n_nulls is None or n_nulls != n_rows,
        )
        for physical, n_nulls in nulls.items()
        if physical in names and not isinstance(n_nulls, Mapping)
    }


def _is_exact(bound: object) -> bool:
    """Whether a bound is the value itself: Delta cuts long texts and times to milliseconds."""
    return isinstance(bound, int | dt.date) and not isinstance(bound, dt.datetime)


def _exactly(value: object) -> Bounds:
    if value is None:
        return Bounds(may_be_value=False)
    is_ordered = not isinstance(value, float)  # NaN is equal to nothing in Python.
    return Bounds(
        low=value if is_ordered else None,
        high=value if is_ordered else None,
        may_be_null=False,
    )
