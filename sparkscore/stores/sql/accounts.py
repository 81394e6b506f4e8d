"""Users, tokens, grants and the audit trail in SQL tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sparkscore.accounts import Grant, Resource, Role, Token, User
from sparkscore.errors import RecordExistsError, RecordNotFoundError, shown
from sparkscore.stores.accounts_base import AuditEntry
from sparkscore.stores.audit_chain import FIRST, chain_digest
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.statements import lock_for_writing, put_rows
from sparkscore.stores.sql.tables import audit, grants, tokens, users


class SqlAccountStore:
    """Users and the audit trail in a SQL database; safe between threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_user(self, name: str, password_hash: str, *, is_admin: bool = False) -> User:
        """See AccountStore."""

        def work(connection: Connection) -> User:
            if _find(connection, name) is not None:
                raise RecordExistsError(
                    f"user {name!r} exists already: choose another name, or `sparkscore users "
                    "password` to change the password"
                )
            user = User(name, password_hash, is_admin, self._clock())
            row = {"password_hash": password_hash, "is_admin": is_admin, "name": name}
            connection.execute(insert(users).values(creation_time_ms=user.creation_time_ms, **row))
            return user

        return self._database.write(work)

    def find_user(self, name: str) -> User | None:
        """See AccountStore."""
        with self._database.read() as connection:
            return _find(connection, name)

    def list_users(self) -> Sequence[User]:
        """See AccountStore."""
        with self._database.read() as connection:
            return [_user(row) for row in connection.execute(select(users).order_by(users.c.name))]

    def change_user(
        self, name: str, *, password_hash: str | None = None, is_admin: bool | None = None
    ) -> User:
        """See AccountStore."""

        def work(connection: Connection) -> User:
            user = _get(connection, name)
            changed = User(
                name,
                user.password_hash if password_hash is None else password_hash,
                user.is_admin if is_admin is None else is_admin,
                user.creation_time_ms,
            )
            connection.execute(
                update(users)
                .where(users.c.name == name)
                .values(password_hash=changed.password_hash, is_admin=changed.is_admin)
            )
            return changed

        return self._database.write(work)

    def delete_user(self, name: str) -> None:
        """See AccountStore."""

        def work(connection: Connection) -> None:
            _get(connection, name)
            connection.execute(delete(users).where(users.c.name == name))

        self._database.write(work)

    def add_token(self, token: Token) -> None:
        """See AccountStore."""

        def work(connection: Connection) -> None:
            _get(connection, token.user)
            connection.execute(
                insert(tokens).values(
                    token_id=token.token_id,
                    user_name=token.user,
                    secret_hash=token.secret_hash,
                    role=int(token.role),
                    creation_time_ms=token.creation_time_ms,
                    expires_ms=token.expires_ms,
                )
            )

        self._database.write(work)

    def find_token(self, token_id: str) -> Token | None:
        """See AccountStore."""
        query = select(tokens).where(tokens.c.token_id == token_id)
        with self._database.read() as connection:
            row = connection.execute(query).first()
            return None if row is None else _token(row)

    def list_tokens(self, user: str) -> Sequence[Token]:
        """See AccountStore."""
        query = select(tokens).where(tokens.c.user_name == user)
        query = query.order_by(tokens.c.creation_time_ms.desc(), tokens.c.token_id)
        with self._database.read() as connection:
            return [_token(row) for row in connection.execute(query)]

    def delete_token(self, token_id: str) -> None:
        """See AccountStore."""

        def work(connection: Connection) -> None:
            done = connection.execute(delete(tokens).where(tokens.c.token_id == token_id))
            if not done.rowcount:
                raise RecordNotFoundError(
                    f"there is no token {shown(token_id)}; `sparkscore tokens list USER` shows them"
                )

        self._database.write(work)

    def set_grant(self, user: str, grant: Grant) -> None:
        """See AccountStore."""

        def work(connection: Connection) -> None:
            _get(connection, user)
            row = {
                "user_name": user,
                "resource": grant.resource,
                "resource_name": grant.name,
                "role": int(grant.role),
            }
            put_rows(connection, grants, [row])

        self._database.write(work)

    def delete_grant(self, user: str, resource: Resource, name: str) -> None:
        """See AccountStore."""
        it = grants.c
        is_it = (it.user_name == user) & (it.resource == resource) & (it.resource_name == name)

        def work(connection: Connection) -> None:
            if not connection.execute(delete(grants).where(is_it)).rowcount:
                raise RecordNotFoundError(
                    f"user {user!r} has no role for {resource} {shown(name)}; "
                    "`sparkscore users show` tells which there are"
                )

        self._database.write(work)

    def grants_of(self, user: str) -> Sequence[Grant]:
        """See AccountStore."""
        query = select(grants).where(grants.c.user_name == user)
        query = query.order_by(grants.c.resource, grants.c.resource_name)
        with self._database.read() as connection:
            return [
                Grant(Resource(row.resource), row.resource_name, Role(row.role))
                for row in connection.execute(query)
            ]

    def move_grants(self, resource: Resource, name: str, new_name: str | None) -> None:
        """See AccountStore."""
        is_it = (grants.c.resource == resource) & (grants.c.resource_name == name)

        def work(connection: Connection) -> None:
            if new_name is None:
                connection.execute(delete(grants).where(is_it))
            else:
                connection.execute(update(grants).where(is_it).values(resource_name=new_name))

        self._database.write(work)

    def append_audit(self, *, actor: str, action: str, subject: str, status: int) -> AuditEntry:
        """See AccountStore."""

        def work(connection: Connection) -> AuditEntry:
            # One after another, since each holds the digest of the one before.
            lock_for_writing(connection, audit)
            query = select(audit.c.number, audit.c.chain).order_by(audit.c.number.desc()).limit(1)
            last = connection.execute(query).first()
            number, before = (1, FIRST) if last is None else (last.number + 1, last.chain)
            time_ms = self._clock()
            chain = chain_digest(
                before,
                number=number,
                time_ms=time_ms,
                actor=actor,
                action=action,
                subject=subject,
                status=status,
            )
            entry = AuditEntry(number, time_ms, actor, action, subject, status, chain)
            connection.execute(
                insert(audit).values(
                    number=number,
                    time_ms=time_ms,
                    actor=actor,
                    action=action,
                    subject=subject,
                    status=status,
                    chain=chain,
                )
            )
            return entry

        return self._database.write(work)

    def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]:
        """See AccountStore."""
        query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(limit)
        with self._database.read() as connection:
            return [
                AuditEntry(
                    row.number,
                    row.time_ms,
                    row.actor,
                    row.action,
                    row.subject,
                    row.status,
                    row.chain,
                )
                for row in connection.execute(query)
            ]


def _find(connection: Connection, name: str) -> User | None:
    row = connection.execute(select(users).where(users.c.name == name)).first()
    return None if row is None else _user(row)


def _get(connection: Connection, name: str) -> User:
    found = _find(connection, name)
    if found is None:
        raise RecordNotFoundError(
            f"there is no user {shown(name)}; `sparkscore users list` shows them"
        )
    return found


def _user(row: Row[Any]) -> User:
    return User(row.name, row.password_hash, row.is_admin, row.creation_time_ms)


def _token(row: Row[Any]) -> Token:
    return Token(
        token_id=row.token_id,
        user=row.user_name,
        secret_hash=row.secret_hash,
        role=Role(row.role),
        creation_time_ms=row.creation_time_ms,
        expires_ms=row.expires_ms,
    )
