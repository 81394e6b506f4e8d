"""What every WebhookStore does; tests subclass `WebhookStoreContract`."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from sparkscore.errors import RecordNotFoundError
from sparkscore.records import (
    Webhook,
    WebhookAction,
    WebhookEntity,
    WebhookEvent,
    WebhookStatus,
)
from sparkscore.stores.webhooks_base import WebhookStore

_TAG_SET = WebhookEvent(WebhookEntity.MODEL_VERSION_TAG, WebhookAction.SET)
_CREATED = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
_HOOK = Webhook(
    webhook_id="w-1",
    name="deploy",
    url="https://example.org/hook?a=ü",
    events=(_TAG_SET, _CREATED),
    status=WebhookStatus.DISABLED,
    creation_time_ms=2,
    last_update_time_ms=3,
    description="of the release",
    sealed_secret="c2VhbGVk",  # noqa: S106 - stands for any text
)


class WebhookStoreContract:
    """Subclass with `implementation` and a fixture `store`."""

    implementation: ClassVar[type]

    def test_a_webhook_is_kept_as_it_was_given(self, store: WebhookStore) -> None:
        store.add_webhook(_HOOK)
        assert store.get_webhook("w-1") == _HOOK

    def test_all_are_listed_the_oldest_first(self, store: WebhookStore) -> None:
        newer = replace(_HOOK, webhook_id="w-0", creation_time_ms=3)
        twin = replace(_HOOK, webhook_id="w-00")
        for webhook in (newer, _HOOK, twin):
            store.add_webhook(webhook)
        assert store.list_webhooks() == [twin, _HOOK, newer]

    def test_one_takes_the_place_of_another_and_leaves_the_rest(self, store: WebhookStore) -> None:
        other = replace(_HOOK, webhook_id="w-2")
        changed = replace(_HOOK, events=(_CREATED,), status=WebhookStatus.ACTIVE, sealed_secret="")
        store.add_webhook(_HOOK)
        store.add_webhook(other)
        store.replace_webhook(changed)
        assert store.list_webhooks() == [changed, other]

    def test_a_deleted_one_is_gone(self, store: WebhookStore) -> None:
        store.add_webhook(_HOOK)
        store.delete_webhook("w-1")
        assert store.list_webhooks() == []

    def test_one_that_is_not_there_is_named(self, store: WebhookStore) -> None:
        with pytest.raises(RecordNotFoundError, match="w-1"):
            store.get_webhook("w-1")
        with pytest.raises(RecordNotFoundError, match="w-1"):
            store.delete_webhook("w-1")
        with pytest.raises(RecordNotFoundError, match="w-1"):
            store.replace_webhook(_HOOK)
        assert store.list_webhooks() == []

    def test_the_secret_is_not_in_what_is_printed(self) -> None:
        assert _HOOK.sealed_secret not in repr(_HOOK)
