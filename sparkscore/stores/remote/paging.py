"""Pages of a server's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sparkscore.errors import UsageError
from sparkscore.search import Page, Query
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json

_Item = TypeVar("_Item")


def all_items(search: Callable[[Query], Page[_Item]], query: Query) -> list[_Item]:
    """What a search finds, up to the query's limit, over as many pages as it takes."""
    page = search(query)
    found = list(page.items)
    while page.next_token is not None and len(found) < query.limit:
        page = search(replace(query, limit=query.limit - len(found), token=page.next_token))
        found += page.items
    return found[: query.limit]


def page_fields(limit: int, token: str | None, max_results: int) -> Json:
    """How a page is asked for; the server says which tokens it knows.

    Raises:
        UsageError: The token is empty, which the protocol takes for none.
    """
    if token == "":
        raise UsageError(
            "page token '' is none of this search: give the one that came with the page before, "
            "or none for the first page"
        )
    return {"max_results": min(limit, max_results), "page_token": token}


def next_token(answer: Given) -> str | None:
    """The token of the page behind an answer's; an empty one means that there is none."""
    return answer.text("next_page_token") or None
