"""The data types that a signature can name, their JSON form and their Arrow twins.

The JSON is MLflow's (`mlflow.types.schema`): `"long"`, `{"type": "array", "items": ...}`,
`{"type": "object", "properties": {...}}`, `{"type": "map", "values": ...}`, `{"type": "any"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sparkscore.errors import PackageFormatError, SignatureMismatchError, nearest, shown

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_DEPTH = 32
_INTEGER_BITS = 32
_LONG_BITS = 64
_VECTOR = "sparkml_vector"
"""A vector of Spark ML, which is a list of doubles everywhere else."""
_NESTED = ("array", "object", "map", "any", _VECTOR)


class ScalarType(StrEnum):
    """A type of single values; integer is 32 bits wide, long 64, float 32, double 64."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    STRING = "string"
    BINARY = "binary"
    DATETIME = "datetime"


@dataclass(frozen=True)
class ArrayType:
    """A list of any length; its items may be null."""

    items: DataType


@dataclass(frozen=True)
class Property:
    """One named part of an object."""

    name: str
    type: DataType
    required: bool = True


@dataclass(frozen=True)
class ObjectType:
    """A struct with named parts, in their order of declaration."""

    properties: tuple[Property, ...]


@dataclass(frozen=True)
class MapType:
    """A map from strings to values of one type."""

    values: DataType


@dataclass(frozen=True)
class AnyType:
    """Anything at all: an input takes a column of whatever type, and an output cannot be it."""


DataType = ScalarType | ArrayType | ObjectType | MapType | AnyType


def parse_type(raw: object, where: str, depth: int = 0) -> DataType:
    """The data type that parsed JSON describes.

    Args:
        raw: A type's name, or the object around `"type"`.
        where: Position for the message, such as `signature inputs[2]`.
        depth: How many types lie around this one.

    Raises:
        PackageFormatError: Unknown, incomplete or nested more than 32 deep.
    """
    if depth > _MAX_DEPTH:
        raise PackageFormatError(f"{where}: types are nested more than {_MAX_DEPTH} deep")
    node: Mapping[object, object] = raw if isinstance(raw, Mapping) else {"type": raw}
    name = node.get("type")
    if name == "array":
        return ArrayType(parse_type(_part(node, "items", where), f"{where}.items", depth + 1))
    if name == "map":
        return MapType(parse_type(_part(node, "values", where), f"{where}.values", depth + 1))
    if name == "object":
        return ObjectType(_properties(_part(node, "properties", where), where, depth + 1))
    if name == "any":
        return AnyType()
    if name == _VECTOR:
        return ArrayType(ScalarType.DOUBLE)
    if isinstance(name, str) and name in tuple(ScalarType):
        return ScalarType(name)
    known = [*map(str, ScalarType), *_NESTED]
    hint = nearest(name, known) if isinstance(name, str) else ""
    raise PackageFormatError(
        f"{where}: {shown(name)} is no data type{hint}; known are {', '.join(known)}"
    )


def dump_type(kind: DataType) -> dict[str, object]:
    """What `parse_type` reads, as MLflow writes it."""
    if isinstance(kind, ArrayType):
        return {"type": "array", "items": dump_type(kind.items)}
    if isinstance(kind, MapType):
        return {"type": "map", "values": dump_type(kind.values)}
    if isinstance(kind, AnyType):
        return {"type": "any"}
    if isinstance(kind, ObjectType):
        parts = {p.name: {**dump_type(p.type), "required": p.required} for p in kind.properties}
        return {"type": "object", "properties": parts}
    return {"type": str(kind)}


def type_text(kind: DataType) -> str:
    """A type in one line, for people: `double`, `array<string>`, `{a: double, b?: long}`."""
    if isinstance(kind, ArrayType):
        return f"array<{type_text(kind.items)}>"
    if isinstance(kind, MapType):
        return f"map<string, {type_text(kind.values)}>"
    if isinstance(kind, ObjectType):
        fields = (
            f"{field.name}{'' if field.required else '?'}: {type_text(field.type)}"
            for field in kind.properties
        )
        return f"{{{', '.join(fields)}}}"
    return "any" if isinstance(kind, AnyType) else kind.value


