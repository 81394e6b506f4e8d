"""One tracking server: requests by the table of routes, tried again where that is safe."""

from __future__ import annotations

import os
import random
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordNotFoundError,
    SparkscoreError,
    StoreUnavailableError,
    UsageError,
    shown,
)
from sparkscore.wire.reading import Given, read_body, read_fields
from sparkscore.wire.records_to_json import Json, to_bytes
from sparkscore.wire.routes import Route, all_routes
from sparkscore.wire.statuses import error_of

_Answer = TypeVar("_Answer")

_CONNECT_TIMEOUT_S = 5.0
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 8.0
_MAX_SHOWN_BODY = 200
_PARAMETER = re.compile(r"{(\w+)(:path)?}")
_REFUSED = (429, 503)
"""Statuses of a request that was not done."""
_NOT_ALLOWED = (401, 403)
_OF_STATE = ("Changing param values is not allowed", "must be in the 'active' state")
"""What MLflow's servers say, by the code of any wrong argument, where a record's state forbids."""
_NOT_TWICE = frozenset(
    {
        "create_experiment",
        "create_logged_model",
        "create_registered_model",
        "create_run",
        "create_version",
        "delete_experiment",
        "delete_experiment_tag",
        "delete_logged_model",
        "delete_logged_model_tag",
        "delete_registered_model",
        "delete_tag",
        "delete_version",
        "purge_experiment",
        "purge_logged_model",
        "purge_run",
        "rename_registered_model",
        "restore_experiment",
        "update_version",
    }
)
"""Routes that do, or say, something else when they are asked again after an answer was lost."""


