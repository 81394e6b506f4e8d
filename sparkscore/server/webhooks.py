"""Webhooks: who is told of an event, and the telling."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sparkscore.errors import SparkscoreError, StoreUnavailableError
from sparkscore.records import Webhook, WebhookEvent, WebhookStatus
from sparkscore.server.webhook_addresses import (
    Destination,
    Resolve,
    admitted_address,
    parse_destination,
    resolve_by_system,
)
from sparkscore.server.webhook_posting import Posted, post, signed_headers
from sparkscore.server.webhook_queue import DeliveryQueue
from sparkscore.server.webhook_secrets import WebhookSecrets
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.webhooks_base import WebhookStore

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 10
_DRAIN_S = 4

Data = Mapping[str, object]
"""What an event is about, as JSON."""


@dataclass(frozen=True)
class Webhooks:
    """All that webhooks need.

    Attributes:
        store: Where they are kept.
        secrets: What their secrets are encrypted by.
        allowed_hosts: Hosts, in lower case, whose addresses need not be public.
        queue: What delivers in the background.
        resolve: Tells a host's addresses.
        clock: Milliseconds since the epoch, in UTC.
    """

    store: WebhookStore
    secrets: WebhookSecrets
    allowed_hosts: tuple[str, ...] = ()
    queue: DeliveryQueue = field(default_factory=DeliveryQueue)
    resolve: Resolve = resolve_by_system
    clock: Clock = system_clock

    def check_url(self, url: str) -> None:
        """Refuse a URL that nothing may be sent to.

        Raises:
            UsageError: It does not parse, or leads to an address that is not public.
        """
        self._address(parse_destination(url))

    def announce(self, event: WebhookEvent, data: Data) -> None:
        """Tell all webhooks of an event, in the background; returns at once, and never fails."""
        body = _body(event, data, self.clock())
        self.queue.put(lambda: self._spread(event, body), f"event {_named(event)}")

    def send(self, webhook: Webhook, event: WebhookEvent, data: Data) -> Posted:
        """Tell one webhook of an event, now and once.

        Raises:
            ConfigError: Its secret does not decrypt.
            MissingExtraError: It has a secret, and cryptography is not installed.
        """
        return self._post(webhook, _body(event, data, self.clock()), _new_id())

    def close(self) -> None:
        """Deliver what is waiting, for at most four seconds."""
        self.queue.close(_DRAIN_S)

    def _spread(self, event: WebhookEvent, body: bytes) -> bool:
        """Queue a delivery for each webhook of an event; asks the store, so that no caller must."""
        try:
            webhooks = self.store.list_webhooks()
        except StoreUnavailableError:
            return False
        for webhook in webhooks:
            if webhook.status is WebhookStatus.ACTIVE and event in webhook.events:
                self._queue_one(webhook, body, _named(event))
        return True

    def _queue_one(self, webhook: Webhook, body: bytes, event: str) -> None:
        delivery_id = _new_id()
        what = f"delivery {delivery_id} of {event} to webhook {webhook.webhook_id}"

        def attempt() -> bool:
            try:
                posted = self._post(webhook, body, delivery_id)
            except SparkscoreError as exc:
                _LOG.warning("%s is given up: %s", what, exc)
                return True
            if posted.is_taken:
                return True
            _LOG.warning("%s failed: %s", what, posted.error)
            return not posted.may_succeed_later

        self.queue.put(attempt, what)

    def _post(self, webhook: Webhook, body: bytes, delivery_id: str) -> Posted:
        secret = self.secrets.unseal(webhook.sealed_secret, webhook.webhook_id)
        destination = parse_destination(webhook.url)
        try:
            # Again, and for each try: since it was made, the name may have come to mean another.
            address = self._address(destination)
        except SparkscoreError as exc:
            return Posted(0, error=str(exc))
        headers = signed_headers(body, delivery_id, self.clock() // 1000, secret)
        return post(destination, address, body, headers, _TIMEOUT_S)

    def _address(self, destination: Destination) -> str:
        return admitted_address(destination, self.allowed_hosts, self.resolve)


def _body(event: WebhookEvent, data: Data, time_ms: int) -> bytes:
    """The JSON of a delivery; its time is when the event was, whenever it arrives."""
    told = {
        "entity": event.entity.value.lower(),
        "action": event.action.value.lower(),
        "timestamp": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(),
        "data": data,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _named(event: WebhookEvent) -> str:
    return f"{event.entity}.{event.action}"


def _new_id() -> str:
    return str(uuid.uuid4())
