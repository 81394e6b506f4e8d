"""Scoring what is new: up to where a job has scored its source, as the target's history tells it.

Everything here is pure: histories and tables are handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, SourceChangesError, SourceError, shown

if TYPE_CHECKING:
    from sparkscore.scoring.engine import SourceSpec
    from sparkscore.scoring.facts import SourceTable
    from sparkscore.scoring.plan import WriteMode
    from sparkscore.scoring.target import HistoryEntry

START = "start"
"""What stands for the version before the first one: all rows of the source are new."""
_RESTORE = "RESTORE"
_FULL_RUN = (
    "run the job once without --since-last, from where the next --since-last goes on (with mode "
    "append into a new target, which would else have rows twice)"
)


class Deletes(StrEnum):
    """What becomes of the scores of rows that were deleted from the source."""

    IGNORE = "ignore"
    TOMBSTONE = "tombstone"
    FAIL = "fail"


@dataclass(frozen=True)
class Mark:
    """Up to where the runs of a job have scored a source.

    Attributes:
        source_id: Id of the Delta table that they read.
        version: Its newest version that they read.
        where: The filter that they read it with; empty: none.
    """

    source_id: str
    version: int
    where: str


@dataclass(frozen=True)
class SinceLast:
    """Asks for the rows that are new since a mark.

    Attributes:
        mark: Up to where rows were scored; None: none were.
        deletes: What becomes of scores whose rows are gone.
        keys: Columns that tell one row from another.
    """

    mark: Mark | None
    deletes: Deletes = Deletes.IGNORE
    keys: tuple[str, ...] = ()


def check_since_last(mode: WriteMode, deletes: Deletes, run_key: str | None) -> None:
    """Refuse what does not go together with scoring what is new.

    Raises:
        ConfigError: Something does not.
    """
    if run_key is not None:
        raise ConfigError(
            "--since-last names each run by the versions that it scores, so that no two runs score "
            f"the same ones; leave --run-key {run_key} out"
        )
    if mode == "replace":
        raise ConfigError(
            "--since-last goes with mode append or merge: with mode replace, the rows that are not "
            "new would give way to those that are"
        )
    if deletes is Deletes.TOMBSTONE and mode != "merge":
        raise ConfigError(
            "--deletes tombstone removes scores by their keys, which only mode merge does; take "
            "--mode merge, or --deletes ignore or fail"
        )


def last_mark(history: Iterable[HistoryEntry], job: str, target: str) -> Mark | None:
    """Up to where a job has scored its source into a target.

    Runs without `--since-last` count as well: they have scored all that there was. The newest run
    says which source and filter these are.

    Args:
        history: The target's commits, the newest first; read no further than needed.
        job: Name of the logical job.
        target: What messages call the target.

    Returns:
        None where the job has never written to the target.

    Raises:
        SourceChangesError: The target was restored to a state before, or its history is cut off.
    """
    found: Mark | None = None
    oldest = 0
    for entry in history:
        oldest = entry.version
        if entry.operation == _RESTORE and found is None:
            raise SourceChangesError(
                f"target {shown(target)} was restored at version {entry.version}, after the last "
                f"run of job {job!r}, so which rows it holds cannot be told; {_FULL_RUN}"
            )
        inputs = _inputs_of(entry, job)
        if inputs is None:
            continue
        mark = Mark(inputs.get("input_id", ""), _version(inputs), inputs.get("where", ""))
        if found is None:
            found = mark
        elif (mark.source_id, mark.where) == (found.source_id, found.where):
            found = max(found, mark, key=lambda one: one.version)
        if inputs.get("since"):  # It began where all runs before it had ended.
            return found
    if found is None and oldest > 0:
        raise SourceChangesError(
            f"the history of target {shown(target)} begins at version {oldest} and tells of no run "
            f"of job {job!r}; what came before was cleaned up, so where to begin cannot be told; "
            f"{_FULL_RUN}"
        )
    return found


def check_mark(mark: Mark, table: SourceTable) -> None:
    """Refuse to go on from a mark that is not one of this table and filter.

    Raises:
        SourceChangesError: The table was made anew, has been rolled back, or the filter differs.
    """
    if mark.source_id != table.table_id:
        raise SourceChangesError(
            f"the last run of this job read another table than {shown(table.uri)} is now: table id "
            f"{mark.source_id!r} then, {table.table_id!r} now; it was dropped and made anew, or "
            f"--source has changed; {_FULL_RUN}"
        )
    if mark.version < 0:
        raise SourceChangesError(
            f"the last run of this job read {shown(table.uri)} as a stream, whose checkpoint knows "
            "up to where; give this job a --name of its own"
        )
    where = table.where or ""
    if mark.where != where:
        raise SourceChangesError(
            f"the last run of this job read {shown(table.uri)} with filter {shown(mark.where)}, "
            f"and this one has {shown(where)}, which may select rows that were left out before; "
            f"take the former filter, or {_FULL_RUN}"
        )
    if int(table.version) < mark.version:
        raise SourceChangesError(
            f"source {shown(table.uri)} is at version {table.version}, but was scored up to "
            f"version {mark.version}; take that --source-version or a later one, or, where its log "
            f"was rolled back, {_FULL_RUN}"
        )


def check_has_versions(spec: SourceSpec) -> None:
    """Refuse to look for new rows in what is no Delta table.

    Raises:
        SourceError: They are asked for.
    """
    if spec.since is not None:
        raise SourceError(
            f"source {shown(spec.uri)} is no Delta table, so nothing says which of its rows are "
            "new; leave --since-last out, or keep the source as a Delta table"
        )


def began_at(since: SinceLast | None) -> str:
    """How a source names the version after which its rows are new."""
    if since is None:
        return ""
    return START if since.mark is None else str(since.mark.version)


def range_key(table: SourceTable) -> str:
    """The run key of what is new since a version, whatever the newest version is.

    Of several runs that begin at one mark only one can commit, since they are one logical run.
    """
    return f"since-{table.since}-of-{table.table_id}"


def nothing_new_text(table: SourceTable) -> str:
    """The message of a run that had nothing to do."""
    return f"nothing new in {table.uri} since version {table.since} (now {table.version})"


def _inputs_of(entry: HistoryEntry, job: str) -> Mapping[str, str] | None:
    """What a commit of the job read; None where it is no such commit."""
    if entry.facts.get("job") != job:
        return None
    inputs: Mapping[str, str] = entry.facts["inputs"]
    return inputs if "input_id" in inputs else None  # A replay of rejected rows has none.


def _version(inputs: Mapping[str, str]) -> int:
    """The version of the source; -1 where it had none: a stream, or a folder of Parquet files."""
    version = inputs.get("input_version", "")
    return int(version) if version.isdigit() else -1
