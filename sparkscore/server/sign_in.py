"""Who calls: a user with a password, or a program with a token; nobody else gets past this."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from threading import Lock

from anyio import to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from sparkscore.accounts import (
    EVERYTHING,
    NOBODYS_PASSWORD,
    Caller,
    Resource,
    Role,
    parse_token,
    password_fits,
    secret_fits,
)
from sparkscore.server.answers import send_fault
from sparkscore.server.api import header, path_below, told_fault
from sparkscore.server.calls import RefusedError
from sparkscore.stores.accounts_base import AccountStore
from sparkscore.stores.base import Clock
from sparkscore.wire.statuses import Fault

CALLER = "sparkscore.caller"
"""Where a scope holds who calls."""

_OPEN = ("/health", "/version")
_PAGES = ("/experiments/", "/runs/", "/models/")
_CHALLENGE = (("www-authenticate", 'Basic realm="sparkscore", charset="UTF-8"'),)
_MAX_FAILURES = 10
_FAILURES_WITHIN_S = 60.0
_MAX_REMEMBERED = 1000


class SignIn:
    """Puts itself before an application, and leaves in each request's scope who calls.

    Args:
        app: What is asked behind it.
        accounts: The users.
        clock: Milliseconds since the epoch, for what expires.
        static_prefix: What all paths stand below.
    """

    def __init__(
        self, app: ASGIApp, accounts: AccountStore, clock: Clock, static_prefix: str = ""
    ) -> None:
        self._app = app
        self._accounts = accounts
        self._clock = clock
        self._prefix = static_prefix
        self._passwords = _KnownPasswords()
        self._failures = _Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_below(scope).removeprefix(self._prefix) or "/"
        if path in _OPEN:
            await self._app(scope, receive, send)
            return
        found = await to_thread.run_sync(self._admitted, header(scope, b"authorization"), path)
        if isinstance(found, Caller):
            scope.setdefault("state", {})[CALLER] = found
            await self._app(scope, receive, send)
        elif isinstance(found, RefusedError):
            await send_fault(send, found.fault, found.headers)
        else:
            await send_fault(send, found)

    def _admitted(self, given: str, path: str) -> Caller | RefusedError | Fault:
        try:
            caller = self._caller(given)
            if path == "/" or path.startswith(_PAGES):
                _check_page(caller)
        except RefusedError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - the outer edge, as in `api`
            return told_fault(exc, "sign-in")
        return caller

    def _caller(self, given: str) -> Caller:
        kind, _, rest = given.partition(" ")
        if kind.lower() == "bearer":
            return self._by_token(rest.strip())
        if kind.lower() == "basic":
            return self._by_password(rest.strip())
        raise RefusedError(
            Fault(
                "UNAUTHENTICATED",
                "this server asks who calls: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            ),
            _CHALLENGE,
        )

    def _by_token(self, text: str) -> Caller:
        parsed = parse_token(text)
        token = None if parsed is None else self._accounts.find_token(parsed[0])
        if parsed is None or token is None or not secret_fits(parsed[1], token.secret_hash):
            raise _refused("the token is none of this server's")
        if token.expires_ms <= self._clock():
            raise _refused("the token has expired: `sparkscore tokens create` makes another")
        return self._known(token.user, token.role)

    def _by_password(self, encoded: str) -> Caller:
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except ValueError as exc:
            raise _refused("the credentials are no Base64 of USER:PASSWORD in UTF-8") from exc
        name, _, password = text.partition(":")
        self._failures.check(name)
        user = self._accounts.find_user(name) if "\0" not in name else None
        kept = NOBODYS_PASSWORD if user is None else user.password_hash
        if not self._passwords.fits(password, kept) or user is None:
            self._failures.add(name)
            raise _refused("user name or password is wrong")
        return self._known(name, Role.ADMIN)

    def _known(self, name: str, ceiling: Role) -> Caller:
        user = self._accounts.find_user(name)
        if user is None:
            raise _refused("the user of this token is gone")
        return Caller(name, user.is_admin, tuple(self._accounts.grants_of(name)), ceiling)


class _KnownPasswords:
    """Remembers in memory which passwords fitted, since finding out takes 50 ms on purpose.

    What is remembered is a digest under a key of this process, beside what is kept of the password:
    a password that was changed is asked anew.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._fitted: OrderedDict[bytes, None] = OrderedDict()
        self._lock = Lock()

    def fits(self, password: str, kept: str) -> bool:
        raw = f"{kept}\n{password}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, raw, hashlib.sha256).digest()
        with self._lock:
            if digest in self._fitted:
                self._fitted.move_to_end(digest)
                return True
        if not password_fits(password, kept):
            return False
        with self._lock:
            self._fitted[digest] = None
            if len(self._fitted) > _MAX_REMEMBERED:
                self._fitted.popitem(last=False)
        return True


@dataclass
class _Failures:
    """Counts wrong passwords, so that nobody tries them by the thousand."""

    def __post_init__(self) -> None:
        self._at: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def check(self, name: str) -> None:
        now = time.monotonic()
        with self._lock:
            times = self._at.get(name)
            while times and times[0] < now - _FAILURES_WITHIN_S:
                times.popleft()
            if times and len(times) >= _MAX_FAILURES:
                wait_s = int(times[0] + _FAILURES_WITHIN_S - now) + 1
                raise RefusedError(
                    Fault(
                        "REQUEST_LIMIT_EXCEEDED",
                        f"{_MAX_FAILURES} wrong passwords within a minute: wait {wait_s} s",
                    ),
                    (("retry-after", str(wait_s)),),
                )

    def add(self, name: str) -> None:
        with self._lock:
            self._at.setdefault(name, deque(maxlen=_MAX_FAILURES)).append(time.monotonic())
            self._at.move_to_end(name)
            if len(self._at) > _MAX_REMEMBERED:
                self._at.popitem(last=False)


def _check_page(caller: Caller) -> None:
    if not all(caller.may(kind, EVERYTHING, Role.READ) for kind in Resource):
        raise RefusedError(
            Fault(
                "PERMISSION_DENIED",
                f"pages show all experiments and models, which {caller.user!r} may not read; the "
                "client and the command line show those that are allowed",
            )
        )


def _refused(reason: str) -> RefusedError:
    return RefusedError(Fault("UNAUTHENTICATED", reason), _CHALLENGE)
