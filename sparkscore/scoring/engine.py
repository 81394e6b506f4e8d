"""The seam between a plan and whatever executes it, and between an engine and where scores go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from sparkscore.scoring.duplicates import KeyRule
from sparkscore.scoring.facts import SourceTable
from sparkscore.scoring.features import Features
from sparkscore.scoring.incremental import SinceLast
from sparkscore.scoring.outcome import Commit, Outcome
from sparkscore.scoring.plan import RunIdentity, ScoringPlan
from sparkscore.scoring.table_write import TableWrite

if TYPE_CHECKING:
    from sparkscore.scoring.target import HistoryEntry

ScoresT_contra = TypeVar("ScoresT_contra", contravariant=True)
SinkT_contra = TypeVar("SinkT_contra", contravariant=True)


@dataclass(frozen=True)
class SourceSpec:
    """Which rows to read, as the user named them.

    Attributes:
        uri: Path or catalog name of a table.
        format: `auto`, `delta`, `parquet`, `csv`, `json` or `orc`.
        version: Delta version to read; None pins the newest one.
        where: SQL predicate over the source's columns.
        options: How CSV or JSON is written, by Spark's names; see `files.formats.parse_options`.
        schema: Columns of CSV or JSON files as Spark's DDL; None: as Spark infers them.
        since: Only what is new since the last run; None: all rows.
        key_rule: Which one of the rows of a key is read; None: all are.
        features: What is computed from the rows that are read.
    """

    uri: str
    format: str = "auto"
    version: int | None = None
    where: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    since: SinceLast | None = None
    key_rule: KeyRule | None = None
    features: Features = field(default_factory=Features)


@dataclass(frozen=True)
class RunFacts:
    """What is constant over all rows of a run and stands in each of them."""

    run_id: str
    scored_at: dt.datetime


class Sink(Protocol[ScoresT_contra]):
    """A table that runs write. One run is one commit, however often it is tried."""

    @property
    def uri(self) -> str:
        """Where the table lies, in one form however it was written."""
        ...

    def find(self, identity: RunIdentity) -> Commit | None:
        """The commit that this logical run made before, or None.

        Raises:
            RunKeyConflictError: The key was committed with other inputs.
        """
        ...

    def clear(self, identity: RunIdentity) -> None:
        """Remove what attempts at a committed run have left, which were cut off right after it."""
        ...

    def history(self) -> Iterator[HistoryEntry]:
        """The table's commits that say something, the newest first; none where it is not there."""
        ...

    def check(self, write: TableWrite) -> None:
        """Refuse, before any row is scored, what the target would refuse after.

        Raises:
            TargetSchemaError: The target's columns or partitions differ from those to be written.
            TargetUnwritableError: Its location refuses writes.
            TargetError: Something else than a table is there.
        """
        ...

    def write(self, scores: ScoresT_contra, write: TableWrite, facts: RunFacts) -> Commit:
        """Write the rows in one commit and prove from the table's history that it landed.

        Raises:
            RunKeyConflictError: The table skipped the commit, or another attempt with other
                inputs won.
            TargetBusyError: Other commits won every try.
        """
        ...


class OpenedSource(Protocol):
    """A source as one engine holds it."""

    @property
    def table(self) -> SourceTable:
        """Which table, version and columns these are."""
        ...

    @property
    def nothing_new(self) -> bool:
        """Whether new rows were asked for, and there are none."""
        ...


SourceT = TypeVar("SourceT", bound=OpenedSource)


@dataclass(frozen=True)
class Crossing:
    """What of a job's data passes between the JVM and Python; each in one line, with the reason.

    Attributes:
        columns: How the source's columns come to the model.
        scores: How the scores come into the files of their table.
    """

    columns: str
    scores: str


class Engine(Protocol[SourceT, SinkT_contra]):
    """One way to read a source, score it and hand the scores to a sink."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        ...

    def open(self, spec: SourceSpec) -> SourceT:
        """The source with its version pinned and its filter applied; no row is read.

        Raises:
            SourceError: There is no such table or version, or the filter does not fit.
        """
        ...

    def crossing(self, plan: ScoringPlan, source: SourceT, sink: SinkT_contra) -> Crossing:
        """What would pass between the JVM and Python, and why so."""
        ...

    def run(
        self, plan: ScoringPlan, source: SourceT, sink: SinkT_contra, facts: RunFacts
    ) -> Outcome:
        """Score and commit, or find that it was done before.

        Raises:
            SparkscoreError: What the sink, the model or the rows refuse; nothing was committed,
                unless the error is a BooksError.
        """
        ...
