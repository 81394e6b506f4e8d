"""The routes as one ASGI application: read, guard, do in a worker thread, answer.

Nothing that a client sends ends in a trace: an error of ours is told as the protocol has it,
anything else is logged and told as a failure without a word of paths or SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from anyio import to_thread
from starlette.types import Message, Receive, Scope, Send

from sparkscore.errors import InternalError, SparkscoreError, UsageError, shown
from sparkscore.server.answers import send_body, send_fault, send_json
from sparkscore.server.calls import Call, Guard, Outcome, RefusedError, Served, Verb
from sparkscore.server.dispatch import Match, RouteTable
from sparkscore.server.told_places import with_served_places
from sparkscore.wire.reading import read_body, read_fields, read_query
from sparkscore.wire.records_to_json import Json, to_bytes
from sparkscore.wire.routes import Route
from sparkscore.wire.statuses import Fault, fault_of

_LOG = logging.getLogger(__name__)
BytesApp = Callable[[Match, Scope, Receive, Send], Awaitable[None]]
"""Answers a request of a route of bytes."""

_NO_BODY = ("GET", "HEAD")
_JSON = "application/json"
_MAX_DRAINED_BYTES = 1024**3


class Api:
    """All routes: those of JSON are answered here, those of bytes are handed on.

    Args:
        served: What the verbs work with.
        verbs: What each route of JSON does, by the route's name.
        routes: The table.
        bytes_app: Answers the routes of bytes.
        guards: Watch every call.
    """

    def __init__(
        self,
        served: Served,
        verbs: Mapping[str, Verb],
        routes: Iterable[Route],
        bytes_app: BytesApp,
        guards: Sequence[Guard] = (),
    ) -> None:
        self._served = served
        self._verbs = verbs
        self._table = RouteTable(routes)
        self._bytes_app = bytes_app
        self._guards = guards

    def serves(self, path: str) -> bool:
        """Whether a path is of a route, whatever the method."""
        found = self._table.match("GET", path)
        return isinstance(found, Match) or bool(found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        match = self._table.match(scope["method"], path_below(scope))
        if not isinstance(match, Match):
            await _send_no_route(send, match)
            return
        route = match.route
        scope["sparkscore.route"] = route.name
        if route.is_raw:
            await self._bytes_app(match, scope, receive, send)
            return
        body = await body_within(route.max_bytes, receive)
        if body is None:
            await send_fault(send, _too_large(route))
            return
        answered = await to_thread.run_sync(self._answered, match, scope, body)
        if isinstance(answered, bytes):
            await send_json(send, answered)
        elif isinstance(answered, RefusedError):
            await send_fault(send, answered.fault, answered.headers)
        else:
            await send_fault(send, answered)

    def _answered(self, match: Match, scope: Scope, body: bytes) -> Told:
        def do() -> bytes:
            call = read_call(match, scope, body)
            with watched(call, self._guards):
                answer = self._verbs[call.route.name](self._served, call.given)
                answer = with_served_places(self._served, answer)
            return done(call, self._guards, answer)

        return told(do, match.route)


@contextmanager
def watched(call: Call, guards: Sequence[Guard]) -> Iterator[None]:
    """Ask all guards before the block, and tell them if it fails.

    Raises:
        RefusedError: One of them refuses the call.
    """
    try:
        for guard in guards:
            guard.before(call)
        yield
    except Exception as exc:
        fault = exc.fault if isinstance(exc, RefusedError) else _fault_of(exc)
        for guard in guards:
            guard.after(call, Outcome(fault.status, fault=fault))
        raise


def done(call: Call, guards: Sequence[Guard], answer: Json) -> bytes:
    """The bytes of an answer, once all guards were told of it."""
    for guard in guards:
        answer = guard.after(call, Outcome(HTTPStatus.OK, answer)) or answer
    return to_bytes(answer)


Told = bytes | Fault | RefusedError


def told(do: Callable[[], bytes], route: Route) -> Told:
    """What is answered: the outcome of `do`, or the fault that an error of it stands for."""
    try:
        return do()
    except RefusedError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - the outer edge: a client is told only that it failed
        return told_fault(exc, route.name)


def told_fault(exc: Exception, what: str) -> Fault:
    """What a client is told of an error; what is the operator's to mend is logged besides."""
    fault = _fault_of(exc)
    if fault.code == "INTERNAL_ERROR":
        _LOG.error("%s failed", what, exc_info=exc)
    elif fault.code == "TEMPORARILY_UNAVAILABLE":
        _LOG.warning("%s: %s", what, exc)
    return fault


def _fault_of(exc: Exception) -> Fault:
    return fault_of(exc if isinstance(exc, SparkscoreError) else InternalError(str(exc)))


def read_call(match: Match, scope: Scope, body: bytes) -> Call:
    """The call that a request asks for.

    Raises:
        UsageError: A field is missing or wrong, or the body is no JSON.
    """
    route, method = match.route, scope["method"]
    raw: Mapping[str, object]
    query = scope["query_string"].decode("latin-1")
    if method in _NO_BODY or route.is_raw:
        raw = read_query(query, route.request)
        # Some clients send what they ask for as a body, even with GET.
        if not raw and body.strip() and not route.is_raw:
            raw = read_body(body)
    else:
        if body.strip() or method != "DELETE":
            _check_content_type(scope)
        raw = read_body(body)
    return Call(route, read_fields({**raw, **match.in_path}, route.request), scope)


def path_below(scope: Scope) -> str:
    """The path of a request, below what the application is mounted at."""
    path, root = scope["path"], scope.get("root_path", "")
    assert isinstance(path, str)
    return path.removeprefix(root) if root else path


async def body_within(max_bytes: int, receive: Receive) -> bytes | None:
    """The body of a request, or None where it is larger; no more than that is ever held.

    A larger one is read to its end all the same: a client that is still sending when the connection
    closes sees a broken pipe, and no answer.
    """
    chunks: list[bytes] = []
    n_bytes = 0
    while n_bytes <= _MAX_DRAINED_BYTES:
        message: Message = await receive()
        chunk = message.get("body", b"")
        n_bytes += len(chunk)
        if n_bytes <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    return b"".join(chunks) if n_bytes <= max_bytes else None


def header(scope: Scope, name: bytes) -> str:
    """A header of a request, or an empty text."""
    for key, value in scope["headers"]:
        if key == name:
            assert isinstance(value, bytes)
            return value.decode("latin-1")
    return ""


def _check_content_type(scope: Scope) -> None:
    found = header(scope, b"content-type")
    if not found:
        raise UsageError(f"Bad Request. Content-Type header is missing: send {_JSON}")
    if found.partition(";")[0].strip().lower() != _JSON:
        raise UsageError(
            f"Bad Request. Content-Type must be one of ['{_JSON}'], not {shown(found)}"
        )


def _too_large(route: Route) -> Fault:
    return Fault(
        "REQUEST_TOO_LARGE",
        f"the body is larger than {route.max_bytes} bytes, which is the most that "
        f"{route.path} takes: send it in parts",
    )


async def _send_no_route(send: Send, allowed: frozenset[str]) -> None:
    if not allowed:
        await send_fault(send, Fault("ENDPOINT_NOT_FOUND", "there is nothing at this path"))
        return
    methods = ", ".join(sorted(allowed))
    body = to_bytes({"error_code": "BAD_REQUEST", "message": f"this path takes {methods}"})
    headers = (("content-type", _JSON), ("allow", methods))
    await send_body(send, 405, headers, body)
