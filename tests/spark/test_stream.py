"""A query that Python scores batch by batch, as it begins, ends and fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import MagicMock, Mock

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from sparkscore.errors import (
    CheckpointError,
    ConfigError,
    ForeignCheckpointError,
    SourceError,
    SparkFailedError,
    SparkscoreError,
    UsageError,
)
from sparkscore.spark.python_source import stream_of
from sparkscore.spark.stream import EventTimes, parse_trigger, read_through, run_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Stream = Callable[[Callable[["DataFrame", int], None]], None]
N_BATCHES = 3


def run_to_its_end(
    frame: DataFrame,
    folder: Path,
    on_batch: Callable[[DataFrame, int], None] = lambda frame, _number: read_through(frame),
) -> None:
    """A query over what is there, with its checkpoint in a folder."""
    run_stream(
        frame,
        on_batch,
        trigger=parse_trigger("available-now"),
        checkpoint=str(folder / "checkpoint"),
        name="test",
        on_progress=lambda _progress: None,
        what="scoring",
    )


@pytest.fixture
def stream(spark: SparkSession, tmp_path: Path) -> Stream:
    """Runs a query over three files, a batch each, until they are read."""
    for start in range(N_BATCHES):
        rows = pa.table({"id": pa.array([start], pa.int64())})
        write_deltalake(tmp_path / "rows", rows, mode="append")

    def stream(on_batch: Callable[[DataFrame, int], None]) -> None:
        reader = spark.readStream.format("delta").option("maxFilesPerTrigger", 1)
        run_to_its_end(reader.load(str(tmp_path / "rows")), tmp_path, on_batch)

    return stream


@pytest.fixture
def told_to_end() -> Iterator[Callable[[], None]]:
    """Sends this process the signal to end, and returns when it has been taken."""
    taken = threading.Event()

    def take(*_: object) -> NoReturn:
        taken.set()
        raise SystemExit(143)

    def told_to_end() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        assert taken.wait(30)

    before = signal.signal(signal.SIGTERM, take)
    yield told_to_end
    signal.signal(signal.SIGTERM, before)


def test_batches_come_in_order_until_all_is_read(stream: Stream) -> None:
    batches: list[tuple[int, list[int]]] = []
    stream(lambda frame, n: batches.append((n, [row["id"] for row in frame.collect()])))
    assert batches == [(0, [0]), (1, [1]), (2, [2])]


def test_what_a_batch_raises_ends_the_stream_as_it_is(stream: Stream) -> None:
    def fail(_frame: DataFrame, _number: int) -> None:
        raise UsageError("this batch is no good")

    with pytest.raises(UsageError, match="this batch is no good"):
        stream(fail)


def test_what_is_no_error_of_ours_is_told_with_the_stream(stream: Stream) -> None:
    def fail(_frame: DataFrame, _number: int) -> None:
        raise ZeroDivisionError("unforeseen")

    with pytest.raises(SparkscoreError, match=r"scoring.*unforeseen"):
        stream(fail)


@pytest.mark.parametrize("damage", [Path.unlink, partial(Path.write_text, data="")])
def test_damaged_list_of_files_that_were_read_is_named(
    damage: Callable[[Path], object], spark: SparkSession, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.json").write_text('{"id": 1}')

    def run() -> None:
        run_to_its_end(spark.readStream.schema("id LONG").json(str(rows)), tmp_path)

    run()
    listed = tmp_path / "checkpoint" / "sources" / "0" / "0"
    (listed.parent / f".{listed.name}.crc").unlink()
    damage(listed)
    with pytest.raises(CheckpointError, match=r"damaged.*(doesn't exist|Incomplete log file)"):
        run()


def test_second_process_with_the_same_checkpoint_is_told_so(stream: Stream, tmp_path: Path) -> None:
    def overtaken(_frame: DataFrame, number: int) -> None:
        offsets = tmp_path / "checkpoint" / "offsets"
        (offsets / f"{number + 1}").write_text((offsets / f"{number}").read_text())

    with pytest.raises(ForeignCheckpointError, match="another process"):
        stream(overtaken)


class Feed(DataSource):
    """A feed whose option `fails` says where it raises."""

    def schema(self) -> str:
        return "id BIGINT"

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: ARG002, N802 - Spark's
        if self.options["fails"] == "open":
            raise ValueError("no such plant")
        return FeedReader(self.options["fails"])


class FeedReader(DataSourceStreamReader):
    def __init__(self, fails: str) -> None:
        self._fails = fails

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's
        return {"row": 0}

    def latestOffset(self, *_: object) -> dict[str, int]:  # noqa: N802 - Spark's
        if self._fails == "offset":
            raise ConnectionError("no such plant")
        return {"row": 2}

    def partitions(self, *_: object) -> Sequence[InputPartition]:
        return [InputPartition(0)]

    def read(self, _partition: InputPartition) -> Iterator[tuple[object]]:
        if self._fails == "read":
            raise KeyError("no such plant")
        yield ("text",)


@pytest.mark.parametrize(
    ("fails", "kind", "said"),
    [
        ("open", SourceError, "the feed failed: ValueError: no such plant"),
        ("offset", SourceError, "the feed failed: ConnectionError: no such plant"),
        ("read", SparkFailedError, "KeyError: 'no such plant'"),
        ("type", SparkFailedError, "Could not convert 'text'"),
    ],
)
def test_what_a_feed_raises_is_told(
    fails: str, kind: type[SparkscoreError], said: str, spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        run_to_its_end(stream_of(spark, Feed, {"fails": fails}), tmp_path)


def test_signal_waits_for_the_batch_and_lets_no_other_begin(
    stream: Stream, told_to_end: Callable[[], None]
) -> None:
    ended: list[int] = []

    def score(_frame: DataFrame, number: int) -> None:
        told_to_end()
        ended.append(number)

    with pytest.raises(SystemExit):
        stream(score)
    assert ended == [0]
    stream(lambda _frame, number: ended.append(number))
    assert ended[-2:] == [1, 2]


def test_batch_that_fails_after_the_signal_is_told_of(
    stream: Stream, told_to_end: Callable[[], None]
) -> None:
    def fail(_frame: DataFrame, _number: int) -> None:
        told_to_end()
        raise UsageError("this batch is no good")

    with pytest.raises(UsageError, match="this batch is no good"):
        stream(fail)


def test_batch_that_failed_is_told_of_though_spark_is_idle_again(
    told_to_end: Callable[[], None],
) -> None:
    def fail(_frame: DataFrame, _number: int) -> None:
        told_to_end()
        raise UsageError("this batch is no good")

    frame = Mock()
    writer = frame.writeStream.foreachBatch.return_value
    for step in ("queryName", "option", "trigger"):
        getattr(writer, step).return_value = writer

    def start() -> Mock:
        with suppress(UsageError):
            frame.writeStream.foreachBatch.call_args.args[0](Mock(), 0)
        return MagicMock(isActive=True, status={"isTriggerActive": False})

    writer.start.side_effect = start
    with pytest.raises(UsageError, match="this batch is no good"):
        run_stream(
            frame,
            fail,
            trigger=parse_trigger("continuous-service"),
            checkpoint="/nowhere",
            name="test",
            on_progress=lambda _progress: None,
            what="scoring",
        )


def test_ages_are_those_of_the_rows_that_came_first_too(spark: SparkSession) -> None:
    frame = spark.range(1, 101).selectExpr("timestamp_seconds(id) AS ts")
    times = EventTimes(frame, "ts")
    assert times.frame.count() == 100
    ages = times.ages(101.0)
    assert ages["p50"] == pytest.approx(51, abs=1)
    assert ages["p95"] == pytest.approx(96, abs=1)
    assert ages["p99"] == pytest.approx(100, abs=1)


def test_rows_without_a_time_have_no_age(spark: SparkSession) -> None:
    times = EventTimes(spark.sql("SELECT CAST(NULL AS TIMESTAMP) AS ts"), "ts")
    assert times.frame.count() == 1
    assert times.ages(101.0) == {}


@pytest.mark.parametrize("text", ["10 seconds", "0.5 seconds", "1 hour"])
def test_interval_is_a_trigger(text: str) -> None:
    assert parse_trigger(text) == {"processingTime": text}


@pytest.mark.parametrize("text", ["", "10", "seconds", "-1 seconds", "now"])
def test_other_text_is_no_trigger(text: str) -> None:
    with pytest.raises(ConfigError, match="available-now"):
        parse_trigger(text)
