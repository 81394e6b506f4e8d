"""What a search of a client finds, and how it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from sparkscore.errors import UsageError, listed
from sparkscore.search import Page, Query, Searchable, View
from sparkscore.search_grammar import parse_filter, parse_order_by

Item = TypeVar("Item")


class Found(list[Item], Generic[Item]):
    """One page of a search; `token` asks for the next one, and is None on the last."""

    def __init__(self, items: Iterable[Item], token: str | None) -> None:
        super().__init__(items)
        self.token = token

    @classmethod
    def of(cls, page: Page[Item]) -> Found[Item]:
        """A store's page."""
        return cls(page.items, page.next_token)


def query_of(
    searchable: Searchable,
    filter_string: str | None,
    order_by: Sequence[str] | None,
    max_results: int,
    page_token: str | None = None,
    view: str = View.ACTIVE_ONLY,
) -> Query:
    """A search as a store takes it.

    Raises:
        UsageError: The filter, an order or the view does not parse; points at the place.
    """
    try:
        looked_at = View(view)
    except ValueError as exc:
        raise UsageError(f"view {view!r} is none of {listed(map(str, View))}") from exc
    return Query(
        where=parse_filter(filter_string or "", searchable),
        order=parse_order_by(tuple(order_by or ()), searchable),
        view=looked_at,
        limit=max_results,
        token=page_token,
    )
