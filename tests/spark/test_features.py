"""Features of rows that come, as Spark computes them: those of a table of the same rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from sparkscore.errors import ConfigError, InvalidRowsError, KeyColumnError
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.features import (
    OUT_OF_ORDER,
    ROWS_IN,
    Features,
    Join,
    Missing,
    State,
    Watermark,
    Window,
)
from sparkscore.scoring.history import HistoryColumn
from sparkscore.spark.engine import SparkEngine
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.features import check_one_match, joined, pinned_joins
from sparkscore.spark.stream import parse_trigger, run_stream
from sparkscore.spark.stream_source import open_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

START = dt.datetime(2026, 1, 1)
MARK = Watermark("ts", "1 minute")
WINDOW = Window(
    "5 minutes", None, ("sensor",), {"x_mean": "avg(x)", "x_max": "max(x)", "n": "count(*)"}
)
HISTORY = {
    "x_before": "lag(x, 1)",
    "x_mean3": "mean(x, 3)",
    "big_before": "lag(big, 1)",
    "since_fault": "rows_since(fault)",
    "pause": "seconds_since_last()",
    "n": "rows()",
}
STATE = State(
    ("sensor",), 1800, {name: HistoryColumn.parse(text, name) for name, text in HISTORY.items()}
)
SENSORS = ("s0", "s1", "s2")
Row = tuple[object, ...]


def write(folder: Path, seconds: Sequence[float | None], sensors: Sequence[str] = SENSORS) -> None:
    """A commit with a row for each time; sensors take turns."""
    n = len(seconds)
    times = [None if s is None else START + dt.timedelta(seconds=s) for s in seconds]
    rows = pa.table(
        {
            "sensor": [sensors[i % len(sensors)] for i in range(n)],
            "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
            "x": pa.array([None if s is None else s / 8 for s in seconds], pa.float64()),
            "big": pa.array([None if i % 2 else 2**63 - 100 - i for i in range(n)], pa.int64()),
            "fault": pa.array([i % 7 == 3 for i in range(n)]),
        }
    )
    write_deltalake(folder, rows, mode="append")


class Streamed:
    """What a stream over a table gives, batch by batch, run after run."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark.newSession()
        # Each part of a state costs a task and a Python worker a batch.
        self.spark.conf.set("spark.sql.shuffle.partitions", "2")
        self._folder = folder
        self.batches: list[list[Row]] = []
        self.progress: list[Mapping[str, Any]] = []

    def run(self, features: Features) -> list[Row]:
        """Rows of one run until all is read."""
        spec = SourceSpec(
            str(self._folder / "rows"), options={"maxFilesPerTrigger": "1"}, features=features
        )
        source = open_stream(self.spark, spec)
        first = len(self.batches)
        run_stream(
            source.frame,
            lambda frame, _number: self.batches.append([tuple(r) for r in frame.collect()]),
            trigger=parse_trigger("available-now"),
            checkpoint=str(self._folder / "checkpoint"),
            name="test",
            on_progress=self.progress.append,
            what="scoring",
        )
        return [row for batch in self.batches[first:] for row in batch]

    def total(self, name: str, field: str) -> int:
        """Sum over all batches of what Spark observed."""
        observed = [p["observedMetrics"].get(name) for p in self.progress]
        return sum(row[field] for row in observed if row is not None)

    @property
    def n_late(self) -> int:
        """What came after its time."""
        states = [state for p in self.progress for state in p["stateOperators"]]
        return sum(state["numRowsDroppedByWatermark"] for state in states)


@pytest.fixture
def stream(spark: SparkSession, tmp_path: Path) -> Streamed:
    return Streamed(spark, tmp_path)


def of_table(spark: SparkSession, folder: Path, features: Features) -> DataFrame:
    """What the batch job would score."""
    return SparkEngine(spark).open(SourceSpec(str(folder / "rows"), features=features)).frame


def test_a_window_comes_once_it_is_closed_and_as_in_a_table(
    stream: Streamed, spark: SparkSession, tmp_path: Path
) -> None:
    features = Features(watermark=MARK, window=WINDOW)
    for start in (0, 1000):
        write(tmp_path / "rows", range(start, start + 1000, 10))
    first = stream.run(features)
    # 1990 s less a minute: 30 minutes are over.
    assert max(str(row[2]) for row in first) == "2026-01-01 00:30:00"
    write(tmp_path / "rows", range(2000, 3000, 10))
    write(tmp_path / "rows", [5, 15, 25, None])
    rows = first + stream.run(features)
    assert len({row[:2] for row in rows}) == len(rows) == 3 * 9
    table = of_table(spark, tmp_path, features)
    # The first window lacks what came too late for it.
    closed = table.where("window_end > '2026-01-01 00:05' AND window_end <= '2026-01-01 00:45'")
    on_time = [row for row in rows if row[1] != START]
    assert sorted(map(repr, on_time)) == sorted(repr(tuple(row)) for row in closed.collect())
    assert stream.n_late == 3
    assert stream.total(ROWS_IN, "n_rows") == 304
    assert stream.total(ROWS_IN, "n_timeless") == 1


