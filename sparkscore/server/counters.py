"""How much is done and how long it takes, in Prometheus' text format.

Each worker process counts its own share, and says which it is.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_OTHER = "page"


class RequestCounters:
    """Counts the requests that pass through it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        start = time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._active += 1
        try:
            await self._app(scope, receive, watch)
        finally:
            self._active -= 1
            self._count(scope, status, time.perf_counter() - start)

    def text(self) -> str:
        """All counts, as Prometheus reads them."""
        worker = f'worker="{os.getpid()}"'
        lines = ["# TYPE sparkscore_requests_total counter"]
        lines += [
            f'sparkscore_requests_total{{{worker},route="{route}",method="{method}",'
            f'status="{status}"}} {count}'
            for (route, method, status), count in sorted(self._requests.items())
        ]
        lines.append("# TYPE sparkscore_request_seconds histogram")
        for route in sorted(self._seconds):
            lines += self._histogram(route, f'{worker},route="{route}"')
        lines.append("# TYPE sparkscore_requests_active gauge")
        lines.append(f"sparkscore_requests_active{{{worker}}} {self._active}")
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str, labels: str) -> list[str]:
        lines: list[str] = []
        total = 0
        for bound in (*_BUCKETS_S, float("inf")):
            total += self._buckets[route, bound]
            shown = "+Inf" if bound == float("inf") else str(bound)
            lines.append(f'sparkscore_request_seconds_bucket{{{labels},le="{shown}"}} {total}')
        lines.append(f"sparkscore_request_seconds_sum{{{labels}}} {self._seconds[route]:.6f}")
        lines.append(f"sparkscore_request_seconds_count{{{labels}}} {total}")
        return lines

    def _count(self, scope: Scope, status: int, elapsed_s: float) -> None:
        # The name of a route, never the path: a client must not be able to make new lines.
        route = scope.get("sparkscore.route", _OTHER)
        self._requests[route, _method(scope), status] += 1
        bound = next((b for b in _BUCKETS_S if elapsed_s <= b), float("inf"))
        self._buckets[route, bound] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + elapsed_s


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"
