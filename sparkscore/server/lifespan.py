"""The life of an application: what it holds is opened with the server, and closed with it."""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from starlette.types import ASGIApp, Receive, Scope, Send


class WithLifespan:
    """Calls `start` with the server that runs it, and `close` once all requests are answered.

    `close` is called in a worker thread, and before the process ends.

    By ASGI's lifespan, and not by `atexit`: a process that ends by a signal runs no such functions.
    """

    def __init__(self, app: ASGIApp, start: Callable[[], None], close: Callable[[], None]) -> None:
        self._app = app
        self._start = start
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is not about the application's own life."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        self._start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await to_thread.run_sync(self._close)
        await send({"type": "lifespan.shutdown.complete"})
