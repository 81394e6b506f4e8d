"""One POST to a webhook: signed, to the very address that was checked, within a bounded time.

The standard library's client is used, and not httpx: it lets us connect the socket ourselves, to
the address that was checked, while TLS and the header Host keep the name; it knows no proxies, and
follows no redirects.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from sparkscore.server.webhook_addresses import Destination

_MAX_ANSWER_BYTES = 1000


@dataclass(frozen=True)
class Posted:
    """What a receiver answered; status 0: nothing, and `error` says why."""

    status: int
    body: str = ""
    error: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether the receiver took the delivery."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def may_succeed_later(self) -> bool:
        """Whether it is worth another try."""
        return (
            self.status in (0, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
            or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )


def signed_headers(body: bytes, delivery_id: str, time_s: int, secret: str) -> Mapping[str, str]:
    """The headers of a delivery; with a secret, the signature over "id.time.body".

    Args:
        body: The JSON as it is sent.
        delivery_id: The same for all tries of a delivery, so that receivers know a repetition.
        time_s: Seconds since the epoch, by which receivers refuse what is too old.
        secret: The webhook's; empty: no signature.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "sparkscore",
        "X-MLflow-Delivery-Id": delivery_id,
        "X-MLflow-Timestamp": str(time_s),
    }
    if secret:
        signed = b".".join((delivery_id.encode(), str(time_s).encode(), body))
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        headers["X-MLflow-Signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def post(
    destination: Destination,
    address: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
) -> Posted:
    """Send a body and read the head of the answer.

    Args:
        destination: Whom to ask for.
        address: Where to connect.
        body: What to send.
        headers: Besides Host and Content-Length.
        timeout_s: For all of it, however slowly the receiver answers.
    """
    try:
        with _connected(destination, address, timeout_s) as connection:
            named = {"Host": destination.authority, **headers}
            connection.request("POST", destination.target, body, named)
            answer = connection.getresponse()
            text = answer.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as exc:
        return Posted(0, error=f"{type(exc).__name__}: {exc}".rstrip(": "))
    status = answer.status
    return Posted(status, text, "" if Posted(status).is_taken else f"the answer was {status}")


@contextmanager
def _connected(
    destination: Destination, address: str, timeout_s: float
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut after `timeout_s`, whatever it is doing."""
    connection = http.client.HTTPConnection(destination.host, destination.port)
    # Else it would connect anew by itself, to whatever the name means by then.
    connection.auto_open = 0
    plain = socket.create_connection((address, destination.port), timeout_s)
    # A duplicate cuts the connection, since TLS takes the first one over. A timeout of the socket
    # begins anew with every byte, and so bounds nothing.
    with closing(plain), closing(plain.dup()) as duplicate:
        cut = threading.Timer(timeout_s, _cut, (duplicate,))
        cut.daemon = True
        cut.start()
        try:
            connection.sock = plain
            if destination.scheme == "https":
                tls = ssl.create_default_context()
                connection.sock = tls.wrap_socket(plain, server_hostname=destination.host)
            yield connection
        finally:
            cut.cancel()
            cut.join()
            connection.close()


def _cut(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker
