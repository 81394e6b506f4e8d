"""Reading ahead keeps order, is bounded by bytes, and ends with its block."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from sparkscore.files.prefetch import read_ahead

N_BYTES = 8 * 1024


def batch(value: int) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array([value] * 1024, pa.int64())})


class Slow:
    """Batches that tell how many of them were taken, and when another one is asked for."""

    def __init__(self, n_batches: int) -> None:
        self.n_batches = n_batches
        self.n_taken = 0
        self.asked = threading.Semaphore(0)

    def each(self) -> Iterator[pa.RecordBatch]:
        for i in range(self.n_batches):
            self.n_taken = i + 1
            self.asked.release()
            yield batch(i)


def values(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [each["x"][0].as_py() for each in batches]


@pytest.mark.parametrize("max_bytes", [1, 3 * N_BYTES, 2**30])
def test_batches_come_in_order_and_all_of_them(max_bytes: int) -> None:
    with read_ahead(Slow(20).each(), max_bytes) as ahead:
        assert values(ahead) == [*range(20)]


def test_what_waits_is_bounded_by_bytes() -> None:
    slow = Slow(20)
    with read_ahead(slow.each(), 3 * N_BYTES) as ahead:
        for _ in range(4):  # Three wait, and the fourth is held by the thread.
            assert slow.asked.acquire(timeout=60)
        assert not slow.asked.acquire(timeout=0.1)
        next(ahead)
        assert slow.asked.acquire(timeout=60)
        assert not slow.asked.acquire(timeout=0.1)
    assert slow.n_taken == 5


def test_error_of_the_reader_comes_after_the_batches_before_it() -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield batch(1)
        raise OSError("gone")

    with read_ahead(failing(), 2**30) as ahead:
        assert next(ahead)["x"][0].as_py() == 1
        with pytest.raises(OSError, match="gone"):
            next(ahead)


def test_thread_has_ended_when_the_block_is_left_early() -> None:
    slow = Slow(20)
    with read_ahead(slow.each(), 1) as ahead:
        next(ahead)
        assert readers()
    assert readers() == []
    assert slow.n_taken < 20


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-ahead"]
