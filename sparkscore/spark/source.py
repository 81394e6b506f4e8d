"""Opening what a job reads, pinned to a version, and saying which columns it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import to_arrow_type

from sparkscore.errors import InvalidNameError, SourceError, shown
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import SourceColumn, SourceTable
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.spark.failures import first_line, is_damaged
from sparkscore.spark.other_formats import (
    OTHER_FORMATS,
    other_format,
    read_other,
    reading_facts,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Observation, Row, SparkSession
    from pyspark.sql.types import DataType, StructType


_ANY_KIND = "Delta table or folder of Parquet, CSV, JSON or ORC files"


@dataclass(frozen=True)
class OpenedSource:
    """A lazy DataFrame of exactly the rows that `table` names.

    Attributes:
        gone: Keys of rows that were there before, where their scores shall go.
        nothing_new: Whether new rows were asked for, and there are none.
        given: Counts the rows before all but one of each key were left out; None: none were.
    """

    frame: DataFrame
    table: SourceTable
    gone: DataFrame | None = None
    nothing_new: bool = False
    given: Observation | None = None

    def accounted(self, outcome: Outcome) -> Outcome:
        """The outcome of a run over these rows, with those on the books that were left out."""
        if self.given is None or outcome.status is not OutcomeStatus.SUCCEEDED:
            return outcome
        n_given = int(self.given.get["n_rows"])
        return replace(outcome, n_read=n_given, n_skipped=n_given - outcome.n_read)


def open_source(spark: SparkSession, spec: SourceSpec) -> OpenedSource:
    """The source with its version pinned and its filter applied; no row is read.

    Raises:
        SourceError: There is no such table or version, or the filter does not fit its columns.
    """
    with source_errors(spec):
        uri = located(spark, spec.uri)
        is_files = spec.format in ("parquet", *OTHER_FORMATS)
        detail = None if is_files else detail_of(spark, uri)
        if detail is not None and detail["format"] == "delta":
            check_no_reading(spec, "Delta")
            opened = _open_delta(spark, uri, spec.version, str(detail["id"]))
        elif (name := other_format(spec, uri)) is not None:
            opened = _open_other(spark, uri, spec, name)
        elif spec.format != "delta" and _holds_parquet(uri):
            check_no_reading(spec, "Parquet")
            opened = _open_parquet(spark, uri, spec.version)
        else:
            raise SourceError(_no_table_text(spec, uri))
        return opened if spec.where is None else _filtered(opened, spec.where)


def check_no_reading(spec: SourceSpec, name: str) -> None:
    """Refuse options and a schema for a format that says by itself how it is read.

    Raises:
        SourceError: There are some.
    """
    if spec.options or spec.schema is not None:
        raise SourceError(
            f"source {shown(spec.uri)} is {name}, which takes no options and no schema; leave "
            "--source-option and --source-schema out"
        )


def described(frame: DataFrame, uri: str = "DataFrame") -> SourceTable:
    """A DataFrame of the caller's as a source; nobody can pin its rows."""
    return SourceTable(uri=uri, format="spark", version="", columns=columns_of(frame.schema))


def columns_of(schema: StructType) -> tuple[SourceColumn, ...]:
    """The columns of a Spark schema with their Arrow types, where Arrow has them."""
    return tuple(
        SourceColumn(field.name, _arrow_type(field.dataType), field.dataType.simpleString())
        for field in schema.fields
    )


def located(spark: SparkSession, uri: str) -> str:
    """What `uri` means in this session: a name of its catalog, or else a path, made absolute.

    A name without a `/` is a table of the catalog if there is one, or if the catalog outlives the
    session; with Spark's in-memory catalog a new table would be lost, so that it is a path.

    Raises:
        InvalidNameError: The catalog has no such names.
    """
    if urlsplit(uri).scheme and "/" in uri:
        return uri
    if "/" in uri or uri.startswith(".") or Path(uri).exists():
        return str(Path(uri).absolute())
    try:
        if spark.catalog.tableExists(uri):
            return uri
    except ParseException:  # What no table can be called, such as flights-2013, is a path.
        return str(Path(uri).absolute())
    except AnalysisException as exc:
        raise InvalidNameError(
            f"{shown(uri)} is no name of a table: {first_line(exc)}; a path has a '/' in it, such "
            "as ./flights"
        ) from exc
    in_memory = spark.conf.get("spark.sql.catalogImplementation", "in-memory") == "in-memory"
    return str(Path(uri).absolute()) if in_memory and "." not in uri else uri


