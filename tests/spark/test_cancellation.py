"""A signal that breaks into the wait for Spark ends Spark's work before it goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from pyspark.sql import SparkSession

from sparkscore.spark.cancellation import cancellable, is_ending


@pytest.fixture
def terminable() -> Iterator[None]:
    """SIGTERM raises SystemExit, as in every command."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("terminable")
def test_a_signal_cancels_the_running_job_and_goes_on(spark: SparkSession, tmp_path: Path) -> None:
    pipe, hold = str(tmp_path / "started"), tmp_path / "hold"
    os.mkfifo(pipe)
    hold.touch()
    ended: list[Exception] = []

    def wait(_rows: object) -> list[int]:
        import time

        Path(pipe).write_text("started")
        while hold.exists():
            time.sleep(0.05)
        return [1]

    def act() -> None:
        try:
            spark.sparkContext.parallelize([0], 1).mapPartitions(wait).collect()
        except Exception as exc:
            ended.append(exc)
            raise

    def signal_when_started() -> None:
        Path(pipe).read_text()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=signal_when_started, daemon=True).start()
    try:
        with pytest.raises(SystemExit):
            cancellable(spark, act)
        assert [str(exc) for exc in ended if "cancelled" in str(exc)]
    finally:
        hold.unlink()


def test_an_error_of_the_action_reaches_the_caller(spark: SparkSession) -> None:
    def fail() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        cancellable(spark, fail)


def test_a_session_that_works_is_not_ending(spark: SparkSession) -> None:
    assert not is_ending(spark)
