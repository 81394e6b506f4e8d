from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sparkscore.errors import InvalidStateError, StoreUnavailableError
from sparkscore.log_queue import LogCall, LogQueue
from sparkscore.names import RunId
from sparkscore.records import Metric
from sparkscore.stores.base import RunStore
from sparkscore.stores.memory import MemoryRunStore, open_memory
from sparkscore.testing.clock import ticking_clock

RUN, OTHER = RunId("r1"), RunId("r2")


class CountingStore(MemoryRunStore):
    """Counts batches, and holds the first one back until it is let go."""

    def __init__(self, store: MemoryRunStore) -> None:
        self.__dict__.update(store.__dict__)
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        self.sizes.append(len(metrics))
        super().log_batch(run_id, metrics=metrics, params=params, tags=tags)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CountingStore]:
    store = CountingStore(open_memory(tmp_path.as_uri(), ticking_clock()).runs)
    for run_id in (RUN, OTHER):
        store.create_run("0", run_id=run_id, run_name="r", user_id="", start_time_ms=1)
    yield store
    store.go_on.set()


def point(store: RunStore, step: int, run_id: RunId = RUN) -> LogCall:
    return LogCall(store, run_id, metrics=[Metric("m", float(step), step, step)])


def test_calls_that_wait_are_sent_together_and_in_order(store: CountingStore) -> None:
    queue = LogQueue()
    queue.put(point(store, 0))
    assert store.begun.wait(30)
    for step in range(1, 1500):
        queue.put(point(store, step))
    store.go_on.set()
    queue.flush()
    assert store.sizes[0] == 1
    assert len(store.sizes) <= 4
    assert max(store.sizes) <= 1000
    assert [metric.step for metric in store.metric_history(RUN, "m")] == list(range(1500))


def test_calls_of_two_runs_are_not_mixed(store: CountingStore) -> None:
    queue = LogQueue()
    store.go_on.set()
    for step in range(20):
        queue.put(point(store, step, (RUN, OTHER)[step % 2]))
    queue.flush()
    assert [metric.step for metric in store.metric_history(OTHER, "m")] == list(range(1, 20, 2))


def test_bad_call_takes_no_other_with_it_and_is_raised_once(store: CountingStore) -> None:
    queue = LogQueue()
    queue.put(point(store, 0))
    assert store.begun.wait(30)
    queue.put(LogCall(store, RUN, params={"a": "1", "b": "1"}))
    queue.put(LogCall(store, RUN, params={"a": "2"}))
    queue.put(LogCall(store, RUN, tags={"t": "1"}))
    queue.put(LogCall(store, RUN, tags={"t": "2"}))
    store.go_on.set()
    queue.flush(OTHER)  # tells of its own calls alone
    with pytest.raises(InvalidStateError, match="param 'a'"):
        queue.flush(RUN)
    queue.flush()
    kept = store.get_run(RUN)
    assert (kept.params, kept.tags) == ({"a": "1", "b": "1"}, {"t": "2"})


def test_full_queue_makes_the_caller_wait(store: CountingStore) -> None:
    queue = LogQueue(max_waiting=2)
    queue.put(point(store, 0))
    assert store.begun.wait(30)
    queue.put(point(store, 1))
    queue.put(point(store, 2))
    third = threading.Thread(target=lambda: queue.put(point(store, 3)))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    store.go_on.set()
    third.join(30)
    assert not third.is_alive()
    queue.flush()
    assert len(store.metric_history(RUN, "m")) == 4


def test_forked_child_begins_with_nothing(store: CountingStore) -> None:
    queue = LogQueue()
    queue.put(point(store, 0))
    assert store.begun.wait(30)
    child = os.fork()
    if child == 0:
        queue.flush()  # would wait for ever for a thread that is not in this process
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.go_on.set()
    queue.flush()


def test_store_that_is_away_is_told_of(store: CountingStore) -> None:
    class Away(CountingStore):
        def log_batch(self, *_: object, **__: object) -> None:
            raise StoreUnavailableError("away")

    queue = LogQueue()
    queue.put(point(Away(store), 0))
    with pytest.raises(StoreUnavailableError, match="away"):
        queue.flush()
