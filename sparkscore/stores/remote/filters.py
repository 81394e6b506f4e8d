"""Searches as the text that servers read; `search_grammar` is the other way round."""

from __future__ import annotations

from sparkscore.errors import UsageError, shown
from sparkscore.search import (
    All,
    Any,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Operator,
    Order,
)

_PREFIXES = {
    FieldKind.PARAM: "params",
    FieldKind.METRIC: "metrics",
    FieldKind.TAG: "tags",
    FieldKind.DATASET: "dataset",
}
_WITHOUT_VALUE = (Operator.IS_NULL, Operator.IS_NOT_NULL)


def filter_text(where: Condition | None, *, is_mlflow: bool = False) -> str:
    """A condition as a filter; None is the empty one.

    Args:
        where: What shall fit.
        is_mlflow: Whether it is for a server of MLflow's, whose filters are joined by AND alone.

    Raises:
        UsageError: It cannot be said to such a server.
    """
    if where is None:
        return ""
    return _joined_by_and(where) if is_mlflow else _text(where)


def order_text(order: Order) -> str:
    """One sort key."""
    return f"{_field(order.field)} {'ASC' if order.ascending else 'DESC'}"


def quoted(text: str) -> str:
    """Text as a filter's value.

    Raises:
        UsageError: Both kinds of quotes are in it, and the grammar has no way to say so.
    """
    for mark in ("'", '"'):
        if mark not in text:
            return f"{mark}{text}{mark}"
    raise UsageError(f"value {shown(text)} holds both ' and \", which no filter can say")


def _text(where: Condition) -> str:
    if isinstance(where, Comparison):
        return _comparison(where)
    if isinstance(where, Not):
        return f"NOT ({_text(where.part)})"
    word = " AND " if isinstance(where, All) else " OR "
    return word.join(f"({_text(part)})" for part in where.parts)


def _joined_by_and(where: Condition) -> str:
    if isinstance(where, Comparison):
        return _comparison(where)
    if isinstance(where, All):
        return " AND ".join(_joined_by_and(part) for part in where.parts)
    if isinstance(where, Any) and len(where.parts) == 1:
        return _joined_by_and(where.parts[0])
    raise UsageError(
        "this server is MLflow's, whose filters know AND alone, and neither OR nor NOT: search for "
        "each part, or run `sparkscore server`"
    )


def _comparison(where: Comparison) -> str:
    left = f"{_field(where.field)} {where.operator}"
    if where.operator in _WITHOUT_VALUE:
        return left
    if isinstance(where.value, tuple):
        return f"{left} ({', '.join(map(_value, where.value))})"
    assert where.value is not None
    return f"{left} {_value(where.value)}"


def _field(field: Field) -> str:
    if field.kind is FieldKind.ATTRIBUTE:
        return field.key
    key = field.key if field.kind is FieldKind.DATASET else f"`{field.key}`"
    return f"{_PREFIXES[field.kind]}.{key}"


def _value(value: str | float) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)
