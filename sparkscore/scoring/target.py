"""What every sink of Delta tables asks and says, whichever library writes: runs in a history."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkscore.errors import (
    RunKeyConflictError,
    TargetBusyError,
    TargetError,
    TargetSchemaError,
    TargetUnwritableError,
    shown,
)
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import RunIdentity
from sparkscore.scoring.staged_names import LEDGER_FILE, SCORE_FILE
from sparkscore.scoring.table_write import TableWrite

N_TRIES = 5
"""Times that a commit is tried when others win."""
_METADATA_FORMAT = 1


@dataclass(frozen=True)
class HistoryEntry:
    """One commit of a table's history, as Delta describes it."""

    version: int
    operation: str
    user_metadata: str
    metrics: Mapping[str, str]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the commit says of the run that made it; empty where it is not ours."""
        try:
            facts = json.loads(self.user_metadata or "null")
        except ValueError:
            return {}
        return facts if isinstance(facts, dict) and "sparkscore" in facts else {}


def user_metadata(
    write: TableWrite, facts: RunFacts, attempt: str, resumed_from: Sequence[str] = ()
) -> str:
    """What a commit says of the run that made it; found again by `app_id`.

    Args:
        write: The write.
        facts: The attempt that commits.
        attempt: Its name in files.
        resumed_from: Run ids of earlier attempts, some of whose rows are in the commit.
    """
    identity = write.identity
    metadata = {
        **write.about,
        "sparkscore": _METADATA_FORMAT,
        "app_id": identity.app_id,
        "txn_version": identity.txn_version,
        "run_key": identity.run_key,
        "run_id": facts.run_id,
        "scored_at": facts.scored_at.isoformat(),
        "attempt": attempt,
        "inputs": dict(identity.fingerprint),
    }
    if resumed_from:
        metadata["resumed_from"] = list(resumed_from)
    return json.dumps(metadata, sort_keys=True)


def is_commit_of(identity: RunIdentity, entry: HistoryEntry) -> bool:
    """Whether this logical run made a commit."""
    facts = entry.facts
    # Commits from before there were streams name no version.
    is_version = facts.get("txn_version", 1) == identity.txn_version
    return facts.get("app_id") == identity.app_id and is_version


def commit_of(entry: HistoryEntry, identity: RunIdentity, uri: str) -> Commit:
    """The commit that an entry of this run describes.

    Raises:
        RunKeyConflictError: It was made with other inputs.
        TargetBusyError: It began where this run does, and went further, or less far.
    """
    metadata = entry.facts
    differing = {
        name: (str(metadata["inputs"].get(name, "")), value)
        for name, value in identity.fingerprint.items()
        if metadata["inputs"].get(name, "") != value
    }
    if differing and "since" in identity.fingerprint:
        raise _overtaken(uri, entry.version)
    if differing:
        raise RunKeyConflictError(_conflict_text(identity, uri, entry.version, differing))
    numbers = entry.metrics
    n_bytes = numbers.get("numOutputBytes") or numbers.get("numTargetBytesAdded")
    return Commit(
        uri=uri,
        version=entry.version,
        run_id=str(metadata["run_id"]),
        n_rows=_rows_written(numbers, is_merge=entry.operation == "MERGE"),
        n_deleted=int(numbers.get("numTargetRowsDeleted", 0)),
        n_bytes=None if n_bytes is None else int(n_bytes),
    )


def skipped_error(identity: RunIdentity, uri: str) -> RunKeyConflictError:
    """The table knows the run's id, but its history does not tell what the run wrote."""
    return RunKeyConflictError(
        f"target {shown(uri)} skipped the commit of run key {identity.run_key!r}: an "
        "earlier run used the key, and its history has expired, so what it wrote cannot be "
        "compared; nothing was written; give a new --run-key to score again"
    )


def closed_error(identity: RunIdentity, uri: str) -> RunKeyConflictError:
    """Another attempt at the run has committed all that it has to."""
    return RunKeyConflictError(
        f"another attempt at run key {identity.run_key!r} is done, so that {shown(uri)} takes "
        "nothing more of it; nothing was written; run the same command again to see its version, "
        "or with a new --run-key if the scores were removed since"
    )