def is_path(uri: str) -> bool:
    """Whether a located `uri` means files rather than a name of the catalog."""
    return "/" in uri


def table_identifier(uri: str) -> str:
    """How SQL names the located table: delta.`path`, or the catalog name as it is."""
    return f"delta.{quoted(uri)}" if is_path(uri) else uri


def detail_of(spark: SparkSession, uri: str) -> Row | None:
    """What DESCRIBE DETAIL says of the located table, or None where there is no table."""
    try:
        return spark.sql(f"DESCRIBE DETAIL {table_identifier(uri)}").collect()[0]
    except AnalysisException:
        return None


def quoted(name: str) -> str:
    """`name` as one identifier of Spark SQL, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def _open_delta(spark: SparkSession, uri: str, version: int | None, table_id: str) -> OpenedSource:
    if version is None:
        newest = spark.sql(f"DESCRIBE HISTORY {table_identifier(uri)} LIMIT 1").collect()[0]
        version = int(newest["version"])
    reader = spark.read.format("delta").option("versionAsOf", version)
    frame = reader.load(uri) if is_path(uri) else reader.table(uri)
    table = SourceTable(
        uri=uri,
        format="delta",
        version=str(version),
        columns=columns_of(frame.schema),
        table_id=table_id,
    )
    return OpenedSource(frame, table)


def _open_parquet(spark: SparkSession, uri: str, version: int | None) -> OpenedSource:
    if version is not None:
        raise SourceError(f"version {version} of {uri!r} was asked for; Parquet has no versions")
    frame = spark.read.parquet(uri)
    table = SourceTable(
        uri=uri,
        format="parquet",
        version=_files_digest(frame.inputFiles()),
        columns=columns_of(frame.schema),
    )
    return OpenedSource(frame, table)


def _open_other(spark: SparkSession, uri: str, spec: SourceSpec, name: str) -> OpenedSource:
    frame = read_other(spark, uri, spec, name)
    table = SourceTable(
        uri=uri,
        format=name,
        version=_files_digest(frame.inputFiles(), reading_facts(name, spec)),
        columns=columns_of(frame.schema),
    )
    return OpenedSource(frame, table)


def _files_digest(files: list[str], reading: str = "") -> str:
    """A digest over the names of the files, and over size and time of those on this machine.

    Args:
        files: Their URIs.
        reading: What else decides which rows they hold.
    """
    digest = hashlib.sha256(reading.encode())
    for uri in sorted(files):
        digest.update(uri.encode())
        path = Path(urlsplit(uri).path)
        if urlsplit(uri).scheme == "file" and path.exists():
            facts = path.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _filtered(opened: OpenedSource, where: str) -> OpenedSource:
    frame = opened.frame.where(sf.expr(where))
    columns_of(frame.schema)  # Connect parses the filter only when the schema is asked for.
    return OpenedSource(frame, replace(opened.table, where=where))


def _holds_parquet(uri: str) -> bool:
    if urlsplit(uri).scheme not in ("", "file"):
        return True  # Spark itself says what is wrong with files that are not here.
    path = Path(urlsplit(uri).path)
    if path.is_file():
        return path.suffix == ".parquet"
    return path.is_dir() and next(path.rglob("*.parquet"), None) is not None


def _arrow_type(data_type: DataType) -> pa.DataType | None:
    try:
        return to_arrow_type(data_type, timezone="UTC")
    except PySparkException:
        return None


@contextmanager
def source_errors(spec: SourceSpec) -> Iterator[None]:
    """What Spark says of a source, as an error of ours."""
    try:
        yield
    except PySparkException as exc:
        raise _unread(spec, exc) from exc
    except Py4JError as exc:
        if not is_damaged(exc):
            raise
        raise _unread(spec, exc) from exc


def _unread(spec: SourceSpec, exc: BaseException) -> SourceError:
    version = "" if spec.version is None else f" at version {spec.version}"
    where = "" if spec.where is None else f" with filter {shown(spec.where)}"
    return SourceError(
        f"source {shown(spec.uri)} cannot be read{version}{where}: {first_line(exc)}"
    )


def _no_table_text(spec: SourceSpec, uri: str) -> str:
    kind = "Delta table" if spec.format == "delta" else _ANY_KIND
    if is_path(uri):
        path = Path(uri)
        state = "nothing is there" if not path.exists() else "what is there is something else"
        return f"source {shown(spec.uri)} is no {kind}: {state} ({path}); check the path"
    return (
        f"source {shown(spec.uri)} is no {kind} of the catalog; "
        "a path would have a '/' in it, such as ./flights"
    )
