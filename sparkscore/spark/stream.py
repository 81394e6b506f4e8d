"""A streaming query that hands each micro-batch to Python, and ends between two of them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.sql import Observation
from pyspark.sql import functions as sf

from sparkscore.errors import ConfigError, SparkscoreError, shown
from sparkscore.spark.cancellation import is_ending
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.source import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery

_POLL_S = 0.2
_TRIGGERS = "available-now, continuous-service, or an interval such as '10 seconds'"
_INTERVAL = re.compile(r"\d+(\.\d+)? (millisecond|second|minute|hour|day)s?")

OnBatch = Callable[["DataFrame", int], None]
"""Called with the rows of a micro-batch and its number."""
OnProgress = Callable[[Mapping[str, Any]], None]
"""Called with what Spark says of a micro-batch, or of an idle while."""


class _AtBoundaryError(Exception):
    """A batch that was not begun, since the stream shall end."""


def parse_trigger(text: str) -> dict[str, Any]:
    """When batches are begun, as Spark's `trigger` takes it.

    Args:
        text: `available-now`: what is there now, and then the end; `continuous-service`: one batch
            after the other; or an interval.

    Raises:
        ConfigError: It is none of these.
    """
    if text == "available-now":
        return {"availableNow": True}
    if text == "continuous-service":
        return {"processingTime": "0 seconds"}
    if _INTERVAL.fullmatch(text):
        return {"processingTime": text}
    raise ConfigError(f"trigger {shown(text)} is none of: {_TRIGGERS}")


def run_stream(
    frame: DataFrame,
    on_batch: OnBatch,
    *,
    trigger: Mapping[str, Any],
    checkpoint: str,
    name: str,
    on_progress: OnProgress,
    what: str,
) -> None:
    """Run a query until its source is read (available-now), until it fails, or until a signal.

    A signal lets the batch that runs come to its end, and none begins after it; then the signal's
    own exception goes on, unless that batch failed.

    Args:
        frame: A streaming frame.
        on_batch: Has committed a batch when it returns.
        trigger: See `parse_trigger`.
        checkpoint: Where Spark keeps the query's progress.
        name: The query's, in Spark's pages.
        on_progress: Told after each batch, in another thread.
        what: What is going on, for messages.

    Raises:
        SparkscoreError: What `on_batch` raised, or what ended the query.
    """
    stopping, has_stopped = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def handle(batch: DataFrame, number: int) -> None:
        if stopping.is_set():
            has_stopped.set()
            raise _AtBoundaryError
        try:
            on_batch(batch, number)
        except Exception as exc:
            failures.append(exc)
            raise

    def run() -> None:
        writer = frame.writeStream.foreachBatch(handle).queryName(name)
        writer = writer.option("checkpointLocation", checkpoint).trigger(**trigger)
        try:
            query = writer.start()
            try:
                _watch(query, on_progress, stopping)
            finally:
                query.stop()
        except SPARK_FAILURES as exc:
            if not has_stopped.is_set():
                failures.append(exc)
        if not failures:  # Spark may be idle again before it tells that a batch has failed.
            return
        cause = failures[0]
        if isinstance(cause, SparkscoreError):
            raise cause from None
        raise translated(cause, what, is_ending=is_ending(frame.sparkSession)) from cause

    _until_signal(run, stopping)


@contextmanager
def kept(frame: DataFrame) -> Iterator[None]:
    """While it lasts, the rows of a batch are made once, however often they are read."""
    frame.persist()
    try:
        yield
    finally:
        frame.unpersist()


def read_through(frame: DataFrame) -> None:
    """Read a batch for nothing but what its query remembers of it."""
    frame.write.format("noop").mode("overwrite").save()


class EventTimes:
    """When the rows of a batch came to be, found out in the pass that scores them.

    Args:
        frame: A batch.
        column: Its timestamp.
    """

    _SHARES: ClassVar = {"p50": 0.5, "p95": 0.05, "p99": 0.01}

    def __init__(self, frame: DataFrame, column: str) -> None:
        self._observation = Observation()
        shares = [sf.lit(share) for share in self._SHARES.values()]
        micros = sf.unix_micros(sf.col(quoted(column)))
        times = sf.percentile_approx(micros, sf.array(*shares), 10_000)
        self.frame = frame.observe(self._observation, times.alias("times"))

    def ages(self, now_s: float) -> dict[str, float]:
        """Seconds from the event to `now_s`, seconds since 1970; of which share of the rows."""
        times = self._observation.get["times"]
        if times is None:  # No row had a time.
            return {}
        assert isinstance(times, list)
        ages = (now_s - micros / 1e6 for micros in times)
        return dict(zip(self._SHARES, ages, strict=True))


def _watch(query: StreamingQuery, on_progress: OnProgress, stopping: threading.Event) -> None:
    """Tell of each batch until the query ends; stop it where it is idle and shall end.

    Raises:
        StreamingQueryException: It failed.
    """
    told = ""
    while True:
        is_active = query.isActive
        for progress in _news(query, told):
            on_progress(progress)
            told = progress["timestamp"]
        if not is_active:
            break
        if stopping.is_set() and not query.status["isTriggerActive"]:
            return
        query.awaitTermination(_POLL_S)  # type: ignore[arg-type]  # seconds, and parts of them
    query.awaitTermination()


def _news(query: StreamingQuery, told: str) -> list[Mapping[str, Any]]:
    """What Spark has said after the progress of the time `told`, the oldest first.

    Its text, of the new ones alone: PySpark's own `recentProgress` makes objects of the last
    hundred, by some five hundred calls to the JVM a look.
    """
    recent = query._jsq.recentProgress()
    news: list[Mapping[str, Any]] = []
    for place in reversed(range(len(recent))):
        progress = json.loads(recent[place].json())
        if progress["timestamp"] == told:
            break
        news.append(progress)
    return news[::-1]


def _until_signal(action: Callable[[], None], stopping: threading.Event) -> None:
    """Run an action in a thread of its own; see `cancellation.cancellable` for why.

    A second signal does not wait for the batch.
    """
    result: Future[None] = Future()

    def act() -> None:
        try:
            action()
            result.set_result(None)
        except BaseException as exc:  # noqa: BLE001 - handed to the caller's thread
            result.set_exception(exc)

    thread = threading.Thread(target=act, name="sparkscore-stream", daemon=True)
    try:
        thread.start()
        result.result()
    except (KeyboardInterrupt, SystemExit):
        stopping.set()
        if thread.ident is not None:  # Else it has not begun, and will find that it shall end.
            result.result()
        raise
