"""The rows that one commit brought into a score table, read back from the table's own log."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import OutletError, SourceError, shown
from sparkscore.files.copying import file_rows
from sparkscore.files.facts import DataFile
from sparkscore.files.filesystem import TablePath
from sparkscore.files.log import delta_table, file_path
from sparkscore.files.schema import TableColumn, table_columns


def committed_rows(root: TablePath, version: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of one run's commit, with these columns, a part at a time.

    A merge writes rows again that share a file with those that it changes: rows are told from
    them by the run and the time that they name.

    Args:
        root: The table's folder.
        version: The commit's, which the log still has.
        schema: Columns of the score table.

    Raises:
        OutletError: A file of the commit was removed since, or the log no longer has it.
        StoreUnavailableError: The store does not answer.
    """
    try:
        facts, added = _commit(root, version)
        columns = _columns(root, version) if added else ()
        for file in (_data_file(root, each, columns) for each in added):
            for rows in file_rows(file, root, columns, frozenset(schema.names)):
                yield rows.filter(_is_of_run(rows, facts)).select(schema.names)
    except (FileNotFoundError, SourceError) as exc:
        raise OutletError(
            f"the rows of version {version} of {shown(str(root))} cannot be read back to be "
            f"published: {exc}. They are in the table, if it was only optimized or vacuumed since: "
            "publish them from there by hand, then go on without --publish for one batch"
        ) from exc


def _commit(root: TablePath, version: int) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """What the commit says of its run, and the files that it added."""
    facts: Mapping[str, Any] = {}
    added = []
    with (root / "_delta_log" / f"{version:020}.json").open(encoding="utf-8") as lines:
        for action in map(json.loads, lines):
            if "add" in action:
                added.append(action["add"])
            elif "commitInfo" in action:
                facts = json.loads(action["commitInfo"]["userMetadata"])
    return facts, added


def _columns(root: TablePath, version: int) -> tuple[TableColumn, ...]:
    table = delta_table(root, version)
    mode = table.metadata().configuration.get("delta.columnMapping.mode")
    return table_columns(table.schema().to_json(), by_id=mode == "id")


def _data_file(
    root: TablePath, added: Mapping[str, Any], columns: tuple[TableColumn, ...]
) -> DataFile:
    values = added["partitionValues"]
    partition = {
        column.column.name: _parsed(values[column.physical], column.column.type)
        for column in columns
        if column.physical in values
    }
    return DataFile(file_path(root, added["path"]), added["size"], partition=partition)


def _parsed(text: str | None, kind: pa.DataType) -> object:
    """A partition's value; the log has it as text."""
    return pa.scalar(text or None, pa.string()).cast(kind).as_py()


def _is_of_run(rows: pa.RecordBatch, facts: Mapping[str, Any]) -> pa.Array:
    scored_at = dt.datetime.fromisoformat(facts["scored_at"])
    at_that_time = pc.equal(rows["scored_at"], pa.scalar(scored_at, rows["scored_at"].type))
    return pc.and_(at_that_time, pc.equal(rows["run_id"], facts["run_id"]))
