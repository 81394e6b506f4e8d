"""Deliveries are tried by the threads of several processes, each once if all goes well."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sparkscore.records import Delivery, Webhook, WebhookStatus
from sparkscore.server.webhook_queue import DeliveryQueue, Schedule
from sparkscore.stores.base import system_clock
from sparkscore.stores.memory import MemoryWebhookStore
from sparkscore.stores.sql import open_sql
from sparkscore.stores.webhooks_base import WebhookStore


def with_webhook(store: WebhookStore) -> None:
    store.add_webhook(
        Webhook(
            webhook_id="w",
            name="hook",
            url="http://localhost/",
            events=(),
            status=WebhookStatus.ACTIVE,
            creation_time_ms=1,
            last_update_time_ms=1,
        )
    )


def delivery(name: str, webhook_id: str = "w") -> Delivery:
    return Delivery(name, webhook_id, "MODEL_VERSION.CREATED", "{}", due_ms=0)


@pytest.fixture
def store() -> MemoryWebhookStore:
    store = MemoryWebhookStore()
    with_webhook(store)
    return store


def test_a_full_queue_drops_what_comes_on_top_and_says_so(
    store: MemoryWebhookStore, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    started, may_go = threading.Event(), threading.Event()

    def attempt(it: Delivery) -> bool:
        started.set()
        done.append(it.delivery_id)
        return may_go.wait(20)

    queue = DeliveryQueue(store, attempt, Schedule(max_waiting=2, n_threads=1), system_clock)
    queue.put([delivery("first")])
    assert started.wait(20)
    queue.put([delivery(name) for name in ("second", "third")])
    may_go.set()
    queue.close(20)
    assert done == ["first", "second"]
    assert "delivery third of MODEL_VERSION.CREATED to webhook w is dropped" in caplog.text


def test_a_try_that_raises_ends_neither_its_thread_nor_the_others(
    store: MemoryWebhookStore, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def attempt(it: Delivery) -> bool:
        if it.delivery_id == "first":
            raise RuntimeError("a bug")
        done.append(it.delivery_id)
        return True

    queue = DeliveryQueue(store, attempt, Schedule(n_threads=1), system_clock)
    queue.put([delivery("first"), delivery("second")])
    queue.close(20)
    assert done == ["second"]
    assert "delivery first" in caplog.text
    assert store.next_delivery_ms() is None


def test_processes_over_one_database_send_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with_webhook(open_sql(url, "file:///a").webhooks)
    names = [f"d{number:02}" for number in range(40)]
    done: list[str] = []

    def attempt(it: Delivery) -> bool:
        done.append(it.delivery_id)
        return True

    queues = [
        DeliveryQueue(open_sql(url, "file:///a").webhooks, attempt, Schedule(), system_clock)
        for _ in range(3)
    ]
    for queue in queues[1:]:
        queue.start()
    for name in names:
        queues[0].put([delivery(name)])
    for queue in queues:
        queue.close(30)
    assert sorted(done) == names


def test_what_a_dead_process_has_claimed_is_taken_over(store: MemoryWebhookStore) -> None:
    now_ms = [1000]
    store.add_deliveries([delivery("d")], max_waiting=9)
    assert store.claim_delivery(1000, 31_000) is not None
    done: list[str] = []

    def attempt(it: Delivery) -> bool:
        done.append(it.delivery_id)
        return True

    schedule = Schedule(poll_s=0.01)
    for time_ms, expected in ((30_999, []), (31_000, ["d"])):
        now_ms[0] = time_ms
        queue = DeliveryQueue(store, attempt, schedule, lambda: now_ms[0])
        queue.start()
        queue.close(20)
        assert done == expected
