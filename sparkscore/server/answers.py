"""Answers as ASGI sends them, each with the headers that keep a browser from running anything."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Send

from sparkscore.wire.records_to_json import to_bytes
from sparkscore.wire.statuses import RETRY_AFTER_S, Fault

Headers = Sequence[tuple[str, str]]

_JSON: Headers = (("content-type", "application/json"),)
_SAFE: Headers = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("cache-control", "no-store"),
)
_TEMPORARY = "TEMPORARILY_UNAVAILABLE"


async def send_head(send: Send, status: int, headers: Headers) -> None:
    """Begin an answer."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (*headers, *_SAFE)]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    await send_head(send, status, (*headers, ("content-length", str(len(body)))))
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, body: bytes, headers: Headers = ()) -> None:
    """Send the answer of a call that was made."""
    await send_body(send, 200, (*_JSON, *headers), body)


async def send_fault(send: Send, fault: Fault, headers: Headers = ()) -> None:
    """Send the answer of a call that was refused or failed."""
    more = [("retry-after", str(RETRY_AFTER_S))] if fault.code == _TEMPORARY else []
    await send_body(send, fault.status, (*_JSON, *more, *headers), to_bytes(fault.body))
