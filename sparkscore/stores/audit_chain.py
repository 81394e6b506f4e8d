"""The chain of an audit trail: each entry holds the digest of the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

from sparkscore.stores.accounts_base import AccountStore, AuditEntry

FIRST = "0" * 64
"""What the first entry holds in the place of a digest."""

_PAGE = 1000


def chain_digest(
    before: str,
    *,
    number: int,
    time_ms: int,
    actor: str,
    action: str,
    subject: str,
    status: int,
) -> str:
    """The digest of an entry that follows one with the digest `before`."""
    parts = [before, number, time_ms, actor, action, subject, status]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def broken_at(entries: Iterable[AuditEntry]) -> int | None:
    """The first number at which a whole trail was changed, or None.

    What was cut off at its end does not show here: keep the last digest elsewhere, and compare.
    """
    before, expected = FIRST, 1
    for entry in entries:
        digest = chain_digest(
            before,
            number=entry.number,
            time_ms=entry.time_ms,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            status=entry.status,
        )
        if entry.number != expected or entry.chain != digest:
            return expected
        before, expected = entry.chain, expected + 1
    return None


def all_entries(accounts: AccountStore) -> Iterator[AuditEntry]:
    """The whole trail, in order."""
    after = 0
    while page := accounts.audit(after=after, limit=_PAGE):
        yield from page
        after = page[-1].number
