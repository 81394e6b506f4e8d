"""Listen, and answer until told to stop: one process, or several that share one socket."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from multiprocessing.process import BaseProcess

import uvicorn
from starlette.types import ASGIApp

from sparkscore.errors import PortTakenError, UsageError

OpenApp = Callable[[], ASGIApp]
"""Opens the application; with several workers it is pickled, and called in each of them."""

_STOP_WITHIN_S = 5
_BACKLOG = 2048
# Longer than clients keep a connection idle: one closed while they send looks like an outage.
_KEEP_ALIVE_S = 75
_PORTS_TO_TRY = 20
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


@dataclass(frozen=True)
class Listen:
    """Where and how to listen.

    Attributes:
        host: Name or address to bind to.
        port: The port; 0 takes any that is free.
        n_workers: Processes that answer.
        is_guarded: Whether callers are asked who they are, or the operator wants it without.
    """

    host: str
    port: int
    n_workers: int = 1
    is_guarded: bool = False


def serve(open_app: OpenApp, listen: Listen, announce: Callable[[str], None]) -> None:
    """Answer until SIGINT or SIGTERM, which then takes the way it had before this call.

    Requests that are being answered are given five seconds, and webhooks another four.

    Args:
        open_app: Opens the application.
        listen: Where.
        announce: Told the URL, once connections are taken.

    Raises:
        UsageError: The address is one that others reach, and nobody is asked who they are.
        PortTakenError: The port is in use; names one that is free.
    """
    _check_loopback(listen)
    bound = _bound(listen.host, listen.port)
    config = uvicorn.Config(
        partial(_opened, open_app),
        factory=True,
        workers=listen.n_workers,
        lifespan="on",  # the application closes what it holds
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
        backlog=_BACKLOG,
        # Nobody stands in front of it of whom it knows; a client's own word is not believed.
        proxy_headers=False,
    )
    announce(_url(listen.host, bound))
    try:
        if listen.n_workers == 1:
            uvicorn.Server(config).run(sockets=[bound])
        else:
            _serve_by_workers(config, bound)
    finally:
        bound.close()


def _opened(open_app: OpenApp) -> ASGIApp:
    """The application, in a process that is set up for it."""
    app = open_app()
    # A page of 1,000 runs is 100,000 small objects and no ring among them: to look for rings at
    # every 700 of them, and among all modules, took a sixth of a search's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()
    return app


def _stop_after(parent: BaseProcess) -> None:
    """Stop this worker when its parent is gone: killed, it can tell nobody."""
    parent.join()
    signal.raise_signal(signal.SIGTERM)


def _serve_by_workers(config: uvicorn.Config, bound: socket.socket) -> None:
    from uvicorn.supervisors import Multiprocess

    stopped_by = signal.SIGTERM

    class Workers(Multiprocess):
        """Remembers that Ctrl-C was what stopped them."""

        def handle_int(self) -> None:
            nonlocal stopped_by
            stopped_by = signal.SIGINT
            super().handle_int()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    Workers(config, sockets=[bound]).run()
    for number, handler in before.items():
        signal.signal(number, handler)
    # As one process does: the signal takes the way that it had.
    signal.raise_signal(stopped_by)


def _check_loopback(listen: Listen) -> None:
    if listen.is_guarded or is_loopback(listen.host):
        return
    raise UsageError(
        f"the address {listen.host!r} is one that others reach: make a user by `sparkscore users "
        "create NAME --admin`, so that callers are asked who they are, or say --insecure-no-auth"
    )


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    try:
        return _listening(host, port)
    except (OSError, OverflowError) as exc:
        if not _is_taken(exc):
            raise UsageError(f"cannot listen on {host!r}, port {port}: {exc}") from exc
        free = _free_port(host, port)
        hint = f"port {free} is free: --port {free}" if free else "choose another with --port"
        raise PortTakenError(f"port {port} of {host!r} is in use; {hint}") from exc


def _listening(host: str, port: int) -> socket.socket:
    plain = host.strip("[]")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    # By its name: asyncio sends small answers at once (TCP_NODELAY) only where it sees TCP said.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((plain, port))
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_taken(exc: Exception) -> bool:
    return isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE


def _free_port(host: str, port: int) -> int | None:
    for candidate in range(port + 1, min(port + _PORTS_TO_TRY, 2**16)):
        try:
            _listening(host, candidate).close()
        except OSError:
            continue
        return candidate
    return None


def _url(host: str, bound: socket.socket) -> str:
    port = bound.getsockname()[1]
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{shown}:{port}"
