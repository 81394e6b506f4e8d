"""Reading the part of Spark's SQL that `predicate` can answer; anything else is not understood."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sparkscore.errors import EngineUnfitError, shown
from sparkscore.files.predicate import AllOf, AnyOf, Compare, Constant, IsNull, Not, Predicate
from sparkscore.scoring.facts import SourceColumn

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+(?:\.\d+)?)(?![\w.])
      | '(?P<text>[^'\\]*)'(?!')
      | `(?P<quoted>[^`]+)`(?![`.])
      | (?P<word>[A-Za-z_]\w*)(?![\w.(])
      | (?P<sign><=>|<=|>=|<>|!=|==|[=<>(),-])
    )""",
    re.VERBOSE,
)
_RESERVED = frozenset({"AND", "BETWEEN", "FALSE", "IN", "IS", "NOT", "NULL", "OR", "TRUE"})
_SIGNS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?)(Z|[+-]\d{2}:\d{2})?"
)
_MAX_OFFSET = dt.timedelta(hours=18)
_MAX_DIGITS = 38
_VARIABLE = "${"
"""What Spark replaces by a setting's value, inside of texts too."""
_MAX_DEPTH = 50
_INT64 = 2**63


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True)
class _Literal:
    """A literal with the kind its SQL says: number, text, date, timestamp or boolean."""

    kind: str
    text: str


def parse_predicate(sql: str, columns: Sequence[SourceColumn], timezone: str = "UTC") -> Predicate:
    """The predicate that `sql` is, exactly as Spark would understand it.

    Args:
        sql: A filter, as in WHERE.
        columns: The columns of the table; as in Spark, case does not tell them apart.
        timezone: The session's, which says what a timestamp without a zone means.

    Raises:
        EngineUnfitError: It is no SQL, or more of it than is understood here.
    """
    return _Parser(sql, columns, timezone).parse()


