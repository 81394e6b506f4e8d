"""A real S3 server on loopback, which can be told to err as stores do."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from sparkscore.files.filesystem import StorePath
from sparkscore.files.s3_store import S3Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SERVER_ERROR = "500 Internal Server Error"
_FORBIDDEN = "403 Forbidden"
_NO_RIGHT = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>No</Message></Error>"
_UNKNOWN_KEY = (
    b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id "
    b"you provided does not exist in our records.</Message></Error>"
)


@dataclass
class S3Server:
    """Buckets in memory behind HTTP; all threads and processes of this machine may ask.

    It answers from a thread of this process: a call that holds Python's lock while it waits, as
    `DeltaTable.history` does, would wait for good.

    Attributes:
        access_key: The only one that is served.
        ignores_conditions: Whether a put overwrites what it was told not to, as old stores do.
        loses_answers_to: End of a path; the next put there is done, and its answer is an error.
        refuses: Part of a path; puts there are answered as to somebody without the right.
        refuses_bucket: Whether nobody may look at a bucket itself, as where rights go by prefix.
        rival: End of a path, and what another writer puts there just before the next put.
        requests: Method and path of each request, in order.
    """

    access_key: str = "test-key"
    ignores_conditions: bool = False
    loses_answers_to: str | None = None
    refuses: str | None = None
    refuses_bucket: bool = False
    rival: tuple[str, bytes] | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    _app: WSGIApplication = field(
        default_factory=lambda: DomainDispatcherApplication(create_backend_app)
    )
    _puts: threading.Lock = field(default_factory=threading.Lock)
    _port: int = 0

    @contextmanager
    def running(self) -> Iterator[S3Server]:
        """Serve until the block ends."""
        server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead any library here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def store(self) -> S3Store:
        """The server as a table's store."""
        environ = self.environ
        return S3Store(
            region=environ["AWS_REGION"],
            endpoint=environ["AWS_ENDPOINT_URL"],
            access_key=environ["AWS_ACCESS_KEY_ID"],
            secret_key=environ["AWS_SECRET_ACCESS_KEY"],
            credentials="AWS_ACCESS_KEY_ID",
        )

    def new_bucket(self) -> StorePath:
        """An empty bucket of a name of its own; a server that erred is sound again."""
        from pyarrow.fs import S3FileSystem

        self.ignores_conditions = self.refuses_bucket = False
        self.loses_answers_to = self.refuses = self.rival = None
        name, store = f"b{uuid.uuid4().hex}", self.store
        S3FileSystem(
            access_key=store.access_key,
            secret_key=store.secret_key,
            region=store.region,
            endpoint_override=store.endpoint,
            allow_bucket_creation=True,
        ).create_dir(name)
        self.requests.clear()
        return StorePath(store, name)

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if f"Credential={self.access_key}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _error(start, _FORBIDDEN, _UNKNOWN_KEY)
        if self.refuses_bucket and method == "HEAD" and path.count("/") == 1:
            return _error(start, _FORBIDDEN, b"")
        if method == "PUT" and self.refuses is not None and self.refuses in path:
            return _error(start, _FORBIDDEN, _NO_RIGHT)
        if method != "PUT":
            return self._app(environ, start)
        if self.ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self._puts:  # Moto looks and puts in two steps, between which another may put.
            if self.rival is not None and path.endswith(self.rival[0]):
                (_, body), self.rival = self.rival, None
                self._put_unanswered(_with_body(environ, body))
            if self.loses_answers_to is None or not path.endswith(self.loses_answers_to):
                return list(self._app(environ, start))
            self.loses_answers_to = None
            self._put_unanswered(environ)
            return _error(start, _SERVER_ERROR, b"")

    def _put_unanswered(self, environ: WSGIEnvironment) -> None:
        list(self._app(environ, lambda *_: lambda _: None))


class _Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


def _with_body(environ: WSGIEnvironment, body: bytes) -> WSGIEnvironment:
    """The same put with another body, and without any condition."""
    said = ("HTTP_IF_NONE_MATCH", "HTTP_CONTENT_MD5", "HTTP_X_AMZ_CONTENT_SHA256")
    kept = {name: value for name, value in environ.items() if name not in said}
    return kept | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def _error(start: StartResponse, status: str, body: bytes) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