def busy_error(uri: str) -> TargetBusyError:
    """Others won every try."""
    return TargetBusyError(
        f"other writers of {shown(uri)} won {N_TRIES} times in a row; nothing "
        "was written; run the same command again"
    )


def _overtaken(uri: str, version: int) -> TargetBusyError:
    """Another run of the job scored what is new from the same version on, to another end."""
    return TargetBusyError(
        f"another run of this job was faster: it committed version {version} of {shown(uri)}, from "
        "the same version of the source on; nothing was written; run the same command again for "
        "what is new since"
    )


def check_columns(uri: str, have: Mapping[str, str], want: Mapping[str, str]) -> None:
    """Compare the names and Spark types of a target's columns with those of the job.

    Raises:
        TargetSchemaError: They differ; each difference is named.
    """
    lines = [
        f"\n  {name}: the table has {have.get(name, 'no such column')}, "
        f"the job writes {want.get(name, 'no such column')}"
        for name in dict.fromkeys([*have, *want])
        if have.get(name) != want.get(name)
    ]
    if lines:
        raise TargetSchemaError(
            f"target {shown(uri)} has other columns than this job:{''.join(lines)}\n"
            "Take another target, alter the table, or keep and name columns as it does"
        )


def check_partitions(uri: str, have: list[str], write: TableWrite) -> None:
    """Compare a target's partition columns with those that the job asks for, if it asks.

    Raises:
        TargetSchemaError: They differ.
    """
    if write.partition_by and have != list(write.partition_by):
        raise TargetSchemaError(
            f"target {shown(uri)} is partitioned by {have}, but the job asks for "
            f"{list(write.partition_by)}; leave --partition-by out or change the target"
        )


def check_local_path(path: Path) -> None:
    """Refuse a local folder that cannot be, or cannot become, a Delta table.

    Raises:
        TargetUnwritableError: It is no folder, or refuses writes.
        TargetError: It holds files of another kind.
    """
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not existing.is_dir():
        raise TargetUnwritableError(
            f"target {shown(str(path))} cannot be a table: {str(existing)!r} is no folder"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise TargetUnwritableError(
            f"target {shown(str(path))} cannot be written: {str(existing)!r} refuses writes by "
            "this user; change its owner or mode, or take another target"
        )
    log = path / "_delta_log"
    if existing == path and not log.is_dir() and _holds_other_files(path):
        raise TargetError(
            f"target {shown(str(path))} is a folder with files and no Delta table; "
            "name an empty or absent folder"
        )


def _holds_other_files(folder: Path) -> bool:
    """Whether a folder has more in it than what a killed first attempt left behind."""
    found = (path.name for path in folder.rglob("*") if not path.is_dir())
    return not all(SCORE_FILE.fullmatch(name) or LEDGER_FILE.fullmatch(name) for name in found)


def _rows_written(numbers: Mapping[str, str], *, is_merge: bool) -> int | None:
    if is_merge:
        return int(numbers["numTargetRowsInserted"]) + int(numbers["numTargetRowsUpdated"])
    if "numOutputRows" not in numbers:
        return None
    # A file that the predicate cuts through is written anew, and Delta counts its other rows too.
    return int(numbers["numOutputRows"]) - int(numbers.get("numCopiedRows", 0))


def _conflict_text(
    identity: RunIdentity, uri: str, version: int, differing: Mapping[str, tuple[str, str]]
) -> str:
    lines = "".join(
        f"\n  {name}: committed with {shown(before)}, now {shown(now)}"
        for name, (before, now) in differing.items()
    )
    return (
        f"run key {identity.run_key!r} was committed to {shown(uri)} at table version {version} "
        f"with other inputs:{lines}\n"
        "Nothing was written. Give a new --run-key to score again, or name the former inputs "
        "(--source-version, models:/NAME/VERSION) to repeat that run."
    )
