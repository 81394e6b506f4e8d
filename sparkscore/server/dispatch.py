"""From a path to a route: a look-up, and for paths with parts of their own a few patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparkscore.wire.routes import Route

_PARAMETER = re.compile(r"{(\w+)(:path)?}")


@dataclass(frozen=True)
class Match:
    """A route that a path leads to, and the parts of the path that are fields of the request."""

    route: Route
    in_path: Mapping[str, object]


class RouteTable:
    """All routes, by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._plain: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        for route in routes:
            for path in route.url_paths:
                for method in (route.method, *route.also):
                    self._methods(path)[method] = route

    def match(self, method: str, path: str) -> Match | frozenset[str]:
        """The route, or else the methods that the path has: none for a path that leads nowhere."""
        plain = self._plain.get(path)
        if plain is not None:
            route = plain.get(method)
            return frozenset(plain) if route is None else Match(route, {})
        allowed: set[str] = set()
        for pattern, by_method in self._patterns:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if method in by_method:
                return Match(by_method[method], found.groupdict())
            allowed.update(by_method)
        return frozenset(allowed)

    def _methods(self, path: str) -> dict[str, Route]:
        if "{" not in path:
            return self._plain.setdefault(path, {})
        pattern = _pattern(path)
        for known, by_method in self._patterns:
            if known.pattern == pattern.pattern:
                return by_method
        self._patterns.append((pattern, {}))
        return self._patterns[-1][1]


def _pattern(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for found in _PARAMETER.finditer(path):
        parts.append(re.escape(path[at : found.start()]))
        parts.append(f"(?P<{found[1]}>{'.*' if found[2] else '[^/]+'})")
        at = found.end()
    return re.compile("".join(parts) + re.escape(path[at:]), re.DOTALL)
