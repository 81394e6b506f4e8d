"""Webhooks: who is told of an event, and the telling."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from sparkscore.errors import RecordNotFoundError, SparkscoreError, StoreUnavailableError
from sparkscore.records import Delivery, Webhook, WebhookEvent, WebhookStatus
from sparkscore.server.webhook_addresses import (
    Destination,
    Resolve,
    admitted_address,
    parse_destination,
    resolve_by_system,
)
from sparkscore.server.webhook_posting import Posted, post, signed_headers
from sparkscore.server.webhook_queue import DeliveryQueue, Schedule, named
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
        schedule: When and how deliveries are tried.
        resolve: Tells a host's addresses.
        clock: Milliseconds since the epoch, in UTC.
    """

    store: WebhookStore
    secrets: WebhookSecrets
    allowed_hosts: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    resolve: Resolve = resolve_by_system
    clock: Clock = system_clock

    @cached_property
    def queue(self) -> DeliveryQueue:
        """What delivers in the background."""
        return DeliveryQueue(self.store, self._attempt, self.schedule, self.clock)

    def check_url(self, url: str) -> None:
        """Refuse a URL that nothing may be sent to.

        Raises:
            UsageError: It does not parse, or leads to an address that is not public.
        """
        self._address(parse_destination(url))

    def announce(self, event: WebhookEvent, data: Data) -> None:
        """Have all webhooks told of an event; once this returns, that outlives the process.

        Unless the store is away, which holds up no caller: then memory keeps the event till it is
        back. Where no webhook asks for the event, nothing is written.
        """
        body = _body(event, data, self.clock()).decode()

        def spread() -> None:
            found = [it for it in self.store.list_webhooks() if _is_told(it, event)]
            if found:
                self.queue.put([self._delivery(webhook, event, body) for webhook in found])

        try:
            spread()
        except StoreUnavailableError:
            self.queue.put_later(spread, f"event {_named(event)}")

    def send(self, webhook: Webhook, event: WebhookEvent, data: Data) -> Posted:
        """Tell one webhook of an event, now and once.

        Raises:
            ConfigError: Its secret does not decrypt.
            MissingExtraError: It has a secret, and cryptography is not installed.
        """
        return self._post(webhook, _body(event, data, self.clock()), str(uuid.uuid4()))

    def start(self) -> None:
        """Deliver from now on what other processes have left, too."""
        self.queue.start()

    def close(self) -> None:
        """Deliver what is due, for at most four seconds; what is left waits for the next start."""
        self.queue.close(_DRAIN_S)

    def _delivery(self, webhook: Webhook, event: WebhookEvent, body: str) -> Delivery:
        return Delivery(
            delivery_id=str(uuid.uuid4()),
            webhook_id=webhook.webhook_id,
            event=_named(event),
            body=body,
            due_ms=self.clock(),
        )

    def _attempt(self, delivery: Delivery) -> bool:
        """One try; True: done with, well or not."""
        try:
            webhook = self.store.get_webhook(delivery.webhook_id)
            if webhook.status is not WebhookStatus.ACTIVE:
                return True
            posted = self._post(webhook, delivery.body.encode(), delivery.delivery_id)
        except RecordNotFoundError:
            return True
        except StoreUnavailableError as exc:
            _LOG.warning("%s failed: %s", named(delivery), exc)
            return False
        except SparkscoreError as exc:
            _LOG.warning("%s is given up: %s", named(delivery), exc)
            return True
        if posted.is_taken:
            return True
        _LOG.warning("%s failed: %s", named(delivery), posted.error)
        return not posted.may_succeed_later

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


def _is_told(webhook: Webhook, event: WebhookEvent) -> bool:
    return webhook.status is WebhookStatus.ACTIVE and event in webhook.events
