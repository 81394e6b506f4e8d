"""Reading what a replace predicate says of the rows that may be written.

Delta accepts only rows that satisfy the predicate. Where it pins a column to a literal
(`score_date = '2013-10-01'`), the score table can have that column although the source lacks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparkscore.errors import ConfigError, shown

_EQUALITY = re.compile(
    r"""\s*(?:`(?P<quoted>[^`]+)`|(?P<plain>[A-Za-z_]\w*))\s*=\s*
        (?:(?P<date>DATE\s*)?'(?P<text>(?:[^'\\]|'')*)'|(?P<number>-?\d+))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_AND = re.compile(r"AND\b", re.IGNORECASE)


@dataclass(frozen=True)
class PinnedValue:
    """A column that the predicate sets equal to a literal; `type` is the literal's SQL type."""

    column: str
    value: str
    type: str


def pinned_values(predicate: str) -> tuple[PinnedValue, ...]:
    """The columns that `predicate` pins, where it is `column = literal [AND ...]`.

    Literals are `'text'` (string), `DATE '2013-10-01'` (date) and whole numbers (int, or bigint
    where it does not fit). Any other predicate pins nothing.

    Raises:
        ConfigError: One column is pinned twice; case does not tell columns apart.
    """
    values: list[PinnedValue] = []
    position = 0
    while match := _EQUALITY.match(predicate, position):
        values.append(_pinned(match))
        joint = _AND.match(predicate, match.end())
        if joint is None:
            break
        position = joint.end()
    if match is None or match.end() != len(predicate):
        return ()
    names = [value.column.casefold() for value in values]
    if len(set(names)) < len(names):
        raise ConfigError(f"predicate {shown(predicate)} sets one column twice")
    return tuple(values)


def _pinned(match: re.Match[str]) -> PinnedValue:
    column = match["quoted"] or match["plain"]
    if match["number"] is not None:
        fits = -(2**31) <= int(match["number"]) < 2**31
        return PinnedValue(column, match["number"], "int" if fits else "bigint")
    text = match["text"].replace("''", "'")
    return PinnedValue(column, text, "date" if match["date"] else "string")