@dataclass(frozen=True)
class Access:
    """How to ask a server.

    Attributes:
        username: With `password`, for HTTP's basic authentication.
        token: For a bearer's; wins over the username.
        timeout_s: Longest silence of a server that is connected.
        max_tries: How often a request is sent, the first time included.
        ca_file: Certificates to trust in the place of the usual ones.
        client_cert: Certificate and key of this client, in one PEM file.
        insecure_tls: Whether any certificate will do.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    timeout_s: float = 60.0
    max_tries: int = 5
    ca_file: Path | None = None
    client_cert: Path | None = None
    insecure_tls: bool = False


class RemoteServer:
    """A server of ours or of MLflow's.

    Threads share it, and a forked child opens connections of its own.

    Args:
        uri: `http://` or `https://`, host, port and the path that the server lies below.
        access: How to ask.
        sleep: Waits for seconds.
        jitter: Answers a number from 0 to 1, so that not all clients come back at once.
        transport: Carries requests in the place of a network.
    """

    def __init__(
        self,
        uri: str,
        access: Access,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parts = urlsplit(uri)
        if not _is_address(uri):
            raise InvalidNameError(
                f"tracking server {shown(_without_password(uri))} is no address such as "
                "http://HOST:PORT"
            )
        self.uri = _without_password(uri).rstrip("/")
        self._access = access
        self._auth = _auth(access, parts.username, parts.password)
        self._sleep = sleep
        self._jitter = jitter
        self._transport = transport
        self._lock = threading.Lock()
        self._client: tuple[int, httpx.Client] | None = None
        self._is_sparkscore: bool | None = None

    @property
    def is_sparkscore(self) -> bool:
        """Whether the server is ours, and knows what MLflow's protocol does not say.

        Raises:
            StoreUnavailableError: It did not answer.
        """
        if self._is_sparkscore is None:
            try:
                self._is_sparkscore = "sparkscore_version" in self.ask("get_server_info")
            except RecordNotFoundError:
                self._is_sparkscore = False  # MLflow's of older releases have no such page.
        return self._is_sparkscore

    def refuse_mlflow(self, what: str) -> None:
        """Refuse what MLflow's servers cannot do over REST.

        Raises:
            UsageError: The server is one of these.
        """
        if not self.is_sparkscore:
            raise UsageError(
                f"{self.uri} is a server of MLflow's, which cannot {what} over REST: run "
                "`mlflow gc` on its machine, or keep records with `sparkscore server`"
            )

    def ask(
        self, name: str, fields: Mapping[str, object] | None = None, *, as_page: bool = False
    ) -> Given:
        """The answer of a route.

        Args:
            name: The route's.
            fields: Of its request; None stands for what is not given.
            as_page: Ask by the path for pages, the only one that MLflow's servers have for some.

        Raises:
            StoreUnavailableError: The server did not answer, or not in its protocol.
            SparkscoreError: What the server says, by the class of `wire.statuses`.
        """
        route = _routes()[name]
        given = {key: value for key, value in (fields or {}).items() if value is not None}
        path, rest = _filled(route.url_paths[-1] if as_page else route.url_path, given)
        is_get = route.method == "GET"
        answer = self.send(
            route.method,
            path,
            query=_query(rest) if is_get else (),
            # MLflow's servers look there for what is in the path, too.
            body=None if is_get else given,
            is_repeatable=name not in _NOT_TWICE,
        )
        try:
            return read_fields(read_body(answer.content), route.answer)
        except UsageError as exc:
            raise StoreUnavailableError(
                f"{self.uri} answered {name!r} with what no tracking server says ({exc}): "
                "check the address; a proxy may have answered"
            ) from exc

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Iterable[tuple[str, str]] = (),
        body: Json | None = None,
        is_repeatable: bool = True,
    ) -> httpx.Response:
        """The answer to one request, tried again where that does no harm.

        Raises:
            StoreUnavailableError: The server did not answer.
            SparkscoreError: It answered with an error.
        """
        content = None if body is None else to_bytes(body)
        headers = {} if body is None else {"Content-Type": "application/json"}

        def once() -> httpx.Response:
            answer = self.client.request(
                method, self.uri + path, params=list(query), content=content, headers=headers
            )
            self.check(answer)
            return answer

        return self.trying(once, is_repeatable=is_repeatable)

    def trying(self, once: Callable[[], _Answer], *, is_repeatable: bool = True) -> _Answer:
        """What `once` answers, called again after errors that may pass.

        Raises:
            StoreUnavailableError: Every try failed, or one that must not be made again.
            SparkscoreError: The server answered with another error.
        """
        n_tries = 0
        while True:
            n_tries += 1
            try:
                return once()
            except _FailedError as exc:
                if n_tries >= self._access.max_tries or not (is_repeatable or exc.is_undone):
                    raise exc.as_unavailable(self.uri) from exc
                wait_s = max(exc.retry_after_s, self._wait_s(n_tries))
            except httpx.RequestError as exc:
                undone = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
                if n_tries >= self._access.max_tries or not (is_repeatable or undone):
                    raise StoreUnavailableError(
                        f"{self.uri} did not answer ({type(exc).__name__}: {exc}): check the "
                        "address and that the server runs, and run again"
                    ) from exc
                wait_s = self._wait_s(n_tries)
            self._sleep(wait_s)

    def check(self, answer: httpx.Response) -> None:
        """Raise what an answer stands for if it is no success; its body has been read.

        Raises:
            SparkscoreError: By the class of `wire.statuses`.
        """
        if answer.is_success:
            return
        if answer.is_redirect:
            raise UsageError(
                f"{self.uri} answered with a redirect to "
                f"{shown(answer.headers.get('location', ''))}: give the address itself"
            )
        error = _error(answer)
        if isinstance(error, StoreUnavailableError):
            raise _FailedError(str(error), answer.status_code, _retry_after_s(answer)) from error
        if answer.status_code in _NOT_ALLOWED:
            raise UsageError(
                f"{self.uri} refuses this client ({answer.status_code}: {error}): set "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        raise error

    @property
    def client(self) -> httpx.Client:
        """This process's connections."""
        held = self._client
        if held is None or held[0] != os.getpid():
            with self._lock:
                held = self._client
                if held is None or held[0] != os.getpid():
                    held = self._client = (os.getpid(), self._connected())
                    # Nobody needs to close what a notebook has opened.
                    weakref.finalize(self, held[1].close)
        return held[1]

    def close(self) -> None:
        """Close this process's connections."""
        held, self._client = self._client, None
        if held is not None and held[0] == os.getpid():
            held[1].close()

    @contextmanager
    def streaming(self, path: str) -> Iterator[httpx.Response]:
        """The answer to a GET whose body is not read yet.

        Raises:
            SparkscoreError: As `check`.
        """
        # A file's bytes as they are: what is unpacked on the way has no length to compare.
        headers = {"Accept-Encoding": "identity"}
        with self.client.stream("GET", self.uri + path, headers=headers) as answer:
            if not answer.is_success:
                answer.read()
            self.check(answer)
            yield answer

    def _connected(self) -> httpx.Client:
        access = self._access
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        return httpx.Client(
            auth=None if access.token else self._auth,
            headers={"User-Agent": "sparkscore", **headers},
            timeout=httpx.Timeout(access.timeout_s, connect=_CONNECT_TIMEOUT_S),
            verify=self._tls(),
            transport=self._transport,
        )

    def _tls(self) -> ssl.SSLContext:
        access = self._access
        # Reading the certificates of this machine takes longer than ten requests.
        verify = self.uri.startswith("https:") and not access.insecure_tls
        try:
            if verify and access.ca_file is not None:
                context = ssl.create_default_context(cafile=str(access.ca_file))
            else:
                context = httpx.create_ssl_context(verify=verify)
            if access.client_cert is not None:
                context.load_cert_chain(str(access.client_cert))
        except OSError as exc:  # those of TLS too
            raise UsageError(
                f"the certificates for {self.uri} cannot be read ({exc}): look at client.ca_file "
                "and client.client_cert, or MLFLOW_TRACKING_SERVER_CERT_PATH and "
                "MLFLOW_TRACKING_CLIENT_CERT_PATH"
            ) from exc
        return context

    def _wait_s(self, n_tries: int) -> float:
        longest = min(_FIRST_WAIT_S * (1 << (n_tries - 1)), _LONGEST_WAIT_S)
        return longest * (0.5 + 0.5 * self._jitter())


