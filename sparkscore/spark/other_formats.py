"""Sources in CSV, JSON lines and ORC through Spark's own readers, set to null and drop nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pyspark.sql.types import StructType

from sparkscore.errors import SourceError, listed, shown
from sparkscore.files.formats import format_of, parse_options
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.failures import SPARK_FAILURES, reason_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OTHER_FORMATS = ("csv", "json", "orc")
"""Those besides Delta and Parquet."""


def other_format(spec: SourceSpec, uri: str) -> str | None:
    """The format of a source by its name or its files; None: it is Delta, Parquet or nothing.

    Args:
        spec: Names the format, or leaves it to the files.
        uri: Where the source lies, as `located` says it.

    Raises:
        SourceError: There are files of several formats.
    """
    if spec.format != "auto":
        return spec.format if spec.format in OTHER_FORMATS else None
    kinds = {kind: path for path in _data_files(uri) if (kind := format_of(path.name)) is not None}
    if len(kinds) > 1:
        raise SourceError(
            f"source {shown(spec.uri)} has files of several formats, such as "
            f"{listed(str(path) for path in kinds.values())}; name one folder or file of one "
            "format, or say with --source-format how all of them are written"
        )
    return next((kind for kind in kinds if kind in OTHER_FORMATS), None)


def read_other(spark: SparkSession, uri: str, spec: SourceSpec, name: str) -> DataFrame:
    """The rows of a source, lazy; its columns are those of the schema that is given or inferred.

    A malformed row fails the job that reads it. Subfolders are read, as partitions where they are
    called so (`day=1`).

    Args:
        spark: The session.
        uri: Where the source lies.
        spec: Options and schema.
        name: `csv`, `json` or `orc`.

    Raises:
        SourceError: Options, schema or files are refused, or there is no column.
    """
    if spec.version is not None:
        raise SourceError(
            f"version {spec.version} of {uri!r} was asked for; {name.upper()} has no versions"
        )
    options = spark_options(name, spec)
    if _has_plain_folders(uri):
        options["recursiveFileLookup"] = "true"
    given = None if spec.schema is None else parsed_schema(spec.schema)
    try:
        reader = spark.read.format(name).options(**options)
        if given is None:
            frame = reader.option("inferSchema", "true").load(uri)
        elif name == "orc":
            frame = _promised(reader.load(uri), given, spec)
        else:
            frame = reader.schema(given).load(uri)
        columns = frame.schema.names
    except SPARK_FAILURES as exc:
        raise SourceError(
            f"source {shown(spec.uri)} cannot be read as {name.upper()}: {reason_of(exc)}; "
            "mend the file, or check --source-format, --source-option and --source-schema"
        ) from exc
    if not columns:
        raise SourceError(
            f"source {shown(spec.uri)} has no row to tell its columns by; give --source-schema"
        )
    return frame


def spark_options(name: str, spec: SourceSpec) -> dict[str, str]:
    """The options of Spark's reader, as the version of a source counts them.

    Raises:
        SourceError: An option is unknown.
    """
    options = parse_options(name, spec.options)
    # Without it, Spark takes the columns of one file for those of all.
    return {"mergeSchema": "true"} if name == "orc" else options.for_spark(name)


def reading_facts(name: str, spec: SourceSpec) -> str:
    """What decides, besides the files, which rows and values are read."""
    return json.dumps([spark_options(name, spec), spec.schema], sort_keys=True)


def _data_files(uri: str) -> Iterator[Path]:
    """The files of a local source that Spark reads: all but those that are hidden."""
    if urlsplit(uri).scheme not in ("", "file"):
        return
    root = Path(urlsplit(uri).path if urlsplit(uri).scheme else uri)
    if root.is_file():
        yield root
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(folder, name) for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _has_plain_folders(uri: str) -> bool:
    """Whether files lie in folders that are no partitions, which Spark passes over by itself."""
    root = Path(urlsplit(uri).path if urlsplit(uri).scheme else uri)
    folders = (path.relative_to(root).parts[:-1] for path in _data_files(uri))
    return any("=" not in part for parts in folders for part in parts)


def parsed_schema(text: str) -> StructType:
    """Columns as Spark SQL lists them.

    Raises:
        SourceError: The text is no such list.
    """
    reason: object = "it is one type"
    try:
        schema = StructType.fromDDL(text)
        if isinstance(schema, StructType):
            return schema
    except SPARK_FAILURES as exc:
        reason = reason_of(exc)
    raise SourceError(
        f"source schema {shown(text)} is no list of columns of Spark SQL: {reason}; write it such "
        "as 'id BIGINT, x DOUBLE'"
    )


def _promised(frame: DataFrame, given: StructType, spec: SourceSpec) -> DataFrame:
    """Those columns of ORC files that a schema names; other types would be cast, or null."""
    own = {field.name: field.dataType for field in frame.schema}
    lies = _lies(given, own)
    if lies:
        raise SourceError(
            f"source {shown(spec.uri)} has other columns than its schema says: {listed(lies)}; "
            "leave --source-schema out, since ORC files have their own"
        )
    return frame.select(*(frame[f"`{name.replace('`', '``')}`"] for name in given.names))


def _lies(given: StructType, own: Mapping[str, object]) -> Sequence[str]:
    return [
        f"{field.name} is {own.get(field.name, 'not there')}"
        for field in given
        if own.get(field.name) != field.dataType
    ]
