"""One transaction on a score table: files that come and go, and what its history tells of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from sparkscore.files.writing import WrittenFile


class LostRaceError(Exception):
    """Another commit was faster; nothing was committed."""


@dataclass(frozen=True)
class RemovedFile:
    """A file that gives way.

    Attributes:
        path: Below the table's folder.
        logged: The same as the log has it, encoded; only this takes it away.
        partition: Its partition values as Delta writes them.
    """

    path: str
    logged: str
    n_bytes: int
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class TableChange:
    """What one commit does.

    Attributes:
        version: The table's version that it was made for.
        app_id: The transaction's application id.
        txn_version: Its version under this id.
        user_metadata: What the commit says of the run.
        predicate: Which rows give way; None: not said.
        metrics: What DESCRIBE HISTORY shows of it.
    """

    version: int
    app_id: str
    txn_version: int
    user_metadata: str
    added: tuple[WrittenFile, ...] = ()
    removed: tuple[RemovedFile, ...] = ()
    predicate: str | None = None
    is_replace: bool = False
    metrics: Mapping[str, int] = field(default_factory=dict)

    def actions(self) -> Iterator[dict[str, object]]:
        """The lines of the log, but for its own commitInfo, by Delta's protocol."""
        now_ms = time.time_ns() // 1_000_000
        yield {"txn": {"appId": self.app_id, "version": self.txn_version, "lastUpdated": now_ms}}
        for file in self.added:
            yield {
                "add": {
                    "path": quote(file.path, safe="/="),
                    "partitionValues": dict(file.partition),
                    "size": file.n_bytes,
                    "modificationTime": file.modified_ms,
                    "dataChange": True,
                    "stats": file.statistics,
                }
            }
        for gone in self.removed:
            yield {
                "remove": {
                    "path": gone.logged,
                    "deletionTimestamp": now_ms,
                    "dataChange": True,
                    "extendedFileMetadata": True,
                    "partitionValues": dict(gone.partition),
                    "size": gone.n_bytes,
                }
            }


class LogWriter(Protocol):
    """What commits to tables that `deltalake` may not write."""

    @property
    def features(self) -> frozenset[str]:
        """Table features whose demands on a writer are met, by it or by the files it is given."""
        ...

    def refuse_unfit(self) -> None:
        """Refuse, before any row is scored, an environment in which it cannot work.

        Raises:
            EngineUnfitError: It is such a one.
        """
        ...

    def commit(self, folder: str, change: TableChange) -> None:
        """Commit a change of the table in a folder.

        Raises:
            LostRaceError: Another commit was faster, and this one was not made.
            TargetError: The table refuses it.
        """
        ...
