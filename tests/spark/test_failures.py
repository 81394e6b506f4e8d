from __future__ import annotations

from pathlib import Path

import pyspark
import pytest
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkException

from sparkscore.errors import (
    BatchDeadlineError,
    InvalidRowsError,
    KeyColumnError,
    SignatureMismatchError,
    SourceError,
    SparkFailedError,
    SparkscoreError,
    SparkStoppedError,
    TargetSchemaError,
    TemporaryError,
    UntrustedCodeError,
    WorkerCrashError,
)
from sparkscore.spark.failures import (
    first_line,
    is_conflict,
    is_unwritable,
    of_ended_driver,
    translated,
)
from sparkscore.spark.task_slot import NOTE_SIGN

WORKER = """Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most recent \
failure: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/somewhere/worker.py", line 60, in score_batches
    yield _score(task, batch)
{inner}sparkscore.errors.{name}: {message}

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(x.scala:1)
\tat java.base/java.lang.Thread.run(Thread.java:840)
"""
INNER = """KeyError: 'a'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
"""


def of_worker(name: str, message: str, inner: str = "") -> PySparkException:
    return PySparkException(WORKER.format(name=name, message=message, inner=inner))


@pytest.mark.parametrize(
    "kind", [InvalidRowsError, SignatureMismatchError, UntrustedCodeError, SparkscoreError]
)
@pytest.mark.parametrize("inner", ["", INNER], ids=["alone", "caused"])
def test_error_of_a_worker_keeps_class_and_message(kind: type[SparkscoreError], inner: str) -> None:
    error = translated(of_worker(kind.__name__, "column 'x' is null", inner), "the job")
    assert type(error) is kind
    assert str(error) == "column 'x' is null"


def test_message_of_several_lines_comes_back_whole() -> None:
    message = (
        "model 'm' does not fit:\n  missing     a: no column\n  wrong type  b: 'b' is string\nMap."
    )
    assert str(translated(of_worker("SignatureMismatchError", message), "the job")) == message


@pytest.mark.parametrize("after", [" SQLSTATE: 38000", "\nDriver stacktrace:"])
def test_what_spark_adds_below_a_message_is_none_of_it(after: str) -> None:
    error = translated(of_worker("InvalidRowsError", f"column 'x' is null\n{after}"), "the job")
    assert str(error) == "column 'x' is null"


def test_error_that_another_of_ours_caused_is_the_outer_one() -> None:
    inner = "sparkscore.errors.PackageFormatError: no tar\n" + INNER.split("\n", 1)[1]
    error = translated(of_worker("InvalidRowsError", "outer", inner), "the job")
    assert type(error) is InvalidRowsError
    assert str(error) == "outer"


def test_class_that_is_none_of_ours_is_a_failure_of_spark() -> None:
    assert type(translated(of_worker("Path", "x"), "the job")) is SparkFailedError


@pytest.mark.parametrize(
    "words", ["Permission denied", "ConcurrentAppendException", "AccessDenied"]
)
def test_words_of_a_model_are_no_words_of_the_table(words: str) -> None:
    exc = of_worker("PredictionError", f"model raised: {words}")
    assert not is_conflict(exc)
    assert not is_unwritable(exc)


@pytest.mark.parametrize(
    "text",
    [
        "[DELTA_CONCURRENT_APPEND] ConcurrentAppendException: files were added",
        "[DELTA_CONCURRENT_TRANSACTION] x",
        "io.delta.exceptions.MetadataChangedException: x",
    ],
)
def test_lost_commit_is_a_conflict(text: str) -> None:
    assert is_conflict(PySparkException(text))


@pytest.mark.parametrize(
    "text", ["java.io.IOException: Permission denied", "Mkdirs failed to create"]
)
def test_refused_write_is_unwritable(text: str) -> None:
    assert is_unwritable(PySparkException(text))


CRASHED = """Job aborted: Python worker exited unexpectedly (crashed): {note}
{left}
\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.x(PythonRunner.scala:711)
"""
NOTE = f"{NOTE_SIGN}'m' version 1, rows 0 to 9 of partition 2"
STACK = """Thread 0x01 (most recent call first):
  File "/lib/threading.py", line 982 in run

{thread} 0x02 (most recent call first):
  File "/models/own.py", line 7 in predict
  File "/lib/worker.py", line 9 in score_rows"""


@pytest.mark.parametrize(
    ("left", "kind", "said"),
    [
        (
            "",
            WorkerCrashError,
            "rows 0 to 9 of partition 2: its Python worker ended without a word",
        ),
        (
            "Fatal Python error: Segmentation fault\n\n" + STACK.format(thread="Current thread"),
            WorkerCrashError,
            "by Segmentation fault in predict (/models/own.py, line 7)",
        ),
        (
            "Timeout (0:15:00)!\n" + STACK.format(thread="Thread"),
            BatchDeadlineError,
            "no answer after 0:15:00 in predict (/models/own.py, line 7)",
        ),
    ],
    ids=["exit", "crash", "hang"],
)
def test_note_of_a_worker_that_is_gone_tells_who_ended_it_where(
    left: str, kind: type[SparkscoreError], said: str
) -> None:
    exc = PySparkException(CRASHED.format(note=NOTE, left=left))
    error = translated(exc, "the job")
    assert type(error) is kind
    assert said in str(error)
    assert "\tat" not in str(error)


