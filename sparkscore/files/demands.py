"""What a score table asks of its writers, and whether that is done here."""

from __future__ import annotations

import json

import pyarrow as pa
from deltalake import DeltaTable

from sparkscore.errors import EngineUnfitError, listed
from sparkscore.files.schema import has_names_inside, table_columns
from sparkscore.scoring.plan import WriteMode
from sparkscore.scoring.table_write import TableWrite

WRITABLE = frozenset(
    {"appendOnly", "changeDataFeed", "deletionVectors", "invariants", "timestampNtz"}
)
"""Table features whose demands on a writer are met here; what of them is used is checked too."""
_DEMANDING = ("delta.", "CURRENT_", "__CHAR_VARCHAR", "__COLLATIONS")
_MAPPING = "delta.columnMapping."
"""Beginnings of what a column's metadata may ask of a writer; and of what the layout answers."""
_ODD_CHARACTERS = frozenset(" ,;{}()\n\t=")


def check_new_table(schema: pa.Schema) -> None:
    """Refuse a new table that would need a feature.

    Raises:
        EngineUnfitError: A column's name or type is such.
    """
    odd = [name for name in schema.names if _ODD_CHARACTERS.intersection(name)]
    if odd:
        raise EngineUnfitError(
            f"the new target's columns {listed(odd)} need names of their own in the files"
        )
    naive = [f.name for f in schema if "timestamp[us]" in str(f.type)]
    if naive:
        raise EngineUnfitError(f"the new target's columns {listed(naive)} have no time zone")


def features_of(table: DeltaTable) -> frozenset[str]:
    """What a table asks of its writers; mapped columns too, which older ones have unnamed."""
    named = set(table.protocol().writer_features or ())
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        named.add("columnMapping")
    return frozenset(named)


def mapped_columns(table: DeltaTable) -> dict[str, tuple[str, int]]:
    """Name and Parquet field id in the files of each column; empty where they are not mapped."""
    if "columnMapping" not in features_of(table):
        return {}
    columns = table_columns(table.schema().to_json(), by_id=True)
    return {c.column.name: (c.physical, c.field_id) for c in columns if c.field_id is not None}


def check_demands(table: DeltaTable, write: TableWrite) -> None:
    """Refuse what the table's properties and columns ask of its writers, and is not done here.

    Raises:
        EngineUnfitError: They do; what they ask is named.
    """
    configuration = table.metadata().configuration
    constraints = [name for name in configuration if name.startswith("delta.constraints.")]
    if constraints:
        raise EngineUnfitError(f"the target has constraints: {listed(constraints)}")
    is_append_only = configuration.get("delta.appendOnly", "false") == "true"
    if is_append_only and write.mode is not WriteMode.APPEND:
        raise EngineUnfitError("the target admits nothing but appends")
    mapped = mapped_columns(table)
    for column in json.loads(table.schema().to_json())["fields"]:
        demands = [
            key
            for key in column["metadata"]
            if key.startswith(_DEMANDING) and not key.startswith(_MAPPING)
        ]
        if demands:
            raise EngineUnfitError(f"the target's column {column['name']!r} has {listed(demands)}")
        if not column["nullable"] and column["name"] not in write.keys:
            raise EngineUnfitError(f"the target's column {column['name']!r} is NOT NULL")
        if mapped and has_names_inside(column["type"]):
            raise EngineUnfitError(
                f"the target's column {column['name']!r} has fields with other names in the files"
            )
