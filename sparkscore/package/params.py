"""Params of a prediction call: what a caller sets, checked against what the signature declares."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Mapping, Sequence

from sparkscore.errors import ConfigError, PackageFormatError, listed, nearest, shown
from sparkscore.package.datatypes import (
    AnyType,
    ArrayType,
    DataType,
    MapType,
    ObjectType,
    ScalarType,
    dump_type,
)
from sparkscore.package.schema import ParamSpec

_BITS = {ScalarType.INTEGER: 31, ScalarType.LONG: 63}
_TRUTHS = {"true": True, "false": False}


class ParamText(str):
    """A param's value that came as text; the type that the model declares says what it means."""

    __slots__ = ()


def given_params(specs: Sequence[ParamSpec], given: Mapping[str, object]) -> dict[str, object]:
    """The values of `given` by name, sorted, each of the type that the signature declares.

    An integer that a double equals fills a double, ISO text a datetime and base64 a binary; nothing
    else is converted. Text of a command line (`ParamText`) is read as the declared type, lists and
    objects as JSON.

    Args:
        specs: What the signature declares.
        given: What a job, a flag or a call sets.

    Raises:
        ConfigError: A name is unknown, or a value is of another type or shape; the first one by
            name is told.
    """
    known = {spec.name: spec for spec in specs}
    for name in sorted(given):
        if name not in known:
            said = f"it has {listed(known)}" if known else "its signature declares none"
            raise ConfigError(
                f"param {shown(name)} is unknown to the model{nearest(name, known)}; {said}"
            )
    return {name: _value(given[name], known[name]) for name in sorted(given)}


def resolved_params(specs: Sequence[ParamSpec], given: Mapping[str, object]) -> dict[str, object]:
    """A value for each param of the signature: the given one, or its default.

    Raises:
        ConfigError: See `given_params`.
        PackageFormatError: A default is not of its param's type.
    """
    defaults = {spec.name: _default(spec) for spec in specs}
    return defaults | given_params(specs, given)


def plain_params(values: Mapping[str, object]) -> dict[str, object]:
    """Values as JSON has them: times in ISO form, bytes in base64."""
    return {name: _plain(value) for name, value in values.items()}


def _default(spec: ParamSpec) -> object:
    """The default as a model is given it: the signature holds times and bytes as text."""
    if spec.default is None:
        return None
    try:
        return _value(spec.default, spec)
    except ConfigError as exc:
        raise PackageFormatError(f"signature params: the default of {exc}") from exc


def _value(value: object, spec: ParamSpec) -> object:
    where = f"param {spec.name!r}"
    if isinstance(value, ParamText):
        value = _read(value, spec)
    if spec.shape is None:
        return _typed(value, spec.type, where)
    if not isinstance(value, list | tuple):
        raise ConfigError(_wrong(where, f"a list of {spec.type}", value))
    return [_typed(item, spec.type, f"{where}[{i}]") for i, item in enumerate(value)]


def _read(text: str, spec: ParamSpec) -> object:
    """What text stands for, or the text itself, which is then refused as a value."""
    if spec.shape is not None or not isinstance(spec.type, ScalarType):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return str(text)
    try:
        if spec.type in _BITS:
            return int(text)
        if spec.type in (ScalarType.FLOAT, ScalarType.DOUBLE):
            return float(text)
    except ValueError:
        return str(text)
    return _TRUTHS.get(text, str(text)) if spec.type is ScalarType.BOOLEAN else str(text)


def _typed(value: object, kind: DataType, where: str) -> object:
    if isinstance(kind, ScalarType):
        return _scalar(value, kind, where)
    if isinstance(kind, ArrayType) and isinstance(value, list | tuple):
        return [_typed(item, kind.items, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(kind, MapType) and isinstance(value, Mapping):
        return {str(k): _typed(v, kind.values, f"{where}.{k}") for k, v in value.items()}
    if isinstance(kind, ObjectType) and isinstance(value, Mapping):
        return _object(value, kind, where)
    if isinstance(kind, AnyType):
        return value
    raise ConfigError(_wrong(where, json.dumps(dump_type(kind)), value))


def _object(value: Mapping[object, object], kind: ObjectType, where: str) -> dict[str, object]:
    parts = {part.name: part for part in kind.properties}
    unknown = [key for key in value if key not in parts]
    missing = [name for name, part in parts.items() if part.required and name not in value]
    if unknown or missing:
        problem = f"has the unknown {listed(unknown)}" if unknown else f"lacks {listed(missing)}"
        raise ConfigError(f"{where} {problem}; the signature declares {listed(parts)}")
    return {str(k): _typed(v, parts[str(k)].type, f"{where}.{k}") for k, v in value.items()}


def _scalar(value: object, kind: ScalarType, where: str) -> object:
    if kind in (ScalarType.BOOLEAN, ScalarType.STRING):
        fits = isinstance(value, bool if kind is ScalarType.BOOLEAN else str)
    elif kind is ScalarType.BINARY:
        value = _bytes(value)
        fits = isinstance(value, bytes)
    elif kind in _BITS:
        fits = type(value) is int and -(2 ** _BITS[kind]) <= value < 2 ** _BITS[kind]
    elif kind is ScalarType.DATETIME:
        value = _time(value)
        fits = isinstance(value, dt.datetime)
    else:
        value = _number(value)
        fits = isinstance(value, float)
    if not fits:
        raise ConfigError(_wrong(where, str(kind), value))
    return value


def _number(value: object) -> object:
    if type(value) is not int:
        return value
    try:
        return float(value) if int(float(value)) == value else value
    except OverflowError:
        return value


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value


def _time(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return dt.datetime.fromisoformat(value)
    except ValueError:
        return value


def _plain(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _wrong(where: str, wanted: str, value: object) -> str:
    return f"{where} is {shown(value)}, but the model's signature declares {wanted}"