def test_windows_may_overlap(stream: Streamed, spark: SparkSession, tmp_path: Path) -> None:
    sliding = Window("10 minutes", "5 minutes", (), {"n": "count(*)"})
    features = Features(watermark=MARK, window=sliding)
    write(tmp_path / "rows", range(0, 2000, 10))
    rows = stream.run(features)
    closed = of_table(spark, tmp_path, features).where("window_end <= '2026-01-01 00:30'")
    assert sorted(map(repr, rows)) == sorted(repr(tuple(row)) for row in closed.collect())
    assert [row[2] for row in sorted(rows, key=repr)] == [30, 60, 60, 60, 60, 60]


@pytest.fixture(scope="module")
def followed(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Streamed, list[Row], list[Row]]:
    """A stream that was begun anew in between, what it gave, and what a table gives."""
    folder = tmp_path_factory.mktemp("histories")
    features = Features(watermark=MARK, state=STATE)
    stream = Streamed(spark, folder)
    write(folder / "rows", [*range(0, 100, 10), 50, 100, 100, 100])  # Of one time, several.
    write(folder / "rows", range(110, 1000, 10))
    rows = stream.run(features)
    write(folder / "rows", range(6000, 6100, 10), sensors=SENSORS[:2])
    write(folder / "rows", [6075, 20, 10], sensors=["s0", "late", "late"])
    rows += stream.run(features)
    table = of_table(spark, folder, features)
    assert table.columns == ["sensor", "ts", "x", "big", "fault", *HISTORY]
    return stream, rows, [tuple(row) for row in table.collect()]


