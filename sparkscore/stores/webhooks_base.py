"""The seam behind which a server's webhooks are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sparkscore.errors import RecordNotFoundError, shown
from sparkscore.records import Webhook


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
        """Remove a webhook.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...


def no_webhook(webhook_id: str) -> RecordNotFoundError:
    """The error of a webhook that is not there."""
    return RecordNotFoundError(
        f"Webhook with ID {shown(webhook_id)} not found: list the webhooks to see which there are"
    )
