"""From the words of a request to the tree of a search."""

from __future__ import annotations

from sparkscore.search import (
    All,
    Any,
    Comparison,
    Condition,
    FieldKind,
    Not,
    Operator,
    Order,
    Query,
    Searchable,
    View,
)
from sparkscore.search_grammar import parse_filter, parse_order_by
from sparkscore.wire.reading import Given

# Clients add `!= 'true'` of this tag to every search of models, and mean those without it too.
_PROMPT_TAG = "mlflow.prompt.is_prompt"


def read_query(
    given: Given, searchable: Searchable, *, default_limit: int, view: str = "view_type"
) -> Query:
    """The search that a request asks for.

    Args:
        given: With `filter`, `order_by`, `max_results` and `page_token`, all of them optional.
        searchable: What is searched.
        default_limit: The size of a page where none was asked for.
        view: The field that says which stages of life are looked at.

    Raises:
        UsageError: The filter or an order does not parse; points at the place.
    """
    return Query(
        where=_where(given, searchable),
        order=parse_order_by(given.texts("order_by"), searchable),
        view=View(given.text(view, View.ACTIVE_ONLY)),
        limit=given.whole("max_results", default_limit),
        token=given.text("page_token") or None,
    )


def read_model_query(given: Given, searchable: Searchable, *, default_limit: int) -> Query:
    """The search of logged models that a request asks for; its orders are objects, not text.

    Raises:
        UsageError: The filter or an order does not parse.
    """
    order: list[Order] = []
    for item in given.each("order_by"):
        (asked,) = parse_order_by((item.text("field_name"),), searchable)
        name = item.text("dataset_name")
        dataset = (name, item.text("dataset_digest")) if name else None
        order.append(Order(asked.field, item.flag("ascending", True), dataset))
    return Query(
        where=_where(given, searchable),
        order=tuple(order),
        view=View(given.text("view_type", View.ACTIVE_ONLY)),
        limit=given.whole("max_results", default_limit),
        token=given.text("page_token") or None,
    )


def _where(given: Given, searchable: Searchable) -> Condition | None:
    where = parse_filter(given.text("filter"), searchable)
    return None if where is None else _without_prompts(where)


def _without_prompts(where: Condition) -> Condition:
    if isinstance(where, All):
        return All(tuple(map(_without_prompts, where.parts)))
    if isinstance(where, Any):
        return Any(tuple(map(_without_prompts, where.parts)))
    if isinstance(where, Not):
        return Not(_without_prompts(where.part))
    is_asked = where.field.kind is FieldKind.TAG and where.field.key == _PROMPT_TAG
    if is_asked and where.operator is Operator.NOT_EQUAL:
        return Not(Comparison(where.field, Operator.EQUAL, where.value))
    return where
