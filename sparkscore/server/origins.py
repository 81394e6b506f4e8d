"""Who may ask from a browser: a check of Host and Origin before anything else.

A page of a stranger can make a browser send requests to this machine. What it cannot do is to
choose these two headers, so that they tell it apart from a client of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparkscore.server.answers import Headers, send_body
from sparkscore.server.api import header, path_below

_TEXT: Headers = (("content-type", "text/plain; charset=utf-8"),)
_ALWAYS_OPEN = ("/health", "/version")
_READS = ("GET", "HEAD", "OPTIONS")
_METHODS = "GET, POST, PUT, PATCH, DELETE"


class HostAndOriginCheck:
    """Refuses strange hosts, and writes by pages of strange origins, with 403."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = tuple(host.lower() for host in hosts)
        self._origins = tuple(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http" or path_below(scope) in _ALWAYS_OPEN:
            await self._app(scope, receive, send)
            return
        host, origin = header(scope, b"host").lower(), header(scope, b"origin").lower()
        if host and not self._is_known(host):
            await send_body(
                send, 403, _TEXT, b"Invalid Host header - possible DNS rebinding attack detected"
            )
        elif origin in self._origins or ("*" in self._origins and origin):
            await self._across(scope, receive, send, header(scope, b"origin"))
        elif scope["method"] not in _READS and self._is_strange(scope, host, origin):
            await send_body(send, 403, _TEXT, b"Cross-origin request blocked")
        else:
            await self._app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = _without_port(host)
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            # A name can be made to lead here by its owner; an address cannot.
            return True
        return any(fnmatchcase(host, known) or fnmatchcase(name, known) for known in self._hosts)

    def _is_strange(self, scope: Scope, host: str, origin: str) -> bool:
        if origin:
            return urlsplit(origin).netloc != host
        return header(scope, b"sec-fetch-site") == "cross-site"

    async def _across(self, scope: Scope, receive: Receive, send: Send, origin: str) -> None:
        """Answer a page of an origin that is allowed, and tell its browser so."""
        allow = (("access-control-allow-origin", origin), ("vary", "Origin"))
        if scope["method"] == "OPTIONS":
            asked = header(scope, b"access-control-request-headers") or "content-type"
            more = (
                ("access-control-allow-methods", _METHODS),
                ("access-control-allow-headers", asked),
            )
            await send_body(send, 204, (*allow, *more), b"")
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                raw = [(name.encode(), value.encode("latin-1")) for name, value in allow]
                message = {**message, "headers": [*message["headers"], *raw]}
            await send(message)

        await self._app(scope, receive, send_allowed)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
