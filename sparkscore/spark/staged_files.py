"""Scores that Python has written as files, and that Spark then takes into their table.

For merges, tables of a catalog and tables that ask of a writer what only Spark gives. The files
lie in the table's folder, where no commit names them, as those do that Python commits: so the
same ledger tells of them, the same checks look at them, and the same command finds what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql.pandas.types import from_arrow_schema

from sparkscore.errors import EngineUnfitError
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import PARTITION_TYPES, FileLayout, can_partition_by
from sparkscore.scoring.table_write import TableWrite
from sparkscore.spark.delta import files_sink
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import detail_of, is_path, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from sparkscore.scoring.engine import RunFacts
    from sparkscore.scoring.outcome import Commit
    from sparkscore.scoring.plan import RunIdentity
    from sparkscore.scoring.target import HistoryEntry
    from sparkscore.spark.delta import DeltaSink

CommitFrame = Callable[["DataFrame", TableWrite, "RunFacts", tuple[str, ...]], "Commit"]
"""Writes rows in one commit that names the earlier attempts whose rows are among them."""

_READING = {
    # A session may ask for the opposite, and would then commit what is left of the scores.
    "ignoreMissingFiles": "false",
    "ignoreCorruptFiles": "false",
    "__globPaths__": "false",  # Paths are names, whatever characters they have.
}


@dataclass(frozen=True)
class StagedSink:
    """A score table that Spark writes from files which workers have written into its folder.

    Attributes:
        sink: The table, as Spark writes it.
        files: Its folder.
        partition_by: What the files are parted by, so that rows of each partition can be counted.
        commit: Has `sink` take rows.
    """

    sink: DeltaSink
    files: FilesSink
    partition_by: tuple[str, ...]
    commit: CommitFrame

    @property
    def uri(self) -> str:
        """The table's folder."""
        return self.files.uri

    def find(self, identity: RunIdentity) -> Commit | None:
        """The commit that this logical run made before, or None.

        Raises:
            RunKeyConflictError: The key was committed with other inputs.
        """
        return self.sink.find(identity)

    def history(self) -> Iterator[HistoryEntry]:
        """The table's commits that say something, the newest first; none where it is not there."""
        return self.sink.history()

    def check(self, write: TableWrite) -> None:
        """Refuse, before any row is scored, what the target would refuse after.

        Raises:
            TargetSchemaError: The target's columns or partitions differ from those to be written.
            TargetUnwritableError: Its location refuses writes.
            TargetError: Something else than a Delta table is there.
        """
        self.sink.check(write)

    def predicate(self, write: TableWrite) -> None:
        """None: Spark itself sees that no row lies outside of what is replaced."""

    def layout(self, write: TableWrite) -> FileLayout:
        """How the staged files are written: by the names that Spark reads them by."""
        return FileLayout(
            folder=self.files.root,
            schema=write.schema,
            partition_by=self.partition_by,
            varied=self.files.layout(write).varied,
        )

    def write(self, scores: WrittenScores, write: TableWrite, facts: RunFacts) -> Commit:
        """Have Spark take the rows of the files in one commit.

        Raises:
            RunKeyConflictError: The table knows the run's id with other inputs.
            TargetBusyError: Other commits won every try.
            SparkscoreError: What Spark says else; nothing was committed, unless it has stopped.
        """
        return self.commit(self._rows(scores, write), write, facts, scores.resumed_from)

    def clean(self, identity: RunIdentity, attempts: Collection[str]) -> None:
        """Remove what attempts at a run wrote and its commit does not name; and empty folders.

        Raises:
            StoreUnavailableError: The store does not answer; `score clean` finds them later.
        """
        self.files.clean(identity, attempts)

    def _rows(self, scores: WrittenScores, write: TableWrite) -> DataFrame:
        spark, schema = self.sink.spark, from_arrow_schema(write.schema)
        paths = [str(self.files.root / file.path) for file in scores.files]
        if not paths:
            return spark.createDataFrame([], schema)
        reader = spark.read.schema(schema).options(**_READING)
        frame = reader.option("basePath", str(self.files.root)).parquet(*paths)
        return frame.select(*(quoted(name) for name in write.schema.names))


def staged_sink(
    sink: DeltaSink, write: TableWrite, *, by_partition: bool, commit: CommitFrame
) -> StagedSink:
    """A table that Spark writes, for a job whose workers write files first.

    Args:
        sink: The table.
        write: What enters it.
        by_partition: Whether rows of each partition of the table are counted.
        commit: See `StagedSink`.

    Raises:
        EngineUnfitError: The table has no folder yet, or workers may not see it.
    """
    files = files_sink(sink.spark, _folder_of(sink.spark, sink.uri))
    partition_by = sink.partition_by(write) if by_partition else ()
    for name in partition_by:
        if name in write.schema.names and not can_partition_by(write.schema.field(name).type):
            raise EngineUnfitError(f"files are parted by {PARTITION_TYPES}, and not by {name!r}")
    staged = StagedSink(sink, files, partition_by, commit)
    staged.layout(write)
    return staged


def _folder_of(spark: SparkSession, uri: str) -> str:
    if is_connect(spark):
        raise EngineUnfitError("the workers of a Connect session may not see the target")
    if is_path(uri):
        return uri
    detail = detail_of(spark, uri)
    if detail is None:
        raise EngineUnfitError(f"the table {uri!r} of the catalog has no folder yet")
    return str(detail["location"])
