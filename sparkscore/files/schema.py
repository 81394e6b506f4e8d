"""Delta's column types in Arrow's and in Spark's words, as Spark itself translates them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from sparkscore.files.reading import is_readable_as
from sparkscore.scoring.facts import SourceColumn

_SCALARS: Mapping[str, tuple[pa.DataType, str]] = {
    "byte": (pa.int8(), "tinyint"),
    "short": (pa.int16(), "smallint"),
    "integer": (pa.int32(), "int"),
    "long": (pa.int64(), "bigint"),
    "float": (pa.float32(), "float"),
    "double": (pa.float64(), "double"),
    "boolean": (pa.bool_(), "boolean"),
    "string": (pa.string(), "string"),
    "binary": (pa.binary(), "binary"),
    "date": (pa.date32(), "date"),
    "timestamp": (pa.timestamp("us", "UTC"), "timestamp"),
    "timestamp_ntz": (pa.timestamp("us"), "timestamp_ntz"),
}
_DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")
_PHYSICAL_NAME = "delta.columnMapping.physicalName"
_FIELD_ID = "delta.columnMapping.id"
_TYPE_CHANGES = "delta.typeChanges"
_CHAR_TYPE = "__CHAR_VARCHAR_TYPE_STRING"
_COLLATIONS = "__COLLATIONS"


@dataclass(frozen=True)
class TableColumn:
    """One column of a Delta table.

    Attributes:
        column: Name and type as a plan knows them.
        physical: Its name in the log, and in the data files too unless they are mapped by id.
        doubt: Why files alone do not tell its values, or None.
        field_id: Its Parquet field id, where the table maps its columns by id.
    """

    column: SourceColumn
    physical: str
    doubt: str | None
    field_id: int | None = None

    @property
    def in_files(self) -> str | int:
        """What finds it in a data file: its field id or else its name."""
        return self.physical if self.field_id is None else self.field_id


def table_columns(schema: str, *, by_id: bool = False) -> tuple[TableColumn, ...]:
    """The columns of a Delta schema, given as the JSON text that the log holds.

    Args:
        schema: The table's `schemaString`.
        by_id: Whether the table maps its columns by Parquet field ids.
    """
    return tuple(_column(field, by_id) for field in json.loads(schema)["fields"])


def arrow_type(delta_type: object) -> pa.DataType | None:
    """The Arrow type that Spark gives a Delta type; None where there is none."""
    if isinstance(delta_type, str):
        return _decimal(delta_type) or _SCALARS.get(delta_type, (None, ""))[0]
    assert isinstance(delta_type, Mapping)
    if delta_type["type"] == "array":
        element = arrow_type(delta_type["elementType"])
        nullable = delta_type["containsNull"]
        return element and pa.list_(pa.field("element", element, nullable=nullable))
    if delta_type["type"] == "map":
        key, value = arrow_type(delta_type["keyType"]), arrow_type(delta_type["valueType"])
        if key is None or value is None:
            return None
        item = pa.field("value", value, nullable=delta_type["valueContainsNull"])
        return pa.map_(pa.field("key", key, nullable=False), item)
    if delta_type["type"] == "struct":
        types = [(field, arrow_type(field["type"])) for field in delta_type["fields"]]
        if any(known is None for _, known in types):
            return None
        return pa.struct(
            [pa.field(field["name"], known, nullable=field["nullable"]) for field, known in types]
        )
    return None


def type_name(delta_type: object) -> str:
    """What Spark calls a Delta type."""
    if isinstance(delta_type, str):
        return _SCALARS.get(delta_type, (None, delta_type.replace(" ", "")))[1]
    assert isinstance(delta_type, Mapping)
    if delta_type["type"] == "array":
        return f"array<{type_name(delta_type['elementType'])}>"
    if delta_type["type"] == "map":
        return f"map<{type_name(delta_type['keyType'])},{type_name(delta_type['valueType'])}>"
    if delta_type["type"] == "struct":
        fields = (f"{field['name']}:{type_name(field['type'])}" for field in delta_type["fields"])
        return f"struct<{','.join(fields)}>"
    return str(delta_type["type"])


def _column(field: Mapping[str, object], by_id: bool) -> TableColumn:
    metadata = field["metadata"]
    assert isinstance(metadata, Mapping)
    name, delta_type = str(field["name"]), field["type"]
    column = SourceColumn(name, arrow_type(delta_type), type_name(delta_type))
    return TableColumn(
        column=column,
        physical=str(metadata.get(_PHYSICAL_NAME, name)),
        doubt=_doubt(metadata, delta_type),
        field_id=int(metadata[_FIELD_ID]) if by_id else None,
    )


def _doubt(metadata: Mapping[str, object], delta_type: object) -> str | None:
    """Why the files alone do not tell what Spark reads."""
    if str(metadata.get(_CHAR_TYPE, "")).startswith("char"):
        return f"is {metadata[_CHAR_TYPE]}, which Spark pads with spaces"
    if _COLLATIONS in metadata:
        return "has a collation"
    if _PHYSICAL_NAME in metadata and has_names_inside(delta_type):
        return "is a struct whose fields have other names in the files"
    for change in _type_changes(metadata, delta_type):
        before, after = str(change["fromType"]), str(change["toType"])
        if not _is_widened_here(before, after):
            return f"was widened from {before} to {after}"
    return None


def _type_changes(metadata: Mapping[str, object], delta_type: object) -> list[Mapping[str, object]]:
    """What the log says of earlier types of a column and of the fields inside it."""
    changes = metadata.get(_TYPE_CHANGES, [])
    assert isinstance(changes, list)
    found = list(changes)
    if isinstance(delta_type, Mapping):
        for field in delta_type.get("fields", []):
            found += _type_changes(field["metadata"], field["type"])
        for key in ("elementType", "keyType", "valueType"):
            found += _type_changes({}, delta_type.get(key))
    return found


def _is_widened_here(before: str, after: str) -> bool:
    """Whether values of files from before a change are read as Spark reads them."""
    have, want = arrow_type(before), arrow_type(after)
    return have is not None and want is not None and is_readable_as(have, want)


def has_names_inside(delta_type: object) -> bool:
    """Whether a type has fields, which may have other names in the files."""
    return "struct" in json.dumps(delta_type)


def _decimal(delta_type: str) -> pa.DataType | None:
    found = _DECIMAL.fullmatch(delta_type)
    return None if found is None else pa.decimal128(int(found[1]), int(found[2]))
