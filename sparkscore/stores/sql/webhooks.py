"""Webhooks in a SQL table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sparkscore.records import (
    Webhook,
    WebhookAction,
    WebhookEntity,
    WebhookEvent,
    WebhookStatus,
)
from sparkscore.stores.sql.database import Database
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
