"""Records that are sent in the background, so that a training does not wait for a server."""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparkscore.errors import SparkscoreError
from sparkscore.names import RunId
from sparkscore.records import Metric
from sparkscore.stores.base import RunStore

_MAX_WAITING = 10_000
"""Calls; of a store that is slower than the training, the training then waits."""
_MAX_METRICS = 1000
_MAX_PAIRS = 100


@dataclass(frozen=True)
class LogCall:
    """A call of RunStore.log_batch."""

    runs: RunStore
    run_id: RunId
    metrics: Sequence[Metric] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def send(self) -> None:
        """Make the call."""
        self.runs.log_batch(self.run_id, metrics=self.metrics, params=self.params, tags=self.tags)

    def joined(self, later: LogCall) -> LogCall | None:
        """This call and a later one as one, or None where they are better sent apart."""
        metrics = [*self.metrics, *later.metrics]
        params = {**self.params, **later.params}
        tags = {**self.tags, **later.tags}
        is_same_run = self.runs is later.runs and self.run_id == later.run_id
        # A param with another value shall be refused, and not be lost here.
        is_sound = all(params[key] == value for key, value in self.params.items())
        fits = len(metrics) <= _MAX_METRICS and max(len(params), len(tags)) <= _MAX_PAIRS
        if not (is_same_run and is_sound and fits):
            return None
        return replace(self, metrics=metrics, params=params, tags=tags)


class LogQueue:
    """Calls in their order, sent by one thread, many small ones as one.

    The thread starts with the first call. What waits when the process ends is sent before it
    does; a forked child begins with nothing.
    """

    def __init__(self, max_waiting: int = _MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._pid = 0
        self._waiting: queue.Queue[LogCall]
        self._errors: list[tuple[LogCall, SparkscoreError]] = []

    def put(self, call: LogCall) -> None:
        """Have a call made later; waits while the queue is full."""
        with self._lock:
            if self._pid != os.getpid():
                self._start()
        self._waiting.put(call)

    def flush(self, run_id: RunId | None = None) -> None:
        """Wait until all that was put is sent.

        Args:
            run_id: Tell only of this run's calls; None: of all.

        Raises:
            SparkscoreError: The first error of a call since the last flush that told of it.
        """
        if self._pid != os.getpid():
            return
        self._waiting.join()
        with self._lock:
            told = [item for item in self._errors if run_id in (None, item[0].run_id)]
            self._errors = [item for item in self._errors if item not in told]
        if told:
            raise told[0][1]

    def _start(self) -> None:
        self._waiting = queue.Queue(self._max_waiting)
        self._errors = []
        self._pid = os.getpid()
        # A daemon: what it has not sent is waited for below, and never for ever by Python itself.
        threading.Thread(target=self._run, name="sparkscore-log", daemon=True).start()
        atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            calls = [self._waiting.get()]
            while len(calls) < _MAX_METRICS and not self._waiting.empty():
                calls.append(self._waiting.get())
            try:
                for group in _joined(calls):
                    self._send(group)
            finally:
                for _ in calls:
                    self._waiting.task_done()

    def _send(self, group: list[LogCall]) -> None:
        whole = group[0]
        for call in group[1:]:
            whole = whole.joined(call) or whole
        try:
            whole.send()
        except SparkscoreError as exc:
            if len(group) == 1:
                with self._lock:
                    self._errors.append((whole, exc))
                return
            # One bad call must not take the others with it.
            for call in group:
                self._send([call])


def _joined(calls: Sequence[LogCall]) -> Iterator[list[LogCall]]:
    """Calls in their order, in groups that can be sent as one."""
    group: list[LogCall] = []
    whole: LogCall | None = None
    for call in calls:
        joined = None if whole is None else whole.joined(call)
        if joined is None and group:
            yield group
            group = []
        whole = joined or call
        group.append(call)
    yield group


BACKGROUND = LogQueue()
"""The queue of this process."""
