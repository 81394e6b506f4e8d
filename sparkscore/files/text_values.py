"""Texts of CSV and JSON files as values of a column's type, exactly as Spark parses them.

Each type has a grammar: what it describes, Spark and Arrow understand alike. A text outside of it
is refused, whether Spark would take it or not, so that nothing is guessed and nothing becomes null.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

Convert = Callable[[pa.Array], pa.Array]

_SPACE = "".join(map(chr, range(33)))
_INTEGER = r"^[+-]?[0-9]+$"
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DECIMAL = rf"^[+-]?{_NUMBER}$"
_FLOAT = rf"[+-]?{_NUMBER}(?:[eE][+-]?[0-9]+)?|NaN|[+-]?Infinity"
_TIGHT_FLOAT = rf"^(?:{_FLOAT}|-?Inf)$"
_SPACED_FLOAT = rf"^[\x00-\x20]*(?:{_FLOAT})[\x00-\x20]*$|^-?Inf$"
_BOOLEAN = r"^(?i:true|false)$"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DATE = rf"^{_DAY}$"
_LOCAL = rf"^{_DAY}(?:[ T][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?)?$"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-7]):[0-5][0-9]|18:00))"
_INSTANT = rf"^{_DAY}[ T][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\.[0-9]{{1,6}})?{_ZONE}$"


class UnreadableTextError(Exception):
    """A text is outside of its type's grammar or range; wrapped where file and line are known.

    Attributes:
        index: Its place in the column.
        text: The text.
    """

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index
        self.text = text


def is_readable_text(data_type: pa.DataType) -> bool:
    """Whether texts can become values of a type here."""
    return pa.types.is_string(data_type) or _converter(data_type) is not None


def read_texts(texts: pa.StringArray, data_type: pa.DataType) -> pa.Array:
    """Each text as a value of the type; null stays null.

    Args:
        texts: n_rows texts.
        data_type: One of which `is_readable_text` is true. Timestamps without a zone of their own
            are read as UTC.

    Raises:
        UnreadableTextError: The first text that is no such value.
    """
    convert = _converter(data_type)
    if convert is None:
        return texts
    try:
        return convert(texts)
    except (pa.ArrowInvalid, UnreadableTextError):
        index = _first_bad(texts, convert)
        raise UnreadableTextError(index, texts[index].as_py()) from None


def _converter(data_type: pa.DataType) -> Convert | None:
    types = pa.types
    if types.is_signed_integer(data_type):
        return lambda texts: _unsigned(_checked(texts, _INTEGER)).cast(data_type)
    if data_type in (pa.float32(), pa.float64()):
        return lambda texts: _floats(texts, data_type)
    if types.is_decimal128(data_type):
        return lambda texts: _checked(texts, _DECIMAL).cast(data_type)
    if types.is_boolean(data_type):
        return lambda texts: pc.equal(pc.ascii_lower(_checked(texts, _BOOLEAN)), "true")
    if data_type == pa.date32():
        return lambda texts: _checked(texts, _DATE).cast(data_type)
    if types.is_timestamp(data_type) and data_type.tz is not None:
        return lambda texts: _instants(texts, data_type)
    return None


def _floats(texts: pa.StringArray, data_type: pa.DataType) -> pa.Array:
    if not _all_match(texts, _TIGHT_FLOAT):
        texts = pc.utf8_trim(_checked(texts, _SPACED_FLOAT), _SPACE)
    return texts.cast(data_type)


def _instants(texts: pa.StringArray, data_type: pa.TimestampType) -> pa.Array:
    local = pc.match_substring_regex(texts, _LOCAL)
    none = pa.scalar(None, pa.string())
    read_local = pc.if_else(local, texts, none).cast(pa.timestamp(data_type.unit))
    others = _checked(pc.if_else(local, none, texts), _INSTANT)
    return pc.coalesce(read_local.cast(data_type), others.cast(data_type))


def _checked(texts: pa.StringArray, grammar: str) -> pa.StringArray:
    if not _all_match(texts, grammar):
        raise UnreadableTextError(0, "")
    return texts


def _all_match(texts: pa.StringArray, grammar: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, grammar), min_count=0).as_py())


def _unsigned(texts: pa.StringArray) -> pa.StringArray:
    """The texts without a leading plus, which Arrow does not know in integers."""
    return pc.utf8_ltrim(texts, "+")


def _first_bad(texts: pa.StringArray, convert: Convert) -> int:
    """The place of the first text that does not convert; one of them does not."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(texts.slice(low, middle - low))
        except (pa.ArrowInvalid, UnreadableTextError):
            high = middle
        else:
            low = middle
    return low
