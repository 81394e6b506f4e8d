"""From the text of a filter or an order to the tree that stores read.

The grammar is MLflow's (keys with prefixes, comparisons joined by AND), and ours on top of it: OR,
NOT, parentheses, BETWEEN, and IN for every field. An error points at the character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sparkscore.errors import UsageError, listed, nearest, shown
from sparkscore.search import (
    All,
    Any,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Operand,
    Operator,
    Order,
    Searchable,
    ValueType,
)

if TYPE_CHECKING:
    from lark import Lark
    from lark.lexer import Token

_MAX_CHARS = 100_000
_MAX_COMPARISONS = 200
# All of them become parameters of one statement, and databases take some ten thousands.
_MAX_VALUES = 10_000
_MAX_DEPTH = 50
_MAX_PATTERN_CHARS = 5000
_N_SHOWN_AROUND = 60
_INT64 = range(-(2**63), 2**63)

_GRAMMAR = r"""
?filter: either
?either: both (_OR both)*
?both: unary (_AND unary)*
?unary: _NOT unary -> negated
      | "(" either ")"
      | FIELD (OPERATOR | LIKE | ILIKE) _value -> compared
      | FIELD _IN "(" _value ("," _value)* ")" -> is_in
      | FIELD _NOT _IN "(" _value ("," _value)* ")" -> is_not_in
      | FIELD _BETWEEN _value _AND _value -> between
      | FIELD _IS _NULL -> is_null
      | FIELD _IS _NOT _NULL -> is_not_null
_value: STRING | NUMBER
order: FIELD (ASC | DESC)?