class TestHistories:
    def test_rows_are_told_of_those_before_them_as_in_a_table(
        self, followed: tuple[Streamed, list[Row], list[Row]]
    ) -> None:
        _, rows, table = followed
        assert len(rows) == 14 + 89 + 10 + 1
        mine = sorted(repr(row) for row in rows if str(row[1]) < "2026-01-01 01:41:15")
        theirs = sorted(repr(row) for row in table if str(row[1]) < "2026-01-01 01:41:15")
        assert mine == [row for row in theirs if not row.startswith("('late'")]

    def test_a_history_begins_anew_after_a_pause(
        self, followed: tuple[Streamed, list[Row], list[Row]]
    ) -> None:
        _, rows, _ = followed
        after = [r for r in sorted(rows, key=repr) if r[0] == "s1" and str(r[1]) > "2026-01-01 01"]
        assert [row[-1] for row in after] == [1, 2, 3, 4, 5]
        assert (after[0][5], after[0][9]) == (None, None)
        assert (after[1][5], after[1][9]) == (after[0][2], 20.0)

    def test_whole_numbers_keep_all_digits(
        self, followed: tuple[Streamed, list[Row], list[Row]]
    ) -> None:
        _, rows, _ = followed
        assert {row[3] for row in rows} == {None, *(2**63 - 100 - i for i in range(0, 90, 2))}

    def test_what_is_out_of_order_is_counted_and_what_is_late_left_out(
        self, followed: tuple[Streamed, list[Row], list[Row]]
    ) -> None:
        stream, _, _ = followed
        assert stream.total(OUT_OF_ORDER, "n_rows") == 1
        assert stream.n_late == 2

    def test_a_key_that_is_silent_takes_no_room(
        self, followed: tuple[Streamed, list[Row], list[Row]]
    ) -> None:
        stream, _, _ = followed
        n_keys = [sum(s["numRowsTotal"] for s in p["stateOperators"]) for p in stream.progress]
        assert (max(n_keys), n_keys[-1]) == (3, 2)


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (Features(watermark=Watermark("tss", "0 seconds")), "did you mean 'ts'"),
        (Features(watermark=Watermark("x", "0 seconds")), "double, and no timestamp"),
        (
            Features(watermark=MARK, window=Window("1 hour", None, ("senor",), {"n": "count(*)"})),
            "did you mean 'sensor'",
        ),
        (
            Features(watermark=MARK, window=Window("1 hour", None, (), {"m": "avg(y)"})),
            "(?s)features.window.columns.*`y`",
        ),
        (
            Features(watermark=MARK, window=Window("1 hour", None, (), {"m": "x"})),
            "(?s)features.window.columns.*x",
        ),
        (
            Features(watermark=MARK, window=Window("1 hour", None, (), {"m": "count(DISTINCT x)"})),
            "(?i)distinct",
        ),
        (
            Features(
                watermark=MARK,
                state=State(("sensor",), 60, {"m": HistoryColumn("mean", "sensor", 3)}),
            ),
            "mean takes a column of .*but 'sensor' is string",
        ),
        (
            Features(
                watermark=MARK, state=State(("sensor",), 60, {"X": HistoryColumn("rows", None)})
            ),
            "two columns called 'X'",
        ),
        (Features(function="tests.nowhere:f"), "PYTHONPATH"),
        (Features(function="builtins:repr"), "must return a streaming DataFrame"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_a_row_is_read(
    features: Features, named: str, stream: Streamed, tmp_path: Path
) -> None:
    write(tmp_path / "rows", [1])
    with pytest.raises(ConfigError, match=named):
        stream.run(features)
    assert not (tmp_path / "checkpoint").exists()


def test_a_function_comes_before_all_else(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows", [1, 2, 3, 4])
    code = """
def prepare(frame):
    return frame.where("x > 0.2").withColumn("double", frame["x"] * 2)

def fail(frame):
    raise RuntimeError("no such sensor")
"""
    (tmp_path / "my_features.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    summed = Window("1 hour", None, (), {"total": "sum(double)"})
    features = Features(function="my_features:prepare", watermark=MARK, window=summed)
    (row,) = of_table(spark, tmp_path, features).collect()
    assert row["total"] == (2 + 3 + 4) / 8 * 2
    with pytest.raises(ConfigError, match=r"my_features:fail.*no such sensor"):
        of_table(spark, tmp_path, Features(function="my_features:fail"))


def test_state_is_refused_where_the_session_keeps_it_elsewhere(
    stream: Streamed, tmp_path: Path
) -> None:
    key = "spark.sql.streaming.stateStore.providerClass"
    rocks = stream.spark.conf.get(key)
    assert rocks is not None
    write(tmp_path / "rows", [1])
    stream.spark.conf.set(key, rocks.replace("RocksDB", "HDFSBacked"))
    with pytest.raises(ConfigError, match="RocksDB"):
        stream.run(Features(watermark=MARK, state=STATE))


class TestJoins:
    @pytest.fixture
    def rows(self, tmp_path: Path) -> Path:
        write(tmp_path / "rows", [1, 2, 3])
        sensors = pa.table({"sensor": ["s0", "s1"], "height": [1.5, 2.5], "kind": ["a", "b"]})
        write_deltalake(tmp_path / "sensors", sensors)
        return tmp_path

    def of(self, rows: Path, spark: SparkSession, **more: Missing | int) -> list[Row]:
        join = Join(str(rows / "sensors"), ("sensor",), ("height",), **more)  # type: ignore[arg-type]
        spec = SourceSpec(str(rows / "rows"), features=Features(joins=(join,)))
        opened = SparkEngine(spark).open(spec)
        assert [c.name for c in opened.table.columns][-2:] == ["fault", "height"]
        assert opened.table.joined == f"{join.table}@{more.get('version', 0)}"
        found = [(row["sensor"], row["height"]) for row in opened.frame.collect()]
        if opened.given is not None:
            assert opened.given.get["n_rows"] == 3
        return sorted(found)

    def test_rows_get_columns_of_a_table(self, rows: Path, spark: SparkSession) -> None:
        assert self.of(rows, spark) == [("s0", 1.5), ("s1", 2.5), ("s2", None)]

    def test_rows_without_a_match_may_be_dropped(self, rows: Path, spark: SparkSession) -> None:
        assert self.of(rows, spark, missing=Missing.DROP) == [("s0", 1.5), ("s1", 2.5)]

    def test_rows_without_a_match_may_stop_the_job(self, rows: Path, spark: SparkSession) -> None:
        with pytest.raises(SPARK_FAILURES) as caught:
            self.of(rows, spark, missing=Missing.FAIL)
        error = translated(caught.value, "scoring")
        assert isinstance(error, InvalidRowsError)
        assert 'has no row for {"sensor":"s2"}' in str(error)

    def test_a_version_may_be_said(self, rows: Path, spark: SparkSession) -> None:
        other = pa.table({"sensor": ["s2"], "height": [9.0], "kind": ["c"]})
        write_deltalake(rows / "sensors", other, mode="overwrite")
        assert self.of(rows, spark, version=0)[0] == ("s0", 1.5)

    def test_table_that_would_double_rows_is_refused(self, rows: Path, spark: SparkSession) -> None:
        twin = pa.table({"sensor": ["s1"], "height": [9.0], "kind": ["c"]})
        write_deltalake(rows / "sensors", twin, mode="append")
        join = Join(str(rows / "sensors"), ("sensor",))
        pinned = pinned_joins(spark, Features(joins=(join,)), {join.table: 1})
        with pytest.raises(KeyColumnError, match=r"'sensor': 's1'.*scored 2 times"):
            check_one_match(pinned[0])

    @pytest.mark.parametrize(
        ("by", "columns", "named"),
        [
            (("senor",), (), "did you mean 'sensor'"),
            (("sensor",), ("hight",), "did you mean 'height'"),
            (("kind",), (), "'kind', which is no column of the rows"),
        ],
    )
    def test_columns_that_are_not_there_are_refused(
        self,
        by: tuple[str, ...],
        columns: tuple[str, ...],
        named: str,
        rows: Path,
        spark: SparkSession,
    ) -> None:
        features = Features(joins=(Join(str(rows / "sensors"), by, columns),))
        frame = spark.read.format("delta").load(str(rows / "rows"))
        with pytest.raises(ConfigError, match=named):
            joined(frame, pinned_joins(spark, features, {}))
