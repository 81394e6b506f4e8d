"""From text to fields: what a request or an answer says, checked against its shape.

As lenient as MLflow's server is, and no more: `snake_case` or camelCase, whole numbers as decimal
text, enums by name or number, NaN and infinities as text, fields that are not known ignored.
Whatever comes in, the worst that comes out is a UsageError that names the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import parse_qsl

from sparkscore.errors import UsageError, listed, shown
from sparkscore.wire.shapes import Kind, Member, Shape, camel_case

_MAX_SHOWN_CHARS = 200
_MAX_SHOWN_ITEMS = 5
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,4})?")
_INT64 = range(-(2**63), 2**63)
_REALS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
# Half a surrogate pair is no text either: neither a database nor a file system keeps it.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_EXPECTED = {
    Kind.TEXT: "expected text",
    Kind.INT64: "expected a whole number of 64 bits",
    Kind.REAL: "expected a number that a double holds, or 'NaN', 'Infinity' or '-Infinity'",
    Kind.FLAG: "expected true or false",
    Kind.SHAPE: "expected an object",
}
_FLAGS = {"true": True, "false": False}
_MAX_EXACT_FLOAT = 2**53


class Given:
    """Fields that were given, each of the type that its shape says."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """A field of text or of an enum."""
        value = self._values.get(name, default)
        assert isinstance(value, str), name
        return value

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number."""
        value = self._values.get(name, default)
        assert isinstance(value, int), name
        return value

    def whole_or_none(self, name: str) -> int | None:
        """A whole number, or None where it was not given."""
        return self.whole(name) if name in self._values else None

    def real(self, name: str) -> float:
        """A double."""
        value = self._values.get(name, 0.0)
        assert isinstance(value, float), name
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        value = self._values.get(name, default)
        assert isinstance(value, bool), name
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it was not given."""
        values = self._values.get(name, ())
        assert isinstance(values, tuple), name
        return values

    def one(self, name: str) -> Given:
        """An object; one without fields where it was not given."""
        value = self._values.get(name)
        return value if isinstance(value, Given) else Given({})

    def each(self, name: str) -> tuple[Given, ...]:
        """A list of objects; empty where it was not given."""
        values = self._values.get(name, ())
        assert isinstance(values, tuple), name
        return values

    def pairs(self, name: str) -> dict[str, str]:
        """A list of objects with `key` and `value`, as a mapping; a later value wins."""
        return {item.text("key"): item.text("value") for item in self.each(name)}


def read_body(body: bytes) -> Mapping[str, object]:
    """The object that a JSON body holds; an empty body is an empty object.

    An object that was written as JSON twice, as older clients do, is read twice.

    Raises:
        UsageError: It is no JSON object, nested too deep, or a field is there twice.
    """
    found = _parsed(body) if body.strip() else {}
    if isinstance(found, str):
        found = _parsed(found.encode("utf-8", "surrogatepass"))
    if not isinstance(found, dict):
        raise UsageError(f"the body is {_json(found)}, but a JSON object is needed")
    return found


def read_query(query: str, shape: Shape) -> Mapping[str, object]:
    """The fields that a query string holds, a repeated one as a list.

    Raises:
        UsageError: A field that is no list is there twice.
    """
    found: dict[str, object] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=2000)
    except ValueError as exc:
        raise UsageError(f"the query of the URL does not parse: {exc}") from exc
    for key, value in pairs:
        member = shape.by_key.get(key)
        if member is None:
            continue
        if member.repeated:
            held = found.setdefault(key, [])
            assert isinstance(held, list)
            held.append(value)
        elif key in found:
            raise UsageError(f"parameter {key!r} is in the query twice: give it once")
        else:
            found[key] = value
    return found


def read_fields(raw: Mapping[str, object], shape: Shape) -> Given:
    """The fields of an object, checked.

    Raises:
        UsageError: A field is missing, of another type, over a limit, or given in two ways.
    """
    return _read_shape(raw, shape, "")


def _read_shape(raw: Mapping[str, object], shape: Shape, prefix: str) -> Given:
    values: dict[str, object] = {}
    by_key = shape.by_key
    for key, value in raw.items():
        member = by_key.get(key)
        if member is None or value is None:
            continue
        name = member.name
        if name in values:
            _check_once(raw, shape, member, prefix)
            if key != name:  # the older name beside the present one, which counts
                continue
        read = _read_list if member.repeated else _READERS[member.kind]
        values[name] = read(value, member, prefix + name)
    for member in shape.required:
        value = values.get(member.name)
        if value is None or value == () or (value == "" and not member.may_be_empty):
            raise UsageError(f"Missing value for required parameter '{prefix}{member.name}'.")
    return Given(values)


def _check_once(raw: Mapping[str, object], shape: Shape, member: Member, prefix: str) -> None:
    """Refuse one field under two of its names, unless one of these is the older one."""
    keys = [key for key in raw if shape.by_key.get(key) is member]
    if len({camel_case(key) for key in keys}) < len(keys):
        raise UsageError(
            f"parameter '{prefix}{member.name}' is given twice, as {listed(keys)}: give it once"
        )


def _read_list(value: object, member: Member, path: str) -> object:
    if not isinstance(value, list):
        raise _invalid(value, path, "expected a list")
    if member.at_most is not None and len(value) > member.at_most:
        raise UsageError(
            f"A request can contain at most {member.at_most} {path}. Got {len(value)} {path}: "
            "split them over several requests"
        )
    read = _READERS[member.kind]
    return tuple(read(item, member, f"{path}[{place}]") for place, item in enumerate(value))


def _object(value: object, member: Member, path: str) -> Given:
    if not isinstance(value, dict):
        raise _invalid(value, path, _EXPECTED[Kind.SHAPE])
    assert member.shape is not None
    return _read_shape(value, member.shape, f"{path}.")


def _flag(value: object, _: Member, path: str) -> bool:
    # R writes TRUE, and a query can only hold text.
    found = _FLAGS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise _invalid(value, path, _EXPECTED[Kind.FLAG])
    return found


def _text(value: object, _: Member, path: str) -> str:
    if not isinstance(value, str):
        raise _invalid(value, path, _EXPECTED[Kind.TEXT])
    if _UNKEEPABLE.search(value):
        raise _invalid(value, path, "a NUL or half a surrogate pair cannot be kept")
    return value


def _whole(value: object, member: Member, path: str) -> int:
    number = value if type(value) is int else _as_whole(value)
    if number is None or number not in _INT64:
        raise _invalid(value, path, _EXPECTED[Kind.INT64])
    if not member.low <= number <= member.high:
        raise _invalid(value, path, f"expected {member.low} to {member.high}")
    return number


def _as_whole(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _MAX_EXACT_FLOAT else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _real(value: object, _: Member, path: str) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, str) and value in _REALS:
        return _REALS[value]
    number = _as_real(value)
    # What was written as a number and is none, such as 1e999, is refused and not bent.
    if number is None or not math.isfinite(number):
        raise _invalid(value, path, _EXPECTED[Kind.REAL])
    return number


def _as_real(value: object) -> float | None:
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    exact = int(value) if isinstance(value, str) else value
    try:
        number = float(exact)
    except OverflowError:
        return None
    # A whole number that would become another one, such as 2**53 + 1, is refused by name.
    return number if number == exact or isinstance(exact, float) else None


def _name(value: object, member: Member, path: str) -> str:
    if isinstance(value, str) and value in member.numbers:
        return value
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        for name, number in member.numbers.items():
            if number == value:
                return name
    raise _invalid(value, path, f"expected one of {', '.join(member.numbers)}")


_READERS: Mapping[Kind, Callable[[object, Member, str], object]] = {
    Kind.TEXT: _text,
    Kind.INT64: _whole,
    Kind.REAL: _real,
    Kind.FLAG: _flag,
    Kind.ENUM: _name,
    Kind.SHAPE: _object,
}


def _parsed(body: bytes) -> object:
    try:
        found: object = json.loads(
            body.decode("utf-8-sig", "surrogatepass"),
            object_pairs_hook=_once,
            # As the text that the protocol writes, so that 1e999 stays the only infinite number.
            parse_constant=str,
        )
    except RecursionError as exc:
        raise UsageError("the body is nested too deep: send a flat JSON object") from exc
    except ValueError as exc:
        raise UsageError(f"the body is no JSON: {exc}") from exc
    return found


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(_doubled(key for key, _ in pairs))
        raise UsageError(f"the body has the field {shown(twice)} twice: give it once")
    return found


def _doubled(keys: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            yield key
        seen.add(key)


def _invalid(value: object, path: str, expected: str) -> UsageError:
    return UsageError(f"Invalid value {_json(value)} for parameter '{path}' supplied: {expected}")


def _json(value: object) -> str:
    # Cut before it is written: a list of a million items is not turned into text to show its head.
    if isinstance(value, str):
        value = value if len(value) <= _MAX_SHOWN_CHARS else f"{value[:_MAX_SHOWN_CHARS]}…"
    elif isinstance(value, list | dict) and len(value) > _MAX_SHOWN_ITEMS:
        value = f"{type(value).__name__} of {len(value)}"
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (RecursionError, ValueError):
        text = type(value).__name__
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
