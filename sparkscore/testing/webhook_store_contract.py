"""What every WebhookStore does; tests subclass `WebhookStoreContract`."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from sparkscore.errors import RecordNotFoundError
from sparkscore.records import (
    Delivery,
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

    def test_a_delivery_is_claimed_by_one_until_its_time_is_over(self, store: WebhookStore) -> None:
        store.add_webhook(_HOOK)
        assert store.next_delivery_ms() is None
        assert store.claim_delivery(10, 20) is None
        later, first = _delivery("d-1", 5), _delivery("d-2", 4)
        assert store.add_deliveries([later, first], max_waiting=9) == 2
        assert store.next_delivery_ms() == 4
        assert store.claim_delivery(3, 20) is None
        assert store.claim_delivery(4, 20) == replace(first, due_ms=20)
        assert store.claim_delivery(10, 21) == replace(later, due_ms=21)
        assert store.claim_delivery(19, 40) is None
        assert store.next_delivery_ms() == 20
        assert store.claim_delivery(20, 40) == replace(first, due_ms=40)

    def test_a_postponed_delivery_counts_its_failures_and_a_dropped_one_is_gone(
        self, store: WebhookStore
    ) -> None:
        store.add_webhook(_HOOK)
        store.add_deliveries([_delivery("d-1"), _delivery("d-2", 100)], max_waiting=9)
        for n_failed, due_ms in ((1, 30), (2, 50)):
            store.postpone_delivery("d-1", due_ms)
            assert store.next_delivery_ms() == due_ms
            again = store.claim_delivery(due_ms, due_ms + 1)
            assert again == replace(_delivery("d-1", due_ms + 1), n_failed=n_failed)
        for _ in range(2):
            store.drop_delivery("d-1")
            assert store.next_delivery_ms() == 100
        store.postpone_delivery("d-1", 7)
        assert store.next_delivery_ms() == 100

    def test_no_more_wait_than_may(self, store: WebhookStore) -> None:
        store.add_webhook(_HOOK)
        assert store.add_deliveries([_delivery(f"a-{i}") for i in range(3)], max_waiting=2) == 2
        assert store.add_deliveries([_delivery("b")], max_waiting=2) == 0
        store.drop_delivery("a-0")
        assert store.add_deliveries([_delivery("c")], max_waiting=2) == 1
        found = [store.claim_delivery(1, 2) for _ in range(3)]
        assert [it and it.delivery_id for it in found] == ["a-1", "c", None]

    def test_deliveries_go_with_their_webhook(self, store: WebhookStore) -> None:
        other = replace(_HOOK, webhook_id="w-2")
        for webhook in (_HOOK, other):
            store.add_webhook(webhook)
        theirs = replace(_delivery("d-2"), webhook_id="w-2")
        store.add_deliveries([_delivery("d-1"), theirs], max_waiting=9)
        store.delete_webhook("w-1")
        assert store.add_deliveries([_delivery("d-3")], max_waiting=9) == 1
        assert [store.claim_delivery(1, 2), store.claim_delivery(1, 2)] == [
            replace(theirs, due_ms=2),
            None,
        ]


def _delivery(delivery_id: str, due_ms: int = 0) -> Delivery:
    body = '{"data":"ü"}'
    return Delivery(delivery_id, "w-1", "MODEL_VERSION.CREATED", body, due_ms=due_ms)
