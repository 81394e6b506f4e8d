"""A source as its files: the same facts that Spark's own reader gives, without a DataFrame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sparkscore.errors import EngineUnfitError, SourceError, listed, shown
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import (
    S3Store,
    TablePath,
    local_folder,
    store_errors,
    store_path,
)
from sparkscore.files.log import is_delta_table, read_snapshot
from sparkscore.files.predicate import Predicate
from sparkscore.files.schema import TableColumn
from sparkscore.files.sql import parse_predicate
from sparkscore.files.writing import PARTITION_TYPES, can_partition_by
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import SourceTable
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import is_path, located, open_source
from sparkscore.spark.store_settings import store_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FilesSource:
    """Exactly the rows that `table` names, as files of this machine or of a store.

    Attributes:
        files: Those that can hold a row that the filter selects.
        columns: How the table's columns are called in the files.
        partition_by: Columns whose values stand in the log instead of the files.
        store: Where the files are; None: on this machine.
    """

    table: SourceTable
    files: tuple[DataFile, ...]
    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...]
    where: Predicate | None
    store: S3Store | None = None

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
        if spec.format != "parquet" and is_delta_table(root):
            return replace(_delta_files(spark, spec, uri, root), store=store)
        if not isinstance(root, Path) and not (root.is_dir() or root.is_file()):
            raise SourceError(f"nothing is at source {shown(spec.uri)}; check --source")
    if not isinstance(root, Path):
        raise EngineUnfitError(f"the source is no Delta table, and lies in {urlsplit(uri).scheme}")
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
    )
    where = _predicate(spark, table)
    return FilesSource(table, snapshot.files(where), snapshot.columns, snapshot.partition_by, where)


def _parquet_files(spark: SparkSession, spec: SourceSpec, root: Path) -> FilesSource:
    """The files that Spark finds: it says which these are, and what their columns are called."""
    opened = open_source(spark, replace(spec, where=None))
    paths = [unquote(urlsplit(uri).path) for uri in opened.frame.inputFiles()]
    nested = [path for path in paths if "=" in str(Path(path).relative_to(root))]
    if nested:
        raise EngineUnfitError(f"the source has partitions in its folders: {listed(nested)}")
    files = tuple(DataFile(path, Path(path).stat().st_size) for path in paths)
    columns = tuple(TableColumn(column, column.name, None) for column in opened.table.columns)
    table = replace(opened.table, where=spec.where)
    return FilesSource(table, files, columns, (), _predicate(spark, table))


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
