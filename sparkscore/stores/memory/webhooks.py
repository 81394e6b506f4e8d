"""Webhooks in memory."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from sparkscore.records import Webhook
from sparkscore.stores.webhooks_base import no_webhook


class MemoryWebhookStore:
    """Webhooks of one process; safe between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_id: dict[str, Webhook] = {}

    def add_webhook(self, webhook: Webhook) -> None:
        """See WebhookStore."""
        with self._lock:
            self._by_id[webhook.webhook_id] = webhook

    def replace_webhook(self, webhook: Webhook) -> None:
        """See WebhookStore."""
        with self._lock:
            if webhook.webhook_id not in self._by_id:
                raise no_webhook(webhook.webhook_id)
            self._by_id[webhook.webhook_id] = webhook

    def get_webhook(self, webhook_id: str) -> Webhook:
        """See WebhookStore."""
        with self._lock:
            if webhook_id not in self._by_id:
                raise no_webhook(webhook_id)
            return self._by_id[webhook_id]

    def list_webhooks(self) -> Sequence[Webhook]:
        """See WebhookStore."""
        with self._lock:
            kept = list(self._by_id.values())
        return sorted(kept, key=lambda it: (it.creation_time_ms, it.webhook_id))

    def delete_webhook(self, webhook_id: str) -> None:
        """See WebhookStore."""
        with self._lock:
            if self._by_id.pop(webhook_id, None) is None:
                raise no_webhook(webhook_id)
