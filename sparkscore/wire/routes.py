"""The table of routes: what can be asked, how, and what is answered.

The server binds each route to a function by its name, the remote stores ask by it, and the
OpenAPI document is written from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sparkscore.wire.shapes import Shape

_API, _AJAX = "/api", "/ajax-api"


class Base(StrEnum):
    """What a route's path stands below; those of `/api` are served below `/ajax-api` as well."""

    MLFLOW = "/api/2.0/mlflow"
    ARTIFACTS = "/api/2.0/mlflow-artifacts"
    SERVER = "/api/3.0/mlflow"
    OWN = "/api/2.0/sparkscore"
    ROOT = ""


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        name: What the route does, unique; the operation's id in the OpenAPI document.
        method: The HTTP method.
        path: Below the base; `{name}` stands for one segment that is a field of the request.
        request: The fields of the body, or of the query where the method is GET.
        answer: The fields of a 200.
        base: What the path stands below.
        also: Further methods that some client uses for the same.
        only_ajax: Served below `/ajax-api` alone, since it is for pages.
        is_raw: The body, or the answer, is a file's bytes and no JSON.
        max_bytes: The largest JSON body.
    """

    name: str
    method: str
    path: str
    request: Shape
    answer: Shape
    base: Base = Base.MLFLOW
    also: tuple[str, ...] = ()
    only_ajax: bool = False
    is_raw: bool = False
    max_bytes: int = 4 * 1024 * 1024

    @property
    def url_path(self) -> str:
        """The path from the root of the server."""
        whole = f"{self.base}{self.path}"
        return _AJAX + whole.removeprefix(_API) if self.only_ajax else whole

    @property
    def url_paths(self) -> tuple[str, ...]:
        """All paths from the root of the server that lead to it."""
        whole = self.url_path
        if self.only_ajax or not whole.startswith(_API):
            return (whole,)
        return whole, _AJAX + whole.removeprefix(_API)

    @property
    def is_write(self) -> bool:
        """Whether it changes what is kept."""
        reads = ("get", "search", "list", "find")
        return not self.name.startswith(reads)


def all_routes() -> Mapping[str, Route]:
    """Every route by its name."""
    from sparkscore.wire import (
        routes_artifacts,
        routes_models,
        routes_own,
        routes_runs,
        routes_webhooks,
    )

    tables = (
        routes_runs.EXPERIMENTS,
        routes_runs.RUNS,
        routes_artifacts.ARTIFACTS,
        routes_artifacts.FILES,
        routes_artifacts.SERVER,
        routes_models.LOGGED_MODELS,
        routes_models.REGISTERED_MODELS,
        routes_models.VERSIONS,
        routes_own.PURGES,
        routes_webhooks.WEBHOOKS,
    )
    return {route.name: route for table in tables for route in table}
