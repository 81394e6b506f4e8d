"""Ctrl-C is Ctrl-C, whatever a library raises over it."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import py4j.clientserver
import pytest

from sparkscore.errors import SparkFailedError, is_interrupt
from sparkscore.records import RunStatus
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryRunStore
from sparkscore.tracking import Tracking

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def break_into_a_call() -> None:
    """What Py4J does with Ctrl-C, and our own rooms with what Py4J raises."""
    try:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("Gateway must be connected to send cancel cmd.")  # noqa: B904
    except RuntimeError as exc:
        raise SparkFailedError("Spark did not start") from exc


def test_an_error_over_an_interrupt_is_one() -> None:
    with pytest.raises(SparkFailedError) as caught:
        break_into_a_call()
    assert is_interrupt(caught.value)


def test_an_error_over_another_is_none() -> None:
    error = SparkFailedError("Spark did not start")
    error.__cause__ = RuntimeError("no memory")
    assert not is_interrupt(error)


def test_a_run_ends_killed_by_an_interrupt_that_a_library_covered(tmp_path: Path) -> None:
    runs = MemoryRunStore(tmp_path.as_uri())
    tracking = Tracking(runs, lambda run: LocalArtifactStore.at(run.artifact_uri))
    run = tracking.start_run("nightly")
    with pytest.raises(SparkFailedError), run:
        break_into_a_call()
    assert runs.get_run(run.run_id).status is RunStatus.KILLED


@pytest.mark.parametrize("logger", ["root", "py4j.clientserver", "py4j.java_gateway"])
def test_of_a_call_that_fails_py4j_shows_no_trace(spark: SparkSession, logger: str) -> None:
    assert spark.version
    failed = (OSError, OSError("Broken pipe"), None)
    for origin, exc_info, is_shown in (
        (py4j.clientserver.__file__, failed, False),
        (py4j.clientserver.__file__, None, True),
        (__file__, failed, True),
    ):
        record = logging.LogRecord(logger, logging.ERROR, origin, 1, "said", None, exc_info)
        assert bool(logging.getLogger(logger).filter(record)) is is_shown
