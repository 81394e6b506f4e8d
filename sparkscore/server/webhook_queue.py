"""Deliveries in the background: noted in the store, tried by a few threads, and again if they fail.

What is noted outlives the process. All processes over one store share the deliveries: who tries one
claims it for a while, so that another takes it only where the first has died on the way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparkscore.errors import SparkscoreError
from sparkscore.records import Delivery
from sparkscore.stores.base import Clock
from sparkscore.stores.webhooks_base import WebhookStore

_LOG = logging.getLogger(__name__)
_MS = 1000

Attempt = Callable[[Delivery], bool]
"""One try; True: done with, well or not. False: worth another try."""


@dataclass(frozen=True)
class Schedule:
    """When and how deliveries are tried.

    Attributes:
        waits_s: Before the second try, the third, and so on; their number ends the tries.
        n_threads: How many are tried at once; one slow receiver must not hold all others up.
        max_waiting: How many may wait, of all processes; what comes on top is logged and dropped,
            so that a receiver that is away cannot fill the database.
        claim_s: How long a try may take before another process takes the delivery over.
        poll_s: How often a process looks for what others have left.
    """

    waits_s: Sequence[float] = (1, 5, 25, 120, 600)
    n_threads: int = 4
    max_waiting: int = 10_000
    claim_s: float = 30
    poll_s: float = 15


class DeliveryQueue:
    """The deliveries of a store with the threads of this process, which start when there is one."""

    def __init__(
        self, store: WebhookStore, attempt: Attempt, schedule: Schedule, clock: Clock
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._schedule = schedule
        self._clock = clock
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._left: deque[Callable[[], None]] = deque()
        self._n_put = 0
        self._is_closing = False
        self._is_away = False

    def start(self) -> None:
        """Look from now on for deliveries that another process has left."""
        self._add_thread(at_most=1)

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries, which are tried soon; once this returns they outlive the process.

        Raises:
            StoreUnavailableError: The store did not answer; nothing was noted.
        """
        n_kept = self._store.add_deliveries(deliveries, max_waiting=self._schedule.max_waiting)
        for dropped in deliveries[n_kept:]:
            _LOG.warning(
                "%s is dropped: %d deliveries wait", named(dropped), self._schedule.max_waiting
            )
        self._wake()

    def put_later(self, put: Callable[[], None], what: str) -> None:
        """Call what puts deliveries, once the store answers again; until then memory holds it."""
        with self._changed:
            if len(self._left) >= self._schedule.max_waiting:
                _LOG.warning("%s is dropped: the store is away", what)
                return
            self._left.append(put)
        self._wake()

    def close(self, within_s: float) -> None:
        """Try what is due now, and return when that is done or after `within_s`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            threads = list(self._threads)
        end_s = time.monotonic() + within_s
        for thread in threads:
            thread.join(max(0.0, end_s - time.monotonic()))

    def _wake(self) -> None:
        self._add_thread(at_most=self._schedule.n_threads)
        with self._changed:
            self._n_put += 1
            self._changed.notify_all()

    def _add_thread(self, at_most: int) -> None:
        with self._changed:
            if self._is_closing or len(self._threads) >= at_most:
                return
            thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
            self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            n_put = self._n_put
            try:
                self._put_left()
                delivery = self._claim()
                self._tell_away(None)
            except SparkscoreError as exc:
                self._tell_away(exc)
                delivery = None
            if delivery is not None:
                self._add_thread(at_most=self._schedule.n_threads)
                self._deliver(delivery)
            elif not self._rest(n_put):
                return

    def _put_left(self) -> None:
        while True:
            with self._changed:
                if not self._left:
                    return
                put = self._left.popleft()
            try:
                put()
            except SparkscoreError:
                with self._changed:
                    self._left.appendleft(put)
                raise

    def _claim(self) -> Delivery | None:
        due_ms = self._store.next_delivery_ms()
        now_ms = self._clock()
        if due_ms is None or due_ms > now_ms:
            return None
        return self._store.claim_delivery(now_ms, now_ms + round(self._schedule.claim_s * _MS))

    def _rest(self, n_put: int) -> bool:
        """Wait until something may be due; False: the queue closes, and nothing is due."""
        wait_s = self._schedule.poll_s
        if self._left or self._is_away:
            wait_s = min(wait_s, 1.0)
        else:
            try:
                due_ms = self._store.next_delivery_ms()
            except SparkscoreError as exc:
                self._tell_away(exc)
                due_ms = None
            if due_ms is not None:
                wait_s = min(wait_s, max(0.0, (due_ms - self._clock()) / _MS))
        with self._changed:
            if self._is_closing:
                return False
            # Not where something was put since it was looked for.
            if self._n_put == n_put:
                self._changed.wait(wait_s)
            return True

    def _deliver(self, delivery: Delivery) -> None:
        try:
            is_done = self._attempt(delivery)
        except Exception:  # noqa: BLE001 - the outer edge of a thread that must live on
            _LOG.exception("%s failed", named(delivery))
            is_done = True
        try:
            self._settle(delivery, is_done=is_done)
        except SparkscoreError as exc:
            # Whoever finds it when its claim is over sends it once more, under the same id.
            self._tell_away(exc)

    def _settle(self, delivery: Delivery, *, is_done: bool) -> None:
        waits_s = self._schedule.waits_s
        if is_done or delivery.n_failed >= len(waits_s):
            if not is_done:
                _LOG.warning("%s is given up after %d tries", named(delivery), len(waits_s) + 1)
            self._store.drop_delivery(delivery.delivery_id)
            return
        due_ms = self._clock() + round(waits_s[delivery.n_failed] * _MS)
        self._store.postpone_delivery(delivery.delivery_id, due_ms)

    def _tell_away(self, exc: SparkscoreError | None) -> None:
        """Log an outage of the store once, and not at each look."""
        was_away, self._is_away = self._is_away, exc is not None
        if exc is not None and not was_away:
            _LOG.warning("deliveries to webhooks wait for their store: %s", exc)


def named(delivery: Delivery) -> str:
    """A delivery as the log names it."""
    return f"delivery {delivery.delivery_id} of {delivery.event} to webhook {delivery.webhook_id}"
