"""Pages of a metric's history: where one ends, as a token that the next one begins with."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence

from sparkscore.errors import UsageError, shown
from sparkscore.records import Metric
from sparkscore.search import Page
from sparkscore.stores.rules import PointKey, check_int64, point_key


def check_limit(limit: int) -> None:
    """Refuse a page without points.

    Raises:
        UsageError: The limit is not positive.
    """
    if limit < 1:
        raise UsageError(f"a page of metric points has the limit {limit}: give 1 or more")


def page_of(points: Sequence[Metric], run_id: str, key: str, limit: int) -> Page[Metric]:
    """The first `limit` of these points, which are in order; there is a token if more are left."""
    items = tuple(points[:limit])
    return Page(items, _token(run_id, key, items[-1]) if len(points) > limit else None)


def last_seen(token: str | None, run_id: str, key: str) -> PointKey | None:
    """The point that the page before ended with; None without a token.

    Raises:
        UsageError: The token is of another history, or of none.
    """
    if token is None:
        return None
    try:
        raw = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        history, step, timestamp_ms, is_number, value, name, digest = raw
        last: PointKey = (
            int(step),
            int(timestamp_ms),
            bool(is_number),
            float.fromhex(value),
            str(name),
            str(digest),
        )
        check_int64(last[0], "step")
        check_int64(last[1], "timestamp")
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise _foreign(token, key) from exc
    if history != _history(run_id, key):
        raise _foreign(token, key)
    return last


def _token(run_id: str, key: str, last: Metric) -> str:
    step, timestamp_ms, is_number, value, name, digest = point_key(last)
    parts = [_history(run_id, key), step, timestamp_ms, is_number, value.hex(), name, digest]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode("ascii")


def _history(run_id: str, key: str) -> str:
    return hashlib.sha256(f"{run_id}\n{key}".encode()).hexdigest()[:16]


def _foreign(token: str, key: str) -> UsageError:
    return UsageError(
        f"page token {shown(token)} is none of the history of metric {key!r} of this run: "
        "give the one that came with the page before, or none for the first page"
    )
