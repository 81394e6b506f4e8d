"""The seam behind which a server's webhooks are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sparkscore.errors import RecordNotFoundError, shown
from sparkscore.records import Delivery, Webhook


class WebhookStore(Protocol):
    """Webhooks, as they are given. Any call may raise StoreUnavailableError."""

    def add_webhook(self, webhook: Webhook) -> None:
        """Keep a webhook whose id is new."""
        ...

    def replace_webhook(self, webhook: Webhook) -> None:
        """Keep a webhook in the place of the one with its id; who comes last wins.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def get_webhook(self, webhook_id: str) -> Webhook:
        """The webhook of this id.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def list_webhooks(self) -> Sequence[Webhook]:
        """All webhooks, the oldest first, and those of one millisecond by their ids."""
        ...

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook, with its deliveries.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def add_deliveries(self, deliveries: Sequence[Delivery], *, max_waiting: int) -> int:
        """Keep the first of these new deliveries, until so many wait in all; returns how many.

        One whose webhook is gone meanwhile counts as kept, and is not.
        """
        ...

    def next_delivery_ms(self) -> int | None:
        """When the next delivery is due; None: none waits."""
        ...

    def claim_delivery(self, now_ms: int, until_ms: int) -> Delivery | None:
        """The delivery that was due first, by `now_ms`, for this caller alone until `until_ms`.

        It is due again at that time, unless it is dropped or postponed before; None: none is due.
        """
        ...

    def postpone_delivery(self, delivery_id: str, due_ms: int) -> None:
        """Note that a try failed, and when the next one is due; nothing happens if it is gone."""
        ...

    def drop_delivery(self, delivery_id: str) -> None:
        """Remove a delivery that is done with; nothing happens if it is gone."""
        ...


def no_webhook(webhook_id: str) -> RecordNotFoundError:
    """The error of a webhook that is not there."""
    return RecordNotFoundError(
        f"Webhook with ID {shown(webhook_id)} not found: list the webhooks to see which there are"
    )