class _FailedError(Exception):
    """An answer that may be another one the next time."""

    def __init__(self, message: str, status: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.is_undone = status in _REFUSED
        self.retry_after_s = retry_after_s

    def as_unavailable(self, uri: str) -> StoreUnavailableError:
        """What is raised when no further try is made."""
        return StoreUnavailableError(f"{uri} failed: {self}. Run again when it is well")


@cache
def _routes() -> Mapping[str, Route]:
    return all_routes()


def _auth(access: Access, username: str | None, password: str | None) -> tuple[str, str] | None:
    if access.username:
        return access.username, access.password
    return None if username is None else (username, password or "")


def _is_address(uri: str) -> bool:
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not url.query


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _filled(path: str, given: Mapping[str, object]) -> tuple[str, Json]:
    """A path with its fields in it, and the fields that are left."""
    rest = dict(given)

    def value(match: re.Match[str]) -> str:
        return quote(str(rest.pop(match[1])), safe="/" if match[2] else "")

    return _PARAMETER.sub(value, path), rest


def _query(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in fields.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield key, str(item).lower() if isinstance(item, bool) else str(item)


def _error(answer: httpx.Response) -> SparkscoreError:
    try:
        body = read_body(answer.content)
    except UsageError:
        # A proxy's page, or a framework's: its first words may help.
        text = " ".join(answer.text[:_MAX_SHOWN_BODY].split())
        body = {"message": f"status {answer.status_code}: {shown(text)}"}
    error = error_of(answer.status_code, body)
    if type(error) is UsageError and any(words in str(error) for words in _OF_STATE):
        return InvalidStateError(str(error))
    return error


def _retry_after_s(answer: httpx.Response) -> float:
    said: str = answer.headers.get("retry-after", "")
    seconds = float(said) if said.isdecimal() else 0.0
    return min(_LONGEST_WAIT_S, seconds)
