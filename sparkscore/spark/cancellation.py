"""Spark work that a signal can stop: what it began is cancelled before the signal goes on."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from py4j.protocol import Py4JError

from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.shipping import is_connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CANCEL_S = 15.0
"""Longest wait for Spark to give up; an orchestrator kills what outlives its own 30 s."""
_AGAIN_S = 0.5
"""One write is several Spark jobs: a cancel that falls between two of them is repeated."""

_Result = TypeVar("_Result")


def cancellable(spark: SparkSession, action: Callable[[], _Result]) -> _Result:
    """What `action` returns; where a signal breaks into the wait, its Spark jobs are cancelled.

    The action runs in a thread of its own: a thread that a signal pulls out of a call to the JVM
    leaves an answer unread on its connection, and could neither cancel nor stop anything after it.

    Args:
        spark: The session that the action works with; classic or Connect.
        action: Anything that waits for Spark.
    """
    tag = f"sparkscore-{uuid.uuid4().hex}"
    result: Future[_Result] = Future()

    def act() -> None:
        try:
            _tag(spark, tag)  # Tags belong to a thread, so this one needs no clean-up.
            result.set_result(action())
        except BaseException as exc:  # noqa: BLE001 - handed to the caller's thread
            result.set_exception(exc)

    threading.Thread(target=act, name="sparkscore-spark", daemon=True).start()
    try:
        return result.result()
    except (KeyboardInterrupt, SystemExit):
        # In a thread too: a Connect client tries a server that is gone again and again.
        cancelling = threading.Thread(target=_cancel, args=(spark, tag, result), daemon=True)
        cancelling.start()
        cancelling.join(_CANCEL_S)
        raise


def is_ending(spark: SparkSession) -> bool:
    """Whether the driver's JVM is gone or on its way out, as after a signal to it.

    What fails in such a JVM says anything but that. A Connect client cannot ask its server.
    """
    if is_connect(spark):
        return False
    context = spark.sparkContext
    try:
        hooks = context._jvm.org.apache.spark.util.ShutdownHookManager  # type: ignore[union-attr]
        return bool(hooks.inShutdown()) or bool(context._jsc.sc().isStopped())
    except (Py4JError, ConnectionError, AttributeError):  # Nobody answers, or nothing is left.
        return True


@contextmanager
def ended_driver_told(spark: SparkSession, what: str) -> Iterator[None]:
    """Raise SparkStoppedError where a call of the block fails since the driver's JVM is ending."""
    try:
        yield
    except (*SPARK_FAILURES, ConnectionError) as exc:
        if is_ending(spark):
            raise translated(exc, what, is_ending=True) from exc
        raise


def _tag(spark: SparkSession, tag: str) -> None:
    if is_connect(spark):
        spark.addTag(tag)
    else:
        # The session's own tags are known to the thread that set them only: another one's
        # interruptTag finds nothing to cancel.
        spark.sparkContext.addJobTag(tag)


def _cancel_tagged(spark: SparkSession, tag: str) -> None:
    if is_connect(spark):
        spark.interruptTag(tag)
    else:
        spark.sparkContext.cancelJobsWithTag(tag)


def _cancel(spark: SparkSession, tag: str, result: Future[_Result]) -> None:
    """Cancel until the action has ended; an action that commits before that is left committed."""
    ended = threading.Event()
    result.add_done_callback(lambda _: ended.set())
    deadline = time.monotonic() + _CANCEL_S
    while not ended.is_set() and time.monotonic() < deadline:
        try:
            _cancel_tagged(spark, tag)
        except Exception:  # noqa: BLE001 - the JVM may be gone, which ends the action too
            return
        ended.wait(_AGAIN_S)