def arrow_type(kind: DataType, *, takes_any: bool = False) -> pa.DataType:
    """The Arrow type of a column of this type; datetime is microseconds without a zone.

    Args:
        kind: The type.
        takes_any: Whether `any` is Arrow's null, for whoever puts the source's type in its place.

    Raises:
        SignatureMismatchError: The type is or holds `any`, and that is not taken.
    """
    import pyarrow as pa

    if isinstance(kind, ScalarType):
        return {
            ScalarType.BOOLEAN: pa.bool_(),
            ScalarType.INTEGER: pa.int32(),
            ScalarType.LONG: pa.int64(),
            ScalarType.FLOAT: pa.float32(),
            ScalarType.DOUBLE: pa.float64(),
            ScalarType.STRING: pa.string(),
            ScalarType.BINARY: pa.binary(),
            ScalarType.DATETIME: pa.timestamp("us"),
        }[kind]
    if isinstance(kind, ArrayType):
        return pa.list_(arrow_type(kind.items, takes_any=takes_any))
    if isinstance(kind, MapType):
        return pa.map_(pa.string(), arrow_type(kind.values, takes_any=takes_any))
    if isinstance(kind, ObjectType):
        return pa.struct(
            [
                pa.field(p.name, arrow_type(p.type, takes_any=takes_any), not p.required)
                for p in kind.properties
            ]
        )
    if takes_any:
        return pa.null()
    raise SignatureMismatchError(
        "the signature declares the type 'any', which is no type of a column that is written; save "
        "the model again with a signature that names the type"
    )


def holds_any(kind: DataType) -> bool:
    """Whether a type is `any`, or one of its parts is."""
    if isinstance(kind, ArrayType):
        return holds_any(kind.items)
    if isinstance(kind, MapType):
        return holds_any(kind.values)
    if isinstance(kind, ObjectType):
        return any(holds_any(part.type) for part in kind.properties)
    return isinstance(kind, AnyType)


def type_from_arrow(kind: pa.DataType, where: str) -> DataType:
    """The narrowest signature type that keeps every value of an Arrow type.

    Raises:
        SignatureMismatchError: There is none, as for decimals and 64-bit unsigned integers.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return ArrayType(type_from_arrow(kind.value_type, where))
    if types.is_struct(kind):
        fields = (kind.field(i) for i in range(kind.num_fields))
        return ObjectType(
            tuple(
                Property(f.name, type_from_arrow(f.type, f"{where}.{f.name}"), not f.nullable)
                for f in fields
            )
        )
    if types.is_map(kind) and types.is_string(kind.key_type):
        return MapType(type_from_arrow(kind.item_type, where))
    if types.is_dictionary(kind):
        return type_from_arrow(kind.value_type, where)
    return _scalar_from_arrow(kind, where)


def _scalar_from_arrow(kind: pa.DataType, where: str) -> ScalarType:
    import pyarrow as pa

    types = pa.types
    tests = (
        (types.is_boolean, ScalarType.BOOLEAN),
        (lambda t: types.is_integer(t) and _bits(t) <= _INTEGER_BITS, ScalarType.INTEGER),
        (lambda t: types.is_integer(t) and _bits(t) <= _LONG_BITS, ScalarType.LONG),
        (lambda t: types.is_float16(t) or types.is_float32(t), ScalarType.FLOAT),
        (types.is_float64, ScalarType.DOUBLE),
        (lambda t: types.is_string(t) or types.is_large_string(t), ScalarType.STRING),
        (lambda t: types.is_binary(t) or types.is_large_binary(t), ScalarType.BINARY),
        (lambda t: types.is_timestamp(t) or types.is_date(t), ScalarType.DATETIME),
    )
    for fits, scalar in tests:
        if fits(kind):
            return scalar
    hint = "declare it as double or string" if types.is_decimal(kind) else "cast it"
    raise SignatureMismatchError(
        f"{where} has the type {kind}, which no signature type keeps exactly; {hint} "
        "before the model is fitted, or pass a signature of your own"
    )


def _bits(kind: pa.DataType) -> int:
    """Bits that a signed integer needs for every value of an integer type."""
    import pyarrow as pa

    width: int = kind.bit_width
    return width + 1 if pa.types.is_unsigned_integer(kind) else width


def _part(node: Mapping[object, object], key: str, where: str) -> object:
    if key not in node:
        raise PackageFormatError(f"{where}: a type {shown(node.get('type'))} needs {key!r}")
    return node[key]


def _properties(raw: object, where: str, depth: int) -> tuple[Property, ...]:
    if not isinstance(raw, Mapping) or not raw:
        raise PackageFormatError(f"{where}: properties must be an object with one entry a part")
    return tuple(
        Property(
            str(name),
            parse_type(node, f"{where}.{name}", depth),
            is_required(node, f"{where}.{name}"),
        )
        for name, node in raw.items()
    )


def is_required(node: object, where: str) -> bool:
    """Whether a spec asks for a value; MLflow up to 2.9 wrote `optional` instead of `required`.

    Raises:
        PackageFormatError: The flag is no boolean.
    """
    if not isinstance(node, Mapping):
        return True
    key = "required" if "required" in node else "optional"
    flag = node.get(key, key == "required")
    if not isinstance(flag, bool):
        raise PackageFormatError(f"{where}: {key!r} must be true or false, not {shown(flag)}")
    return flag if key == "required" else not flag
