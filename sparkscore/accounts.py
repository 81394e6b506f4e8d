"""Who may do what on a server: users, tokens, roles and what they are given for.

Pure rules: nothing here keeps a record or reads a request. Passwords and tokens are kept as digests
that do not lead back to them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from sparkscore.errors import InvalidNameError, UsageError, shown

EVERYTHING = "*"
"""The resource of a grant that holds for all of its kind."""

_USER = re.compile(r"[A-Za-z0-9][\w.@\-]{0,99}", re.ASCII)
_MIN_PASSWORD_CHARS = 12
_MAX_PASSWORD_BYTES = 1024
# 16 MiB and about 50 ms: as OWASP's password storage page has it, for scrypt.
_COST, _BLOCK, _PARALLEL = 2**14, 8, 5
_TOKEN_PREFIX = "sst"  # noqa: S105 - what tokens begin with
_TOKEN_SECRET_BYTES = 32


class Role(IntEnum):
    """What one may do; each role may do what those before it may."""

    READ = 1
    LOG = 2
    REGISTER = 3
    PROMOTE = 4
    ADMIN = 5

    def __str__(self) -> str:
        return self.name.lower()


class Resource(StrEnum):
    """What roles are given for."""

    EXPERIMENT = "experiment"
    MODEL = "model"


@dataclass(frozen=True)
class Grant:
    """A role for one experiment (by id) or model (by name), or for all of them."""

    resource: Resource
    name: str
    role: Role


@dataclass(frozen=True)
class User:
    """Somebody who may sign in; an administrator may do everything."""

    name: str
    password_hash: str
    is_admin: bool
    creation_time_ms: int


@dataclass(frozen=True)
class Token:
    """What a program signs in with, in the place of its user.

    Attributes:
        token_id: The part of it that may be shown.
        secret_hash: Digest of the rest.
        role: The most that it may do, whatever its user may.
        expires_ms: When it ends, in milliseconds since the epoch.
    """

    token_id: str
    user: str
    secret_hash: str
    role: Role
    creation_time_ms: int
    expires_ms: int


@dataclass(frozen=True)
class Caller:
    """Who calls, and what they may do."""

    user: str
    is_admin: bool
    grants: tuple[Grant, ...]
    ceiling: Role = Role.ADMIN

    def role_for(self, resource: Resource, name: str) -> Role | None:
        """The most that the caller may do with a resource; None: nothing."""
        held = [
            grant.role
            for grant in self.grants
            if grant.resource is resource and grant.name in (name, EVERYTHING)
        ]
        best = Role.ADMIN if self.is_admin else max(held, default=None)
        return None if best is None else min(best, self.ceiling)

    def may(self, resource: Resource, name: str, role: Role) -> bool:
        """Whether the caller has a role for a resource."""
        held = self.role_for(resource, name)
        return held is not None and held >= role


def parse_user(text: str) -> str:
    """A user's name: 1 to 100 letters, digits, `_`, `-`, `.` and `@`.

    Raises:
        InvalidNameError: The text is not such a name.
    """
    if not _USER.fullmatch(text):
        raise InvalidNameError(
            f"user name {shown(text)} is not 1 to 100 letters, digits, '_', '-', '.' or '@'"
        )
    return text


def parse_role(text: str) -> Role:
    """A role by its name.

    Raises:
        UsageError: There is none of that name.
    """
    try:
        return Role[text.upper()]
    except KeyError as exc:
        known = ", ".join(map(str, Role))
        raise UsageError(f"role {shown(text)} is not one of {known}") from exc


def hash_password(password: str) -> str:
    """What is kept of a password.

    Raises:
        UsageError: It is too short, or too long.
    """
    if len(password) < _MIN_PASSWORD_CHARS:
        raise UsageError(
            f"the password has {len(password)} characters: take {_MIN_PASSWORD_CHARS} or more"
        )
    if len(password.encode("utf-8", "surrogatepass")) > _MAX_PASSWORD_BYTES:
        raise UsageError(f"the password is longer than {_MAX_PASSWORD_BYTES} bytes")
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_stretched(password, salt).hex()}"


def password_fits(password: str, kept: str) -> bool:
    """Whether a password is the one that was kept; takes as long for a wrong one."""
    if len(password.encode("utf-8", "surrogatepass")) > _MAX_PASSWORD_BYTES:
        return False
    _, salt, digest = kept.split("$")
    return hmac.compare_digest(_stretched(password, bytes.fromhex(salt)).hex(), digest)


NOBODYS_PASSWORD = f"scrypt${'00' * 16}${'00' * 64}"
"""Compared with where there is no such user, so that the time does not tell."""


def new_token() -> tuple[str, str, str]:
    """A token, and its id and digest, which are kept; the token itself is shown once."""
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(_TOKEN_SECRET_BYTES)
    return f"{_TOKEN_PREFIX}_{token_id}_{secret}", token_id, hash_secret(secret)


def parse_token(text: str) -> tuple[str, str] | None:
    """The id and the secret of a token; None: it is none of ours."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != _TOKEN_PREFIX:  # noqa: PLR2004 - prefix, id and secret
        return None
    return parts[1], parts[2]


def hash_secret(secret: str) -> str:
    """Digest of a token's secret, which is long and random, and needs no stretching."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def secret_fits(secret: str, kept: str) -> bool:
    """Whether a secret is the one that was kept."""
    return hmac.compare_digest(hash_secret(secret), kept)


def listed_grants(grants: Iterable[Grant]) -> str:
    """Grants as a person reads them."""
    return ", ".join(f"{it.role} on {it.resource} {it.name}" for it in grants) or "none"


def _stretched(password: str, salt: bytes) -> bytes:
    raw = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(
        raw, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, maxmem=64 * 1024 * 1024, dklen=64
    )