def test_worker_that_ends_with_its_jvm_was_not_ended_by_the_model() -> None:
    exc = PySparkException(CRASHED.format(note=NOTE, left=""))
    assert type(translated(exc, "the job", is_ending=True)) is SparkStoppedError


def test_doubled_key_that_delta_found_is_a_key_error() -> None:
    text = "[DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE] Cannot perform Merge"
    assert type(translated(PySparkException(text), "the job")) is KeyColumnError


def test_worker_that_was_slow_to_start_is_tried_again() -> None:
    text = "[STREAM_FAILED] Query terminated with exception: Python worker failed to connect back."
    assert type(translated(PySparkException(text), "the job")) is TemporaryError


def test_row_outside_of_the_predicate_is_a_schema_error() -> None:
    text = "[DELTA_REPLACE_WHERE_MISMATCH] Written data does not conform"
    assert type(translated(PySparkException(text), "the job")) is TargetSchemaError


def test_failure_without_a_class_of_its_own_says_its_first_line_and_the_job() -> None:
    error = translated(PySparkException("out of disk\n\tat x"), "scoring 'a' into 'b'")
    assert type(error) is SparkFailedError
    assert str(error).startswith("scoring 'a' into 'b' failed in Spark")
    assert "out of disk" in str(error)
    assert "\tat" not in str(error)


def test_failure_that_py4j_reports_says_what_happened_and_not_how_it_was_called() -> None:
    exc = Py4JError("An error occurred while calling o1.save.\n: java.io.IOException: gone\n\tat x")
    assert "nothing was committed: java.io.IOException: gone" in str(translated(exc, "the job"))


UNREADABLE = """An error occurred while calling o80.save.
: org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while reading file \
file:///data/a.b/{name}.  SQLSTATE: KD001
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.cannotReadFilesError(x.scala:940)
Caused by: org.apache.spark.SparkException: [MALFORMED_RECORD_IN_PARSING] Malformed records.
Parse Mode: FAILFAST.
\tat org.apache.spark.sql.x(x.scala:1)
Caused by: java.lang.NumberFormatException: For input string: "x"
\tat java.base/java.lang.NumberFormatException.forInputString(x.java:67)
\t... 18 more
"""


def test_a_file_that_spark_cannot_read_is_named_with_the_first_cause() -> None:
    error = translated(Py4JError(UNREADABLE.format(name="rows.csv")), "the job")
    assert type(error) is SourceError
    assert str(error).startswith(
        "data file 'file:///data/a.b/rows.csv' cannot be read: For input string: \"x\"; nothing was"
    )


def test_a_data_file_of_a_table_that_spark_cannot_read_is_a_failure_of_spark() -> None:
    error = translated(Py4JError(UNREADABLE.format(name="part-0.snappy.parquet")), "the job")
    assert type(error) is SparkFailedError


def test_a_damaged_parquet_file_below_the_source_is_the_sources() -> None:
    exc = Py4JError(UNREADABLE.format(name="part-0.parquet"))
    error = translated(exc, "the job", source="/data/a.b/")
    assert type(error) is SourceError
    assert "'file:///data/a.b/part-0.parquet' cannot be read" in str(error)
    assert type(translated(exc, "the job", source="/data/a")) is SparkFailedError


def test_an_error_whose_jvm_has_gone_says_that_spark_was_stopped() -> None:
    jars = Path(pyspark.__file__).parent / "jars"
    port = launch_gateway(jarpath=str(next(jars.glob("py4j*.jar"))), die_on_exit=True)
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    with pytest.raises(Py4JJavaError) as caught:
        gateway.jvm.java.lang.Integer.parseInt("x")
    assert "NumberFormatException" in first_line(caught.value)
    gateway.shutdown()
    with pytest.raises(Py4JNetworkError):
        str(caught.value)  # What Python is asked to show, Py4J asks the JVM for.

    error = translated(caught.value, "the job")
    assert type(error) is SparkStoppedError
    assert type(of_ended_driver(caught.value, "the job")) is SparkStoppedError
    assert not is_conflict(caught.value)
    assert not is_unwritable(caught.value)


@pytest.mark.parametrize(
    "words", ["An error occurred while calling o71.get", "PythonRDD does not exist in the JVM"]
)
def test_a_call_that_got_no_answer_at_all_found_its_jvm_gone(words: str) -> None:
    assert type(of_ended_driver(Py4JError(words), "the job")) is SparkStoppedError
    assert of_ended_driver(Py4JError(f"a.b.{words}. Trace:\nx.IOException"), "the job") is None


def test_an_error_of_a_living_jvm_is_none_of_an_ended_driver() -> None:
    assert of_ended_driver(Py4JError("java.io.IOException: gone"), "the job") is None
    assert of_ended_driver(ValueError("Py4JNetworkError"), "the job") is None
