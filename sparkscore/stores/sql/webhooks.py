"""Webhooks in a SQL table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from sparkscore.records import (
    Delivery,
    Webhook,
    WebhookAction,
    WebhookEntity,
    WebhookEvent,
    WebhookStatus,
)
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.tables import deliveries as delivery_rows
from sparkscore.stores.sql.tables import webhooks
from sparkscore.stores.webhooks_base import no_webhook


class SqlWebhookStore:
    """Webhooks in a SQL database; safe between threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_webhook(self, webhook: Webhook) -> None:
        """See WebhookStore."""

        def work(connection: Connection) -> None:
            connection.execute(insert(webhooks).values(_row(webhook)))

        self._database.write(work)

    def replace_webhook(self, webhook: Webhook) -> None:
        """See WebhookStore."""
        is_it = webhooks.c.webhook_id == webhook.webhook_id

        def work(connection: Connection) -> None:
            done = connection.execute(update(webhooks).where(is_it).values(_row(webhook)))
            if not done.rowcount:
                raise no_webhook(webhook.webhook_id)

        self._database.write(work)

    def get_webhook(self, webhook_id: str) -> Webhook:
        """See WebhookStore."""
        query = select(webhooks).where(webhooks.c.webhook_id == webhook_id)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise no_webhook(webhook_id)
        return _webhook(row)

    def list_webhooks(self) -> Sequence[Webhook]:
        """See WebhookStore."""
        query = select(webhooks).order_by(webhooks.c.creation_time_ms, webhooks.c.webhook_id)
        with self._database.read() as connection:
            return [_webhook(row) for row in connection.execute(query)]

    def delete_webhook(self, webhook_id: str) -> None:
        """See WebhookStore."""

        def work(connection: Connection) -> None:
            is_it = webhooks.c.webhook_id == webhook_id
            if not connection.execute(delete(webhooks).where(is_it)).rowcount:
                raise no_webhook(webhook_id)

        self._database.write(work)

    def add_deliveries(self, deliveries: Sequence[Delivery], *, max_waiting: int) -> int:
        """See WebhookStore."""

        def work(connection: Connection) -> int:
            n_waiting = connection.scalar(select(func.count()).select_from(delivery_rows)) or 0
            kept = deliveries[: max(0, max_waiting - n_waiting)]
            wanted = {it.webhook_id for it in kept}
            # Held, so that none of them is deleted before this is committed.
            query = select(webhooks.c.webhook_id).where(webhooks.c.webhook_id.in_(wanted))
            there = set(connection.scalars(query.with_for_update(read=True)))
            rows = [asdict(it) for it in kept if it.webhook_id in there]
            if rows:
                connection.execute(insert(delivery_rows), rows)
            return len(kept)

        return self._database.write(work)

    def next_delivery_ms(self) -> int | None:
        """See WebhookStore."""
        with self._database.read() as connection:
            due_ms: int | None = connection.scalar(select(func.min(delivery_rows.c.due_ms)))
        return due_ms

    def claim_delivery(self, now_ms: int, until_ms: int) -> Delivery | None:
        """See WebhookStore."""
        it = delivery_rows.c
        query = select(delivery_rows).where(it.due_ms <= now_ms).order_by(it.due_ms, it.delivery_id)

        def work(connection: Connection) -> Delivery | None:
            row = connection.execute(query.limit(1).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            claimed = replace(_delivery(row), due_ms=until_ms)
            _change(connection, claimed.delivery_id, due_ms=until_ms)
            return claimed

        return self._database.write(work)

    def postpone_delivery(self, delivery_id: str, due_ms: int) -> None:
        """See WebhookStore."""

        def work(connection: Connection) -> None:
            _change(connection, delivery_id, n_failed=delivery_rows.c.n_failed + 1, due_ms=due_ms)

        self._database.write(work)

    def drop_delivery(self, delivery_id: str) -> None:
        """See WebhookStore."""
        is_it = delivery_rows.c.delivery_id == delivery_id

        def work(connection: Connection) -> None:
            connection.execute(delete(delivery_rows).where(is_it))

        self._database.write(work)


def _row(webhook: Webhook) -> dict[str, object]:
    events = " ".join(f"{event.entity}.{event.action}" for event in webhook.events)
    return {
        "webhook_id": webhook.webhook_id,
        "name": webhook.name,
        "url": webhook.url,
        "events": events,
        "status": webhook.status,
        "creation_time_ms": webhook.creation_time_ms,
        "last_update_time_ms": webhook.last_update_time_ms,
        "description": webhook.description,
        "sealed_secret": webhook.sealed_secret,
    }


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        name=row.name,
        url=row.url,
        events=tuple(_event(word) for word in row.events.split()),
        status=WebhookStatus(row.status),
        creation_time_ms=row.creation_time_ms,
        last_update_time_ms=row.last_update_time_ms,
        description=row.description,
        sealed_secret=row.sealed_secret,
    )


def _event(word: str) -> WebhookEvent:
    entity, _, action = word.partition(".")
    return WebhookEvent(WebhookEntity(entity), WebhookAction(action))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        delivery_id=row.delivery_id,
        webhook_id=row.webhook_id,
        event=row.event,
        body=row.body,
        due_ms=row.due_ms,
        n_failed=row.n_failed,
    )


def _change(connection: Connection, delivery_id: str, **values: object) -> None:
    is_it = delivery_rows.c.delivery_id == delivery_id
    connection.execute(update(delivery_rows).where(is_it).values(**values))