_OR: /or\b/i
_AND: /and\b/i
_NOT.2: /not\b/i
_IN: /in\b/i
_BETWEEN: /between\b/i
_IS: /is\b/i
_NULL: /null\b/i
LIKE: /like\b/i
ILIKE: /ilike\b/i
ASC: /asc\b/i
DESC: /desc\b/i
OPERATOR: ">=" | "<=" | "!=" | "=" | ">" | "<"
STRING: /'[^']*'/ | /"[^"]*"/
NUMBER: /[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|inf(inity)?)(?![\w.])/i
FIELD: /([A-Za-z]+\.)?(`[^`]*`|"[^"]*"|[\w][\w.\/:\-]*)/
%ignore /\s+/
"""

_WORDS = {
    "_OR": "OR",
    "_AND": "AND",
    "_NOT": "NOT",
    "_IN": "IN",
    "_BETWEEN": "BETWEEN",
    "_IS": "IS",
    "_NULL": "NULL",
    "LIKE": "LIKE",
    "ILIKE": "ILIKE",
    "ASC": "ASC",
    "DESC": "DESC",
    "OPERATOR": "a comparison such as = or >=",
    "STRING": "a text in quotes",
    "NUMBER": "a number",
    "FIELD": "a key such as metrics.rmse",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end",
}

_PREFIXES = {
    "attribute": FieldKind.ATTRIBUTE,
    "attributes": FieldKind.ATTRIBUTE,
    "attr": FieldKind.ATTRIBUTE,
    "run": FieldKind.ATTRIBUTE,
    "param": FieldKind.PARAM,
    "params": FieldKind.PARAM,
    "parameter": FieldKind.PARAM,
    "parameters": FieldKind.PARAM,
    "metric": FieldKind.METRIC,
    "metrics": FieldKind.METRIC,
    "tag": FieldKind.TAG,
    "tags": FieldKind.TAG,
    "dataset": FieldKind.DATASET,
    "datasets": FieldKind.DATASET,
}
_DATASET_KEYS = ("name", "digest", "context")
_ORDERED = (
    Operator.LESS,
    Operator.LESS_EQUAL,
    Operator.GREATER,
    Operator.GREATER_EQUAL,
)
_PATTERNS = (Operator.LIKE, Operator.ILIKE)
_EQUALITIES = (Operator.EQUAL, Operator.NOT_EQUAL)


def parse_filter(text: str, searchable: Searchable) -> Condition | None:
    """What a filter asks for; None: it is empty, and everything fits.

    Args:
        text: Such as `metrics.rmse < 1 AND (params.depth IN ('3', '4') OR NOT tags.team = 'x')`.
        searchable: The records that are searched.

    Raises:
        UsageError: It does not parse, names a field that there is not, or compares it with what it
            is not; the message points at the place.
    """
    asked = _Asked(text, is_filter=True)
    _check_text(asked, searchable)
    if not text.strip():
        return None
    return _Reader(asked, searchable).condition(_parsed(asked))


def parse_order_by(texts: Sequence[str], searchable: Searchable) -> tuple[Order, ...]:
    """The sort keys that texts such as `metrics.rmse DESC` name.

    Raises:
        UsageError: One does not parse or names a field that there is not, or two are the same.
    """
    orders: list[Order] = []
    for text in texts:
        asked = _Asked(text, is_filter=False)
        _check_text(asked, searchable)
        order = _Reader(asked, searchable).order(_parsed(asked))
        if any(order.field == other.field for other in orders):
            raise UsageError(f"order_by contains duplicate fields: {shown(text)} is given twice")
        orders.append(order)
    return tuple(orders)


@dataclass(frozen=True)
class _Asked:
    """A text and what it is, which its errors name."""

    text: str
    is_filter: bool

    @property
    def noun(self) -> str:
        return "filter" if self.is_filter else "order_by"

    def refusal(self, place: int, reason: str) -> UsageError:
        """The error that shows the text around a place, and points at it."""
        text, start, end = self.text, max(0, place - _N_SHOWN_AROUND), place + _N_SHOWN_AROUND
        around = "".join(c if c.isprintable() else " " for c in text[start:end])
        before, after = "…" if start else "", "…" if end < len(text) else ""
        pointer = " " * (len(before) + place - start) + "^"
        what = "clause(s) in filter string" if self.is_filter else "order_by clause"
        return UsageError(f"Invalid {what}: {reason}\n  {before}{around}{after}\n  {pointer}")


def _check_text(asked: _Asked, searchable: Searchable) -> None:
    text = asked.text
    if len(text) > _MAX_CHARS:
        raise UsageError(
            f"the {asked.noun} of {searchable.noun} has {len(text)} characters; at most "
            f"{_MAX_CHARS} are read"
        )
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(
            f"the {asked.noun} {shown(text)} holds a NUL or half a surrogate pair, which no record "
            "has"
        )


@dataclass(frozen=True)
class _Node:
    """A rule of the grammar and what it was found in; `depth` counts what nests below it."""

    rule: str
    parts: tuple[_Node, ...]
    tokens: tuple[Token, ...]
    depth: int
    n_comparisons: int
    n_values: int


class _Reader:
    """Gives the nodes of one text their meaning."""

    def __init__(self, asked: _Asked, searchable: Searchable) -> None:
        self._asked = asked
        self._searchable = searchable

    def condition(self, node: _Node) -> Condition:
        """The condition that a node says; nodes nest no deeper than is safe."""
        if node.rule == "either":
            return Any(tuple(map(self.condition, node.parts)))
        if node.rule == "both":
            return All(tuple(map(self.condition, node.parts)))
        if node.rule == "negated":
            return Not(self.condition(node.parts[0]))
        return self._comparison(node.rule, *node.tokens)

    def order(self, node: _Node) -> Order:
        """The sort key that a node says."""
        field, *direction = node.tokens
        found = self._field(field)
        if found.kind is FieldKind.DATASET:
            raise self._wrong(field, "records are not ordered by their datasets")
        return Order(found, ascending=not direction or direction[0].type == "ASC")

    def _comparison(self, rule: str, key: Token, *tokens: Token) -> Condition:
        field = self._field(key)
        if rule in ("is_null", "is_not_null"):
            operator = Operator.IS_NULL if rule == "is_null" else Operator.IS_NOT_NULL
            return Comparison(field, operator, None)
        if rule == "between":
            low, high = (self._value(field, token) for token in tokens)
            self._check_operator(field, Operator.GREATER_EQUAL, tokens[0])
            return All(
                (
                    Comparison(field, Operator.GREATER_EQUAL, low),
                    Comparison(field, Operator.LESS_EQUAL, high),
                )
            )
        if rule in ("is_in", "is_not_in"):
            values: Operand = tuple(self._value(field, token) for token in tokens)  # type: ignore[assignment]  # all of one type
            return Comparison(field, Operator.IN if rule == "is_in" else Operator.NOT_IN, values)
        sign, value = tokens
        operator = Operator(sign.upper())
        self._check_operator(field, operator, sign)
        if operator in _PATTERNS and len(value) > _MAX_PATTERN_CHARS:
            raise self._wrong(value, f"a pattern has at most {_MAX_PATTERN_CHARS} characters")
        return Comparison(field, operator, self._value(field, value))

    def _field(self, token: Token) -> Field:
        prefix, dot, rest = token.partition(".")
        if dot and prefix.isalpha():
            kind = _PREFIXES.get(prefix.casefold())
            if kind is not None:
                return self._prefixed(token, kind, _unquoted(rest))
            known = sorted({"attributes", *(f"{kind}s" for kind in self._searchable.kinds)})
            raise self._wrong(
                token,
                f"Invalid entity type {prefix!r}{nearest(prefix, _PREFIXES)}. Valid values are "
                f"{listed(known)}",
            )
        return self._attribute(token, _unquoted(token))

    def _prefixed(self, token: Token, kind: FieldKind, key: str) -> Field:
        if kind is FieldKind.ATTRIBUTE:
            return self._attribute(token, key)
        if kind not in self._searchable.kinds:
            raise self._wrong(token, f"{self._searchable.noun} have no {kind}s")
        if kind is FieldKind.DATASET and key not in _DATASET_KEYS:
            raise self._wrong(
                token,
                f"Invalid dataset attribute {shown(key)}{nearest(key, _DATASET_KEYS)}. The valid "
                f"ones are {listed(_DATASET_KEYS)}",
            )
        if not key:
            raise self._wrong(token, f"the key of a {kind} is empty")
        return Field(kind, key)

    def _attribute(self, token: Token, key: str) -> Field:
        key = self._searchable.aliases.get(key, key)
        if key in self._searchable.attributes:
            return Field(FieldKind.ATTRIBUTE, key)
        raise self._wrong(
            token,
            f"Invalid attribute key {shown(key)}{nearest(key, self._searchable.attributes)}. The "
            f"valid ones of {self._searchable.noun} are "
            f"{', '.join(sorted(self._searchable.attributes))}"
            + (
                "; others need a prefix such as metrics. or tags." if self._searchable.kinds else ""
            ),
        )

    def _is_number(self, field: Field) -> bool:
        if field.kind is FieldKind.ATTRIBUTE:
            return self._searchable.attributes[field.key] is ValueType.NUMBER
        return field.kind is FieldKind.METRIC

    def _check_operator(self, field: Field, operator: Operator, place: Token) -> None:
        is_number = self._is_number(field)
        allowed = (*_EQUALITIES, *(_ORDERED if is_number else _PATTERNS))
        if operator not in allowed:
            what = "numbers are" if is_number else "texts are"
            raise self._wrong(
                place,
                f"{field.kind} {field.key!r} is compared by {operator}, but {what} compared by "
                f"{', '.join(allowed)}, IN and NOT IN" + (" and BETWEEN" if is_number else ""),
            )

    def _value(self, field: Field, token: Token) -> str | int | float:
        if token.type == "STRING":
            if self._is_number(field):
                raise self._wrong(
                    token,
                    f"Expected numeric value type for {field.kind} {field.key!r}. Found "
                    f"{shown(str(token))}; leave the quotes out",
                )
            return str(token[1:-1])
        if not self._is_number(field):
            raise self._wrong(
                token,
                f"Expected a quoted string value for {field.kind} {field.key!r} (e.g. 'my-value'). "
                f"Got value {shown(str(token))}; put it in quotes",
            )
        if field.kind is FieldKind.ATTRIBUTE and token.lstrip("+-").isdigit():
            # `int` takes no text of any length, and a `float` of so many digits is infinite.
            number = int(token[:400])
            return number if number in _INT64 else float(token)
        return float(token)

    def _wrong(self, token: Token, reason: str) -> UsageError:
        assert token.start_pos is not None
        return self._asked.refusal(token.start_pos, reason)


def _parsed(asked: _Asked) -> _Node:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    text, start = asked.text, "filter" if asked.is_filter else "order"
    try:
        node = _parser().parse(text, start=start)
    except UnexpectedCharacters as exc:
        place: int = exc.pos_in_stream  # type: ignore[assignment]  # None only in its base class
        # What it says itself is of all places like this one: with "," where no list was begun.
        so_far = _parser().parse_interactive(text[:place], start=start)
        so_far.exhaust_lexer()
        accepted: set[str] = so_far.accepts()  # type: ignore[no-untyped-call]  # so its package says
        raise asked.refusal(place, _expected_text(accepted)) from exc
    except UnexpectedToken as exc:
        at_end = exc.token.type == "$END"
        place = len(text.rstrip()) if at_end else exc.token.start_pos or 0
        raise asked.refusal(place, _expected_text(exc.accepts or exc.expected)) from exc
    assert isinstance(node, _Node)
    if node.n_comparisons > _MAX_COMPARISONS:
        reason = f"it has {node.n_comparisons} comparisons; at most {_MAX_COMPARISONS} are read"
        raise asked.refusal(0, reason)
    if node.n_values > _MAX_VALUES:
        reason = f"it has {node.n_values} values; at most {_MAX_VALUES} are read"
        raise asked.refusal(0, reason)
    if node.depth > _MAX_DEPTH:
        reason = f"it nests {node.depth} deep; at most {_MAX_DEPTH} are read"
        raise asked.refusal(0, reason)
    return node


@cache
def _parser() -> Lark:
    # Loaded by the first search: the command line starts without it.
    from lark import Lark, Transformer

    def build(rule: str) -> Callable[[Transformer[Token, _Node], list[_Node | Token]], _Node]:
        def node(_: Transformer[Token, _Node], found: list[_Node | Token]) -> _Node:
            parts = tuple(item for item in found if isinstance(item, _Node))
            tokens = tuple(item for item in found if not isinstance(item, _Node))
            return _Node(
                rule,
                parts,
                tokens,
                depth=1 + max((part.depth for part in parts), default=0),
                n_comparisons=sum(part.n_comparisons for part in parts) or 1,
                n_values=sum(part.n_values for part in parts)
                + sum(token.type in ("STRING", "NUMBER") for token in tokens),
            )

        return node

    rules = ("either", "both", "negated", "compared", "is_in", "is_not_in", "between", "is_null")
    nodes = {rule: build(rule) for rule in (*rules, "is_not_null", "order")}
    # The nodes are made while the text is read: no recursion, however deep it nests.
    builder = type("_Builder", (Transformer,), nodes)()
    return Lark(_GRAMMAR, parser="lalr", start=["filter", "order"], transformer=builder)


def _unquoted(key: str) -> str:
    return key[1:-1] if key[:1] in ("`", '"') else str(key)


def _expected_text(names: Iterable[str]) -> str:
    words = sorted({_WORDS[name] for name in names if name in _WORDS})
    return f"expected {' or '.join(words)}" if words else "this is not understood"
