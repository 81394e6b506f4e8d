"""The end of an application: what it holds is closed when the server that runs it stops."""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from starlette.types import ASGIApp, Receive, Scope, Send


class ClosedAtTheEnd:
    """Calls `close` in a worker thread once all requests are answered, and before the process ends.

    By ASGI's lifespan, and not by `atexit`: a process that ends by a signal runs no such functions.
    """

    def __init__(self, app: ASGIApp, close: Callable[[], None]) -> None:
        self._app = app
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is not about the application's own life."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await to_thread.run_sync(self._close)
        await send({"type": "lifespan.shutdown.complete"})
