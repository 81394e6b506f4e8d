"""A source as its files: the same facts that Spark's own reader gives, without a DataFrame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sparkscore.errors import EngineUnfitError, SourceError, listed, shown
from sparkscore.files.any_format import is_readable
from sparkscore.files.appended import FEED, appended_files, logged_changes
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import (
    Store,
    TablePath,
    local_folder,
    store_errors,
    store_path,
)
from sparkscore.files.formats import (
    PARQUET,
    FileFormat,
    ReaderOptions,
    check_fit,
    compression_of,
    parse_options,
)
from sparkscore.files.log import TableSnapshot, is_delta_table, read_snapshot
from sparkscore.files.predicate import Predicate
from sparkscore.files.schema import TableColumn
from sparkscore.files.sql import parse_predicate
from sparkscore.files.writing import PARTITION_TYPES, can_partition_by
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import SourceColumn, SourceTable
from sparkscore.scoring.incremental import (
    START,
    Deletes,
    began_at,
    check_has_versions,
    check_mark,
)
from sparkscore.spark.other_formats import other_format
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import check_no_reading, is_path, located, open_source
from sparkscore.spark.store_settings import store_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_UTC = ("UTC", "Etc/UTC", "GMT", "Z")


@dataclass(frozen=True)
class FilesSource:
    """Exactly the rows that `table` names, as files of this machine or of a store.

    Attributes:
        files: Those that can hold a row that the filter selects.
        columns: How the table's columns are called in the files.
        partition_by: Columns whose values stand in the log instead of the files.
        store: Where the files are; None: on this machine.
        format: How the files are written.
    """

    table: SourceTable
    files: tuple[DataFile, ...]
    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...]
    where: Predicate | None
    store: Store | None = None
    format: FileFormat = PARQUET

    @property
    def nothing_new(self) -> bool:
        """Whether new rows were asked for, and there are none."""
        return self.table.since not in ("", START) and not self.files

    def column(self, name: str) -> TableColumn:
        """The column of this name.

        Raises:
            EngineUnfitError: Its values cannot be told from the files alone.
        """
        column = next(c for c in self.columns if c.column.name == name)
        if column.doubt is not None:
            raise EngineUnfitError(f"the source's column {name!r} {column.doubt}")
        if column.column.type is None:
            raise EngineUnfitError(f"the source's column {name!r} is {column.column.type_name}")
        if name in self.partition_by and not can_partition_by(column.column.type):
            raise EngineUnfitError(
                f"the source is partitioned by {name!r}, a {column.column.type_name}; it knows "
                f"{PARTITION_TYPES}"
            )
        return column


def open_files(spark: SparkSession, spec: SourceSpec) -> FilesSource:
    """The source with its version pinned and its filter understood; no data file is read.

    Raises:
        SourceError: There is no such table or version.
        EngineUnfitError: Only Spark can read it, or only Spark understands the filter.
        StoreUnavailableError: The store that it lies in does not answer.
    """
    if is_connect(spark):
        raise EngineUnfitError("the workers of a Connect session may not see these files")
    uri = located(spark, spec.uri)
    if not is_path(uri):
        raise EngineUnfitError(f"the source {spec.uri!r} is a table of the catalog")
    store = store_of(spark, uri, "source")
    root = local_folder(uri) if store is None else store_path(store, uri)
    with store_errors(root, "source", SourceError):
        if spec.format in ("auto", "delta") and is_delta_table(root):
            check_no_reading(spec, "Delta")
            return replace(_delta_files(spark, spec, uri, root), store=store)
        if not isinstance(root, Path) and not (root.is_dir() or root.is_file()):
            raise SourceError(f"nothing is at source {shown(spec.uri)}; check --source")
    check_has_versions(spec)
    if not isinstance(root, Path):
        raise EngineUnfitError(f"the source is no Delta table, and lies in {urlsplit(uri).scheme}")
    name = other_format(spec, uri)
    if name is not None:
        return _other_files(spark, spec, root, name)
    return _parquet_files(spark, spec, root)


def _delta_files(spark: SparkSession, spec: SourceSpec, uri: str, root: TablePath) -> FilesSource:
    snapshot = read_snapshot(root, spec.version)
    table = SourceTable(
        uri=uri,
        format="delta",
        version=str(snapshot.version),
        columns=tuple(column.column for column in snapshot.columns),
        table_id=snapshot.table_id,
        where=spec.where,
        since=began_at(spec.since),
    )
    where = _predicate(spark, table)
    mark = None if spec.since is None else spec.since.mark
    if spec.since is None or mark is None:
        files = snapshot.files(where)
    else:
        check_mark(mark, table)
        files = _new_files(snapshot, mark.version, spec.since.deletes, where)
    return FilesSource(table, files, snapshot.columns, snapshot.partition_by, where)


def _new_files(
    snapshot: TableSnapshot, after: int, deletes: Deletes, where: Predicate | None
) -> tuple[DataFile, ...]:
    """The files of rows that are new since a version, which nothing but appends has brought."""
    changes = logged_changes(snapshot.root, after, snapshot.version)
    if snapshot.table.metadata().configuration.get(FEED) == "true":
        reason = changes.refused(deletes)
        if reason is not None:
            raise EngineUnfitError(f"{reason}, and only Spark reads the source's change data feed")
    changes.check(str(snapshot.root), deletes)
    return appended_files(snapshot, changes, where)


def _parquet_files(spark: SparkSession, spec: SourceSpec, root: Path) -> FilesSource:
    """The files that Spark finds: it says which these are, and what their columns are called."""
    opened = open_source(spark, replace(spec, where=None))
    paths = _paths(opened.frame, root)
    files = tuple(DataFile(path, Path(path).stat().st_size) for path in paths)
    columns = tuple(TableColumn(column, column.name, None) for column in opened.table.columns)
    table = replace(opened.table, where=spec.where)
    return FilesSource(table, files, columns, (), _predicate(spark, table))


def _other_files(spark: SparkSession, spec: SourceSpec, root: Path, name: str) -> FilesSource:
    """CSV, JSON or ORC: Spark says which files and columns there are, since it may infer them."""
    options = parse_options(name, spec.options)
    check_fit(name, options, [])  # Before Spark reads all rows for their types.
    if spark.conf.get("spark.sql.caseSensitive", "false") == "true":
        raise EngineUnfitError("this session tells columns apart by case")
    opened = open_source(spark, replace(spec, where=None))
    paths = _paths(opened.frame, root)
    inside = [path for path in paths if Path(path) != root and Path(path).parent != root]
    if inside:
        raise EngineUnfitError(f"the source has files in folders of its own: {listed(inside)}")
    check_fit(name, options, paths)
    files = tuple(
        DataFile(path, Path(path).stat().st_size, is_splittable=not compression_of(path))
        for path in paths
    )
    columns = tuple(
        TableColumn(column, column.name, _doubt(spark, name, options, column))
        for column in opened.table.columns
    )
    table = replace(opened.table, where=spec.where)
    names = [column.name for column in table.columns]
    written = FileFormat(name, options, names)
    where = _predicate(spark, table)
    return FilesSource(table, files, columns, (), where, format=written)


def _paths(frame: DataFrame, root: Path) -> list[str]:
    """The files of a DataFrame.

    Raises:
        EngineUnfitError: Their folders hold values of the rows.
    """
    paths = [unquote(urlsplit(uri).path) for uri in frame.inputFiles()]
    nested = [path for path in paths if "=" in str(Path(path).relative_to(root))]
    if nested:
        raise EngineUnfitError(f"the source has partitions in its folders: {listed(nested)}")
    return paths


def _doubt(
    spark: SparkSession, name: str, options: ReaderOptions, column: SourceColumn
) -> str | None:
    """Why the files alone do not tell what Spark reads; None: they do."""
    if column.type is None:
        return None  # `FilesSource.column` says it.
    if not is_readable(name, column.type):
        return f"is {column.type_name}, which only Spark reads from {name.upper()} as it does"
    if name == "orc" or column.type_name not in ("date", "timestamp"):
        return None
    if options.patterns:
        return f"is {column.type_name}, and only Spark knows {', '.join(options.patterns)}"
    if spark.conf.get("spark.sql.legacy.timeParserPolicy", "CORRECTED") == "LEGACY":
        return f"is {column.type_name}, which this session parses as Spark 2 did"
    timezone = spark.conf.get("spark.sql.session.timeZone") or ""
    if column.type_name == "timestamp" and timezone not in _UTC:
        return f"is timestamp, whose texts may mean the session's time zone, {timezone}"
    return None


def _predicate(spark: SparkSession, table: SourceTable) -> Predicate | None:
    """The table's filter; None where it has none.

    Raises:
        EngineUnfitError: It is not understood.
    """
    if table.where is None:
        return None
    if spark.conf.get("spark.sql.caseSensitive", "false") == "true":
        raise EngineUnfitError("this session tells columns apart by case")
    timezone = spark.conf.get("spark.sql.session.timeZone") or ""
    return parse_predicate(table.where, table.columns, timezone)
