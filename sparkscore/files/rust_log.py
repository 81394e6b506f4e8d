"""Commits by `deltalake`, which has no Spark under it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from deltalake import DeltaTable, Schema
from deltalake.transaction import (
    AddAction,
    CommitProperties,
    RemoveAction,
    Transaction,
    create_table_with_add_actions,
)

from sparkscore.files.change import TableChange


def create_table(
    folder: str,
    change: TableChange,
    schema: Schema,
    partition_by: Sequence[str],
    storage_options: dict[str, str] | None = None,
) -> None:
    """Commit a change that makes the table in a folder.

    Args:
        folder: Its path, or its URI in a store.
        change: What comes.
        schema: The table's columns.
        partition_by: Those that make folders.
        storage_options: How the store is reached.

    Raises:
        DeltaError: It was not made; another one may be there.
    """
    create_table_with_add_actions(
        folder,
        schema,
        _adds(change),
        partition_by=list(partition_by),
        storage_options=storage_options,
        commit_properties=_properties(change),
    )


def commit(
    table: DeltaTable, change: TableChange, schema: Schema, partition_by: Sequence[str]
) -> None:
    """Commit a change of a table that was opened at the version that it is made for.

    Raises:
        DeltaError: It was not made; another commit may have been faster.
    """
    actions: list[AddAction | RemoveAction] = [*_adds(change), *_removals(change)]
    table.create_write_transaction(
        actions, "append", schema, list(partition_by), commit_properties=_properties(change)
    )


def _properties(change: TableChange) -> CommitProperties:
    """The transaction's id, and what its history shows of it."""
    mode = "Overwrite" if change.is_replace else "Append"
    parameters = {"mode": mode, "partitionBy": "[]"}
    if change.predicate is not None:
        parameters["predicate"] = json.dumps([change.predicate])
    return CommitProperties(
        custom_metadata={
            "userMetadata": change.user_metadata,
            "operationMetrics": {name: str(value) for name, value in change.metrics.items()},
            "operationParameters": parameters,
            "isBlindAppend": not change.is_replace,
        },
        # Each lost race is looked at: the winner may have been this very run.
        max_commit_retries=0,
        app_transactions=[Transaction(change.app_id, change.txn_version, _now_ms())],
    )


def _adds(change: TableChange) -> list[AddAction]:
    return [
        AddAction(
            path=file.path,
            size=file.n_bytes,
            partition_values=file.partition,
            modification_time=file.modified_ms,
            data_change=True,
            stats=file.statistics,
        )
        for file in change.added
    ]


def _removals(change: TableChange) -> list[RemoveAction]:
    return [
        RemoveAction(
            gone.path,
            data_change=True,
            deletion_timestamp=_now_ms(),
            size=gone.n_bytes,
            partition_values=dict(gone.partition),
        )
        for gone in change.removed
    ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
