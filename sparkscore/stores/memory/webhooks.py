"""Webhooks in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from sparkscore.records import Delivery, Webhook
from sparkscore.stores.webhooks_base import no_webhook


class MemoryWebhookStore:
    """Webhooks of one process; safe between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_id: dict[str, Webhook] = {}
        self._deliveries: dict[str, Delivery] = {}

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
            left = self._deliveries.values()
            self._deliveries = {it.delivery_id: it for it in left if it.webhook_id != webhook_id}

    def add_deliveries(self, deliveries: Sequence[Delivery], *, max_waiting: int) -> int:
        """See WebhookStore."""
        with self._lock:
            kept = deliveries[: max(0, max_waiting - len(self._deliveries))]
            for delivery in kept:
                if delivery.webhook_id in self._by_id:
                    self._deliveries[delivery.delivery_id] = delivery
        return len(kept)

    def next_delivery_ms(self) -> int | None:
        """See WebhookStore."""
        with self._lock:
            return min((it.due_ms for it in self._deliveries.values()), default=None)

    def claim_delivery(self, now_ms: int, until_ms: int) -> Delivery | None:
        """See WebhookStore."""
        with self._lock:
            due = [it for it in self._deliveries.values() if it.due_ms <= now_ms]
            if not due:
                return None
            first = min(due, key=lambda it: (it.due_ms, it.delivery_id))
            claimed = replace(first, due_ms=until_ms)
            self._deliveries[first.delivery_id] = claimed
            return claimed

    def postpone_delivery(self, delivery_id: str, due_ms: int) -> None:
        """See WebhookStore."""
        with self._lock:
            known = self._deliveries.get(delivery_id)
            if known is not None:
                later = replace(known, n_failed=known.n_failed + 1, due_ms=due_ms)
                self._deliveries[delivery_id] = later

    def drop_delivery(self, delivery_id: str) -> None:
        """See WebhookStore."""
        with self._lock:
            self._deliveries.pop(delivery_id, None)
