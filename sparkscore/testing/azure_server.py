"""A real server of Azure's storage on loopback: Azurite, which runs in Node."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sparkscore.files.azure_store import AZURE_HOST, AzureStore
from sparkscore.files.filesystem import StorePath

_VERSION = "3.37.0"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The only account of the server; the key is printed in its documentation."""
_FETCH_TIMEOUT_S = 600
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class AzureServer:
    """A running server, whose containers are kept in its memory."""

    port: int

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead here."""
        return {
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        }

    @property
    def store(self) -> AzureStore:
        """The server as a table's store."""
        return AzureStore(_ACCOUNT, _KEY, self.environ["AZURE_STORAGE_ENDPOINT"])

    @property
    def host(self) -> str:
        """The account as URIs name it."""
        return f"{_ACCOUNT}.{AZURE_HOST}"

    def new_container(self) -> StorePath:
        """An empty container of a name of its own."""
        name = f"c{uuid.uuid4().hex}"
        self.store.filesystem.create_dir(name)
        return StorePath(self.store, name)


@contextmanager
def running_server(cache: Path) -> Iterator[AzureServer]:
    """A server, until the block ends.

    Args:
        cache: Where the server's program is kept for good; npm fetches it.
    """
    program = _program(cache)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ("--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck")
    process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
        [_tool("node"), str(program), "--blobPort", str(port), *options],
        stdout=subprocess.DEVNULL,
    )
    try:
        _await(process, port)
        yield AzureServer(port)
    finally:
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Azurite does not listen within {_START_TIMEOUT_S} s")


def _program(cache: Path) -> Path:
    store = cache / f"azurite-{_VERSION}"
    store.parent.mkdir(parents=True, exist_ok=True)
    program = store / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    with FileLock(f"{store}.lock", timeout=_FETCH_TIMEOUT_S):
        if not (store / "complete").is_file():
            store.mkdir(exist_ok=True)
            done = subprocess.run(  # noqa: S603 - our own command line, no shell
                [_tool("npm"), "install", "--no-audit", "--no-fund", f"azurite@{_VERSION}"],
                cwd=store,
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(f"Azurite could not be fetched:\n{done.stderr[-2000:]}")
            (store / "complete").touch()
    return program


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name!r} is not on PATH; these tests need Node 20 or newer, with npm")
    return found
