"""The whole server as one ASGI application: the routes, the pages, and what stands before them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as PageRoute
from starlette.types import ASGIApp, Receive, Scope, Send

import sparkscore
from sparkscore.errors import SparkscoreError
from sparkscore.server import (
    multipart,
    verbs_artifacts,
    verbs_experiments,
    verbs_logged_models,
    verbs_metrics,
    verbs_models,
    verbs_own,
    verbs_registration,
    verbs_runs,
    verbs_webhooks,
)
from sparkscore.server.api import Api, path_below
from sparkscore.server.artifact_bytes import ByteRoutes
from sparkscore.server.calls import Guard, Served, Verb
from sparkscore.server.counters import RequestCounters
from sparkscore.server.files_only import FilesOnly
from sparkscore.server.lifespan import WithLifespan
from sparkscore.server.multipart import MultipartLinks
from sparkscore.server.origins import HostAndOriginCheck
from sparkscore.server.pages import STYLE, Pages
from sparkscore.server.settings import PROTOCOL_VERSION
from sparkscore.server.webhook_events import WebhookEvents
from sparkscore.wire.openapi import openapi
from sparkscore.wire.routes import all_routes
from sparkscore.wire.statuses import fault_of

Middleware = Callable[[ASGIApp], ASGIApp]
"""Puts an application before another one."""

_PAGE_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def all_verbs() -> Mapping[str, Verb]:
    """What each route of JSON does, by the route's name."""
    rooms = (
        verbs_experiments,
        verbs_runs,
        verbs_metrics,
        verbs_artifacts,
        multipart,
        verbs_logged_models,
        verbs_models,
        verbs_registration,
        verbs_own,
        verbs_webhooks,
    )
    return {name: verb for room in rooms for name, verb in room.VERBS.items()}


def tracking_app(
    served: Served, guards: Sequence[Guard] = (), middleware: Sequence[Middleware] = ()
) -> ASGIApp:
    """The application.

    Args:
        served: Stores and settings.
        guards: Watch every call of a route, in this order.
        middleware: Stands before routes and pages, behind the check of hosts; the first is the
            outermost.
    """
    settings = served.settings
    routes = all_routes()
    if settings.artifacts_only:
        guards = (FilesOnly(), *guards)
    guards = (*guards, WebhookEvents(served.webhooks), MultipartLinks(settings.static_prefix))
    api = Api(served, all_verbs(), routes.values(), ByteRoutes(served, guards), guards)
    app: ASGIApp = _Trunk(api, _pages_app(served), settings.static_prefix)
    for put_before in reversed(middleware):
        app = put_before(app)
    if settings.expose_metrics:
        app = _with_metrics(RequestCounters(app), settings.static_prefix)
    app = HostAndOriginCheck(app, settings.allowed_hosts, settings.allowed_origins)
    return WithLifespan(app, served.webhooks.start, served.webhooks.close)


class _Trunk:
    """Sends a request to the routes or to the pages."""

    def __init__(self, api: Api, pages: ASGIApp, prefix: str) -> None:
        self._api = api
        self._pages = pages
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        path = path_below(scope)
        # Health is asked by who knows the process and not the prefix.
        if self._prefix and path not in ("/health", "/version"):
            if path != self._prefix and not path.startswith(f"{self._prefix}/"):
                await PlainTextResponse("Not Found", 404)(scope, receive, send)
                return
            path = path.removeprefix(self._prefix) or "/"
            scope["path"], scope["root_path"] = path, ""
        is_api = path.startswith(("/api/", "/ajax-api/")) or self._api.serves(path)
        await (self._api if is_api else self._pages)(scope, receive, send)


def _pages_app(served: Served) -> Starlette:
    settings = served.settings
    pages = Pages(served, settings.static_prefix)
    headers = {**_PAGE_HEADERS, "content-security-policy": _policy(pages.forward)}
    document = openapi(sparkscore.__version__, settings.static_prefix)

    def page(make: Callable[[Request], str]) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            try:
                html = await run_in_threadpool(make, request)
                status = 200
            except SparkscoreError as exc:
                html, status = pages.fault(exc), fault_of(exc).status
            return HTMLResponse(html, status, headers)

        return answer

    def token(request: Request) -> str:
        return request.query_params.get("page_token", "")

    async def health(_: Request) -> Response:
        return PlainTextResponse("OK")

    async def version(_: Request) -> Response:
        return PlainTextResponse(PROTOCOL_VERSION)

    async def document_answer(_: Request) -> Response:
        return JSONResponse(document)

    async def style(_: Request) -> Response:
        return Response(STYLE, media_type="text/css", headers={"cache-control": "max-age=3600"})

    def of_experiment(request: Request) -> str:
        return pages.experiment(request.path_params["experiment_id"], token(request))

    about_files = [
        PageRoute("/health", health),
        PageRoute("/version", version),
        PageRoute("/openapi.json", document_answer),
        PageRoute("/style.css", style),
        PageRoute("/docs", page(lambda _: pages.docs(all_routes().values()))),
    ]
    about_records = [
        PageRoute("/", page(lambda request: pages.home(token(request)))),
        PageRoute("/experiments/{experiment_id}", page(of_experiment)),
        PageRoute("/runs/{run_id}", page(lambda r: pages.run(r.path_params["run_id"]))),
        PageRoute("/models/{name}", page(lambda r: pages.model(r.path_params["name"]))),
    ]
    return Starlette(routes=about_files + ([] if settings.artifacts_only else about_records))


def _policy(script: str) -> str:
    """What a browser may do with a page: take our style, and run this very script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'self'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _with_metrics(counters: RequestCounters, prefix: str) -> ASGIApp:
    paths = {"/metrics", f"{prefix}/metrics"}

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_below(scope) in paths and scope["method"] == "GET":
            text = PlainTextResponse(counters.text(), media_type="text/plain; version=0.0.4")
            await text(scope, receive, send)
            return
        await counters(scope, receive, send)

    return answer
