"""Work in the background: in a few threads, and again where it failed; no caller waits for it."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)

Attempt = Callable[[], bool]
"""One try; True: done with, well or not. False: worth another try."""


@dataclass(order=True)
class _Job:
    due_s: float
    number: int
    attempt: Attempt = field(compare=False)
    what: str = field(compare=False)
    n_failed: int = field(compare=False, default=0)


class DeliveryQueue:
    """A bounded queue with its threads, which start with the first job.

    Args:
        max_jobs: How many may wait; what comes on top is logged and dropped, so that a receiver
            that is away cannot fill the memory.
        n_threads: How many jobs are tried at once; one slow receiver must not hold all others up.
        waits_s: Before the second try, the third, and so on; their number ends the tries.
    """

    def __init__(
        self,
        *,
        max_jobs: int = 1000,
        n_threads: int = 4,
        waits_s: Sequence[float] = (1, 5, 25),
    ) -> None:
        self._max_jobs = max_jobs
        self._n_threads = n_threads
        self._waits_s = tuple(waits_s)
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._threads: list[threading.Thread] = []
        self._n_put = 0
        self._n_running = 0
        self._is_closing = False

    def put(self, attempt: Attempt, what: str) -> None:
        """Have a job done soon; `what` names it in the log. Returns at once, and never fails."""
        with self._changed:
            if len(self._jobs) >= self._max_jobs:
                _LOG.warning("%s is dropped: %d deliveries are waiting", what, len(self._jobs))
                return
            self._n_put += 1
            heapq.heappush(self._jobs, _Job(time.monotonic(), self._n_put, attempt, what))
            if len(self._threads) < self._n_threads:
                thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def close(self, within_s: float) -> None:
        """Try what is waiting once more, at once, and log what is left after `within_s`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._jobs and not self._n_running, within_s)
            for job in self._jobs:
                _LOG.warning("%s is given up: the server stops", job.what)
            self._jobs.clear()

    def _work(self) -> None:
        while True:
            job = self._next()
            is_done = False
            try:
                is_done = job.attempt()
            except Exception:  # noqa: BLE001 - the outer edge of a thread that must live on
                is_done = True
                _LOG.exception("%s failed", job.what)
            finally:
                self._finish(job, is_done=is_done)

    def _next(self) -> _Job:
        with self._changed:
            while True:
                wait_s = self._jobs[0].due_s - time.monotonic() if self._jobs else None
                if wait_s is not None and (wait_s <= 0 or self._is_closing):
                    self._n_running += 1
                    return heapq.heappop(self._jobs)
                self._changed.wait(wait_s)

    def _finish(self, job: _Job, *, is_done: bool) -> None:
        with self._changed:
            self._n_running -= 1
            if not is_done:
                self._try_again(job)
            self._changed.notify_all()

    def _try_again(self, job: _Job) -> None:
        if self._is_closing or job.n_failed >= len(self._waits_s):
            _LOG.warning("%s is given up after %d tries", job.what, job.n_failed + 1)
            return
        job.due_s = time.monotonic() + self._waits_s[job.n_failed]
        job.n_failed += 1
        heapq.heappush(self._jobs, job)
