"""What is new in a Delta table since a version, as a DataFrame.

By the change data feed where it was on in all of the range, else by the files that were appended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as sf

from sparkscore.errors import SourceChangesError, shown
from sparkscore.files.appended import FEED, WAYS_OUT, deleted_error, logged_changes
from sparkscore.files.filesystem import local_folder, store_path
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import SourceTable
from sparkscore.scoring.incremental import (
    Deletes,
    Mark,
    SinceLast,
    began_at,
    check_has_versions,
    check_mark,
)
from sparkscore.spark.delta_log import appended_frame
from sparkscore.spark.failures import SPARK_FAILURES, first_line, said_by, unreadable_source
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import (
    OpenedSource,
    detail_of,
    is_path,
    open_source,
    quoted,
    source_errors,
)
from sparkscore.spark.store_settings import store_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row, SparkSession

_KIND = "_change_type"
_VERSION = "_commit_version"
_CAME = ("insert", "update_postimage")
_WENT = ("delete", "update_preimage")
_WENT_AT = "__sparkscore_went_at"
_NO_FEED = "DELTA_MISSING_CHANGE_DATA"


def open_changes(spark: SparkSession, spec: SourceSpec, since: SinceLast) -> OpenedSource:
    """The rows of a source that are new since a mark, at its pinned version; few are read.

    A row that was changed several times is read as it is now, where key columns tell which row it
    is; without them each change is a row.

    Raises:
        SourceError: The source is no Delta table, or the filter does not fit its columns.
        SourceChangesError: What is new cannot be told.
        DataError: Rows were deleted, which the job does not admit.
    """
    whole = open_source(spark, replace(spec, where=None, since=None))
    if whole.table.format != "delta":
        check_has_versions(spec)
    table = replace(whole.table, where=spec.where, since=began_at(since))
    mark = since.mark
    if mark is None:
        return OpenedSource(_where(whole.frame, spec), table)
    check_mark(mark, table)
    if int(table.version) == mark.version:
        return OpenedSource(whole.frame.limit(0), table, nothing_new=True)
    detail = detail_of(spark, table.uri)
    assert detail is not None
    feed = None
    if detail["properties"].get(FEED) == "true":
        feed = _feed(spark, table, mark)
    if feed is None:
        frame = _appended(spark, table, mark, since.deletes, detail)
        if frame is None:
            return OpenedSource(whole.frame.limit(0), table, nothing_new=True)
        return OpenedSource(_where(frame.select(*map(quoted, whole.frame.columns)), spec), table)
    return _by_feed(_where(feed, spec), whole.frame.columns, table, since)


def _feed(spark: SparkSession, table: SourceTable, mark: Mark) -> DataFrame | None:
    """The change data feed of what came after a mark; None where it was not on in all of it."""
    reader = (
        spark.read.format("delta")
        .option("readChangeFeed", "true")
        .option("startingVersion", mark.version + 1)
        .option("endingVersion", table.version)
    )
    try:
        frame = reader.load(table.uri) if is_path(table.uri) else reader.table(table.uri)
        frame.isEmpty()  # Only now does Delta look whether there is a feed.
    except SPARK_FAILURES as exc:
        if _NO_FEED in said_by(exc):
            return None
        raise unreadable_source(exc) or SourceChangesError(
            f"the change data feed of source {shown(table.uri)} cannot be read from version "
            f"{mark.version + 1} to {table.version}: {first_line(exc)}; if these versions were "
            "cleaned up, score all rows once (without --since-last)"
        ) from exc
    return frame


def _by_feed(
    feed: DataFrame, columns: list[str], table: SourceTable, since: SinceLast
) -> OpenedSource:
    """The rows that a change data feed leaves, and the keys of those that are gone."""
    if feed.isEmpty():
        return OpenedSource(feed.select(*map(quoted, columns)), table, nothing_new=True)
    came = feed.where(sf.col(_KIND).isin(*_CAME))
    if feed.where(sf.col(_KIND).isin(*_WENT)).isEmpty():
        return OpenedSource(came.select(*map(quoted, columns)), table)
    if since.deletes is Deletes.FAIL:
        first = feed.where(sf.col(_KIND) == "delete").select(_VERSION).limit(1).collect()
        if first:
            raise deleted_error(table.uri, f"version {first[0][0]} deleted rows")
    if not since.keys:
        return OpenedSource(came.select(*map(quoted, columns)), table)
    keys = [sf.col(quoted(name)) for name in since.keys]
    went_at = _last(_WENT).over(Window.partitionBy(*keys))
    # An update takes its row away and brings it back in one version, which is therefore kept.
    is_left = sf.col(_WENT_AT).isNull() | (sf.col(_VERSION) >= sf.col(_WENT_AT))
    left = feed.withColumn(_WENT_AT, went_at).where(sf.col(_KIND).isin(*_CAME) & is_left)
    gone = None
    if since.deletes is Deletes.TOMBSTONE:
        last = feed.groupBy(*keys).agg(_last(_WENT).alias(_WENT_AT), _last(_CAME).alias(_VERSION))
        is_gone = sf.coalesce(sf.col(_VERSION) < sf.col(_WENT_AT), sf.col(_VERSION).isNull())
        gone = last.where(sf.col(_WENT_AT).isNotNull() & is_gone).select(*keys)
    return OpenedSource(left.select(*map(quoted, columns)), table, gone)


def _last(kinds: tuple[str, ...]) -> Column:
    """The last version with a change of one of these kinds."""
    return sf.max(sf.when(sf.col(_KIND).isin(*kinds), sf.col(_VERSION)))


def _appended(
    spark: SparkSession, table: SourceTable, mark: Mark, deletes: Deletes, detail: Row
) -> DataFrame | None:
    """The rows of the files that were appended after a mark; None: there are none."""
    if is_connect(spark):
        raise SourceChangesError(
            f"source {shown(table.uri)} has no change data feed since version {mark.version}, and "
            f"a Connect session does not say which files were appended; {WAYS_OUT}"
        )
    folder = str(detail["location"])
    store = store_of(spark, folder, "source")
    root = local_folder(folder) if store is None else store_path(store, folder)
    changes = logged_changes(root, mark.version, int(table.version))
    changes.check(table.uri, deletes)
    if not changes.added:
        return None
    changes.check_kept(root)
    return appended_frame(spark, folder, [file.line for file in changes.added.values()])


def _where(frame: DataFrame, spec: SourceSpec) -> DataFrame:
    with source_errors(spec):
        filtered = frame if spec.where is None else frame.where(sf.expr(spec.where))
        _ = filtered.schema  # Connect parses the filter only when the schema is asked for.
    return filtered
