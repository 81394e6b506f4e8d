from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

import sparkscore
from sparkscore.server.calls import Served
from sparkscore.server.settings import ServerSettings
from sparkscore.server.webhook_secrets import WebhookSecrets
from sparkscore.server.webhooks import Webhooks
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import open_memory

Json = dict[str, Any]
ROOT = Path(sparkscore.__file__).parents[1]


@dataclass(frozen=True)
class ServerProcess:
    """A server that listens, and what it wrote to stderr so far is in `log`."""

    url: str
    folder: Path
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[ServerProcess]:
    """A `sparkscore server` on a free port, over a database and files in `folder`."""
    command = [sys.executable, "-m", "sparkscore.cli", "server", "--port", "0", *options]
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        told = process.stderr.readline()
        found = re.search(r"http://\S+:\d+[^;\s]*", told)
        assert found, told + process.stderr.read()
        yield ServerProcess(found[0], folder, process)
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stderr.close()


def served_in(folder: Path, settings: ServerSettings | None = None) -> Served:
    """Stores of this process, with files in `folder`."""
    stores = open_memory("mlflow-artifacts:")
    return Served(
        runs=stores.runs,
        models=stores.models,
        logged_models=stores.logged_models,
        artifacts=LocalArtifactStore(folder),
        webhooks=Webhooks(stores.webhooks, WebhookSecrets(folder / "webhook-key")),
        settings=settings or ServerSettings(),
    )


class InProcess(httpx.BaseTransport):
    """Gives requests to an application of this process, each in an event loop of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def asked() -> httpx.Response:
            body = request.read()
            asynchronous = httpx.Request(
                request.method, request.url, headers=request.headers, content=body
            )
            # What it raises is what a process would log, and must be seen by the test.
            answer = await httpx.ASGITransport(self._app).handle_async_request(asynchronous)
            content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)

        return asyncio.run(asked())


def client_of(app: ASGIApp) -> Client:
    """A client of an application of this process."""
    return Client(httpx.Client(transport=InProcess(app), base_url="http://localhost"))


class Client:
    """Asks a server as any HTTP client would; `post` and the like return the answer's object."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def call(
        self, method: str, path: str, body: object = None, /, **query: object
    ) -> httpx.Response:
        """The answer to a request of the API, whatever its status."""
        url = path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
        params = {key: value for key, value in query.items() if value is not None}
        if body is None:
            return self.http.request(method, url, params=params or None)  # type: ignore[arg-type]
        return self.http.request(method, url, json=body)

    def done(self, method: str, path: str, body: object = None, /, **query: object) -> Json:
        """The object that a request is answered with, which must be a 200."""
        answer = self.call(method, path, body, **query)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found
