"""Reading ahead: the next batches come from a store while the model scores the last one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def read_ahead(
    batches: Iterator[pa.RecordBatch], max_bytes: int
) -> Iterator[Iterator[pa.RecordBatch]]:
    """The same batches in the same order, taken from `batches` by a thread of its own.

    The thread has ended when the block ends, however it ends.

    Args:
        batches: What takes its time to wait for.
        max_bytes: Size of the batches that may wait to be asked for; one waits in any case.
    """
    ahead = _Ahead(batches, max_bytes)
    ahead.start()
    try:
        yield ahead.each()
    finally:
        ahead.stop()


class _Ahead:
    """A queue that is bounded by bytes, and the thread that fills it."""

    def __init__(self, batches: Iterator[pa.RecordBatch], max_bytes: int) -> None:
        self._batches = batches
        self._max_bytes = max_bytes
        self._waiting: deque[pa.RecordBatch] = deque()
        self._n_bytes = 0
        self._changed = threading.Condition()
        self._has_ended = False
        self._is_stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fill, name="read-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join()

    def each(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._has_ended)
                if not self._waiting:
                    if self._error is not None:
                        raise self._error
                    return
                batch = self._waiting.popleft()
                self._n_bytes -= batch.nbytes
                self._changed.notify_all()
            yield batch

    def _fill(self) -> None:
        try:
            for batch in self._batches:
                if not self._put(batch):
                    break
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that asks
            self._error = exc
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _put(self, batch: pa.RecordBatch) -> bool:
        """Add a batch as soon as there is room; False where nobody wants more."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_stopped
                    or not self._waiting
                    or self._n_bytes + batch.nbytes <= self._max_bytes
                )
            )
            if self._is_stopped:
                return False
            self._waiting.append(batch)
            self._n_bytes += batch.nbytes
            self._changed.notify_all()
            return True
