"""Our own tracking server on loopback, answering from a thread of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from sparkscore.server.calls import Served
from sparkscore.server.tracking_app import tracking_app
from sparkscore.server.webhook_secrets import WebhookSecrets
from sparkscore.server.webhooks import Webhooks
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryStores, open_memory

_START_WITHIN_S = 30
_STEP_S = 0.01


class TrackingServer:
    """A server whose stores are exchanged from test to test; it starts in half a second once.

    Attributes:
        uri: Its address.
        requests: Method and path of each request, in order.
        statuses: Answered to the next requests in the place of what they ask for; 0 breaks the
            connection after the request was done, as where an answer is lost.
    """

    def __init__(self) -> None:
        self.uri = ""
        self.requests: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        self._app: ASGIApp | None = None

    @contextmanager
    def running(self) -> Iterator[TrackingServer]:
        """Serve until the block ends."""
        # TCP by its name, or asyncio leaves Nagle's 40 ms in each answer.
        with socket.socket(proto=socket.IPPROTO_TCP) as bound:
            bound.bind(("127.0.0.1", 0))
            self.uri = f"http://127.0.0.1:{bound.getsockname()[1]}"
            config = uvicorn.Config(
                self._answer,
                interface="asgi3",  # uvicorn takes a method for something older
                lifespan="off",
                log_level="critical",
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
            thread.start()
            started = threading.Event()
            for _ in range(int(_START_WITHIN_S / _STEP_S)):
                if server.started or started.wait(_STEP_S):
                    break
            assert server.started
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join()

    def new_stores(
        self,
        folder: Path,
        clock: Clock = system_clock,
        artifact_root: str = "mlflow-artifacts:",
    ) -> MemoryStores:
        """Empty stores in memory, which are served from now on, with files in a folder."""
        stores = open_memory(artifact_root, clock)
        self.serve(stores, folder, clock)
        return stores

    def serve(self, stores: MemoryStores, folder: Path, clock: Clock = system_clock) -> None:
        """Serve these stores from now on, with files in a folder."""
        self.requests.clear()
        self.statuses.clear()
        self._app = tracking_app(
            Served(
                runs=stores.runs,
                models=stores.models,
                logged_models=stores.logged_models,
                artifacts=LocalArtifactStore(folder),
                webhooks=Webhooks(
                    stores.webhooks, WebhookSecrets(folder / "webhook-key"), clock=clock
                ),
                clock=clock,
            )
        )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        self.requests.append((scope["method"], scope["path"]))
        if not self.statuses:
            await self._app(scope, receive, send)
            return
        status = self.statuses.pop(0)
        if status:
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def lost(_: object) -> None:
            return None

        await self._app(scope, receive, lost)
        raise ConnectionResetError("the answer is lost, as the test wants it")
