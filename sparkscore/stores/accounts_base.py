"""The seam behind which a server's users and its audit trail are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sparkscore.accounts import Grant, Resource, Token, User


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit trail.

    Attributes:
        number: Counts up from 1, without a gap.
        actor: Who asked; empty: nobody who signed in.
        action: The route's name, or the command.
        subject: What it was about.
        status: The HTTP status that was answered.
        chain: Digest of this entry and of the one before it.
    """

    number: int
    time_ms: int
    actor: str
    action: str
    subject: str
    status: int
    chain: str


class AccountStore(Protocol):
    """Users, tokens, grants and the audit trail. Any call may raise StoreUnavailableError."""

    def create_user(self, name: str, password_hash: str, *, is_admin: bool = False) -> User:
        """A new user without grants.

        Raises:
            RecordExistsError: The name is taken.
        """
        ...

    def find_user(self, name: str) -> User | None:
        """The user of this name, or None."""
        ...

    def list_users(self) -> Sequence[User]:
        """All users by name."""
        ...

    def change_user(
        self, name: str, *, password_hash: str | None = None, is_admin: bool | None = None
    ) -> User:
        """The user with another password, or with other rights.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def delete_user(self, name: str) -> None:
        """Remove a user with tokens and grants.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def add_token(self, token: Token) -> None:
        """Keep a token.

        Raises:
            RecordNotFoundError: There is no such user.
        """
        ...

    def find_token(self, token_id: str) -> Token | None:
        """The token of this id, expired or not, or None."""
        ...

    def list_tokens(self, user: str) -> Sequence[Token]:
        """A user's tokens, the newest first."""
        ...

    def delete_token(self, token_id: str) -> None:
        """Remove a token.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def set_grant(self, user: str, grant: Grant) -> None:
        """Give a user a role for a resource, in the place of any other role for it.

        Raises:
            RecordNotFoundError: There is no such user.
        """
        ...

    def delete_grant(self, user: str, resource: Resource, name: str) -> None:
        """Take a user's role for a resource away.

        Raises:
            RecordNotFoundError: There is no such grant.
        """
        ...

    def grants_of(self, user: str) -> Sequence[Grant]:
        """What a user was given, by resource and name."""
        ...

    def move_grants(self, resource: Resource, name: str, new_name: str | None) -> None:
        """Let all grants for a resource follow its new name, or end with it (None)."""
        ...

    def append_audit(self, *, actor: str, action: str, subject: str, status: int) -> AuditEntry:
        """Add to the trail; what is in it stays as it is."""
        ...

    def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        """Entries with a higher number than `after`, in order."""
        ...