class _Parser:
    def __init__(self, sql: str, columns: Sequence[SourceColumn], timezone: str) -> None:
        self._sql = sql
        self._tokens = self._split(sql)
        self._position = 0
        self._depth = 0
        self._columns = columns
        self._timezone = timezone

    def parse(self) -> Predicate:
        predicate = self._any_of()
        if self._position < len(self._tokens):
            raise self._unfit(self._tokens[self._position].text)
        return predicate

    def _split(self, sql: str) -> list[_Token]:
        if _VARIABLE in sql:
            raise self._unfit(_VARIABLE)
        tokens, position = [], 0
        while position < len(sql.rstrip()):
            match = _TOKEN.match(sql, position)
            if match is None:
                raise self._unfit(sql[position:].strip())
            assert match.lastgroup is not None
            kind, text = match.lastgroup, match[match.lastgroup]
            if kind == "word" and text.upper() in _RESERVED:
                kind, text = "keyword", text.upper()
            tokens.append(_Token(kind, text))
            position = match.end()
        return tokens

    def _any_of(self) -> Predicate:
        return self._joined("OR", self._all_of, AnyOf)

    def _all_of(self) -> Predicate:
        return self._joined("AND", self._negated, AllOf)

    def _joined(
        self,
        word: str,
        part: Callable[[], Predicate],
        join: Callable[[tuple[Predicate, ...]], Predicate],
    ) -> Predicate:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else join(tuple(parts))

    def _negated(self) -> Predicate:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._unfit("its depth")
        try:
            if self._take("NOT"):
                return Not(self._negated())
            if self._take("("):
                inner = self._any_of()
                self._expect(")")
                return inner
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Predicate:
        column = self._column()
        if column is None:
            return self._literal_first()
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return Not(IsNull(column.name)) if negated else IsNull(column.name)
        negated = self._take("NOT")
        if self._take("IN"):
            return _maybe_not(self._one_of(column), negated=negated)
        if self._take("BETWEEN"):
            low = self._comparison(column, ">=", self._literal())
            self._expect("AND")
            between = AllOf((low, self._comparison(column, "<=", self._literal())))
            return _maybe_not(between, negated=negated)
        if negated:
            raise self._unfit("NOT")
        sign = self._sign()
        if sign is not None:
            return self._comparison(column, sign, self._literal())
        if column.type == pa.bool_():
            return Compare(column.name, "=", True)
        raise self._unfit(column.name)

    def _literal_first(self) -> Predicate:
        """`5 < x`, `1 = 0`, or TRUE and FALSE alone."""
        literal = self._literal()
        sign = self._sign()
        if sign is None and literal.kind == "boolean":
            return Constant(literal.text == "TRUE")
        if sign is None:
            raise self._unfit(literal.text)
        column = self._column()
        if column is not None:
            return self._comparison(column, _FLIPPED[sign], literal)
        other = self._literal()
        if not all(one.kind == "number" and "." not in one.text for one in (literal, other)):
            raise self._unfit(literal.text)
        left, right = int(literal.text), int(other.text)
        return Constant(
            {
                "=": left == right,
                "!=": left != right,
                "<": left < right,
                "<=": left <= right,
                ">": left > right,
                ">=": left >= right,
            }[sign]
        )

    def _one_of(self, column: SourceColumn) -> Predicate:
        self._expect("(")
        equal = [self._comparison(column, "=", self._literal())]
        while self._take(","):
            equal.append(self._comparison(column, "=", self._literal()))
        self._expect(")")
        return AnyOf(tuple(equal)) if len(equal) > 1 else equal[0]

    def _comparison(self, column: SourceColumn, sign: str, literal: _Literal) -> Predicate:
        return Compare(column.name, sign, self._value(column, literal))

    def _value(self, column: SourceColumn, literal: _Literal) -> object:
        """The literal as a value of the column's type, where Spark would compare as that."""
        data_type, kind, text = column.type, literal.kind, literal.text
        value: object = None
        if data_type is None:
            pass
        elif pa.types.is_integer(data_type) and kind == "number" and "." not in text:
            value = int(text) if -_INT64 <= int(text) < _INT64 else None
        elif pa.types.is_float64(data_type) and kind == "number":
            value = float(text)
        elif pa.types.is_string(data_type) and kind == "text":
            value = text
        elif pa.types.is_boolean(data_type) and kind == "boolean":
            value = text == "TRUE"
        elif pa.types.is_date(data_type) and kind in ("text", "date"):
            value = _date(text)
        elif data_type == pa.timestamp("us", "UTC") and kind in ("text", "timestamp"):
            value = _timestamp(text, self._timezone)
        if value is None:
            raise self._unfit(f"{column.type_name} {column.name} against {text}")
        return value

    def _literal(self) -> _Literal:
        minus = "-" if self._take("-") else ""
        token = self._next()
        if token.kind == "number" and len(token.text) <= _MAX_DIGITS:
            return _Literal("number", minus + token.text)
        if minus:
            raise self._unfit("-")
        if token.kind == "text":
            return _Literal("text", token.text)
        if token.kind == "keyword" and token.text in ("TRUE", "FALSE"):
            return _Literal("boolean", token.text)
        if token.kind == "word" and token.text.upper() in ("DATE", "TIMESTAMP"):
            text = self._next()
            if text.kind == "text":
                return _Literal(token.text.lower(), text.text)
        raise self._unfit(token.text)

    def _column(self) -> SourceColumn | None:
        """The column that the next token names; None where it names none."""
        if self._position >= len(self._tokens):
            raise self._unfit("its end")
        token = self._tokens[self._position]
        if token.kind not in ("word", "quoted"):
            return None
        following = self._tokens[self._position + 1 : self._position + 2]
        if token.kind == "word" and following and following[0].kind == "text":
            return None  # DATE '2013-10-01'
        named = [c for c in self._columns if c.name.casefold() == token.text.casefold()]
        if len(named) != 1:
            raise self._unfit(token.text)
        self._position += 1
        return named[0]

    def _sign(self) -> str | None:
        if self._position < len(self._tokens):
            token = self._tokens[self._position]
            if token.kind == "sign" and token.text in _SIGNS:
                self._position += 1
                return _SIGNS[token.text]
        return None

    def _take(self, text: str) -> bool:
        if self._position < len(self._tokens):
            token = self._tokens[self._position]
            if token.kind in ("keyword", "sign") and token.text == text:
                self._position += 1
                return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._unfit(f"what is not {text}")

    def _next(self) -> _Token:
        if self._position >= len(self._tokens):
            raise self._unfit("its end")
        self._position += 1
        return self._tokens[self._position - 1]

    def _unfit(self, what: str) -> EngineUnfitError:
        return EngineUnfitError(f"the filter {shown(self._sql)} is more than it reads, at {what!r}")


def _maybe_not(predicate: Predicate, *, negated: bool) -> Predicate:
    return Not(predicate) if negated else predicate


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def _timestamp(text: str, timezone: str) -> dt.datetime | None:
    match = _TIMESTAMP.fullmatch(text)
    if match is None or (match[2] is None and timezone not in ("UTC", "Etc/UTC", "Z")):
        return None
    head, _, fraction = match[1].partition(".")
    micros = fraction.ljust(6, "0")
    zone = "+00:00" if match[2] in (None, "Z") else match[2]
    try:
        value = dt.datetime.fromisoformat(f"{head.replace('T', ' ')}.{micros}{zone}")
    except ValueError:
        return None
    offset = value.utcoffset()
    assert offset is not None
    return value if abs(offset) <= _MAX_OFFSET else None
