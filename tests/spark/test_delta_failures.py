"""What a stream says of the Delta table that it cannot go on reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore.errors import (
    ForeignCheckpointError,
    SchemaChangedError,
    SourceChangesError,
    SourceError,
    SourceLostError,
    SparkscoreError,
)
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.stream import parse_trigger, run_stream
from sparkscore.spark.stream_source import open_stream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Read = Callable[..., list[int]]


def add(table: Path, *ids: int, **columns: list[float]) -> None:
    rows = pa.table({"id": pa.array(ids, pa.int64()), **columns})
    write_deltalake(table, rows, mode="append", schema_mode="merge")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Delta table of two versions; names of its log are `N.json`."""
    table = tmp_path / "rows"
    add(table, 0)
    add(table, 1)
    return table


@pytest.fixture
def read(spark: SparkSession, table: Path, tmp_path: Path) -> Read:
    """Goes on with the stream of the table, and returns the ids that had come."""

    def read(
        trigger: str = "available-now", *, first: Callable[[], None] | None = None, **options: str
    ) -> list[int]:
        found: list[int] = []

        def on_batch(frame: DataFrame, number: int) -> None:
            found.extend(sorted(row["id"] for row in frame.collect()))
            if number == 0 and first is not None:
                first()

        run_stream(
            open_stream(spark, SourceSpec(str(table), options=options)).frame,
            on_batch,
            trigger=parse_trigger(trigger),
            checkpoint=str(tmp_path / "checkpoint"),
            name="test",
            on_progress=lambda _progress: None,
            what="scoring rows",
        )
        return found

    return read


def refused(read: Callable[[], list[int]], kind: type[SparkscoreError], said: str) -> None:
    with pytest.raises(SparkscoreError, match=said) as error:
        read()
    assert type(error.value) is kind
    assert str(error.value).startswith("scoring rows: ")


def test_rows_that_were_changed_are_passed_over_or_scored_as_the_user_says(
    read: Read, table: Path
) -> None:
    DeltaTable(table).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    assert read() == [0, 1]
    DeltaTable(table).update(predicate="id = 1", updates={"id": "7"})
    add(table, 2)
    refused(read, SourceChangesError, r"version 3 .*skipChangeCommits=true.*readChangeFeed=true")
    assert read(readChangeFeed="true") == [2, 7]


def test_changes_that_a_table_did_not_keep_are_told(read: Read) -> None:
    changes = lambda: read(readChangeFeed="true", startingVersion="0")  # noqa: E731
    refused(changes, SourceChangesError, "version 0; set its property delta.enableChangeDataFeed")


def test_log_that_was_cut_is_told(read: Read, table: Path) -> None:
    assert read() == [0, 1]
    add(table, 2)
    add(table, 3)
    DeltaTable(table).create_checkpoint()
    for version in range(3):
        (table / "_delta_log" / f"{version:020}.json").unlink()
    refused(read, SourceLostError, "--start-over, an empty --checkpoint and .*startingVersion=N")


def test_file_that_was_vacuumed_is_named(read: Read, table: Path) -> None:
    assert read() == [0, 1]
    add(table, 2)
    (gone,) = set(DeltaTable(table).file_uris()) - set(DeltaTable(table, version=1).file_uris())
    Path(gone).unlink()
    refused(read, SourceLostError, Path(gone).name)


def test_table_that_was_made_anew_is_another_one(read: Read, table: Path) -> None:
    assert read() == [0, 1]
    table.rename(table.with_name("former"))
    add(table, 0)
    refused(read, ForeignCheckpointError, "made anew")


def test_columns_that_change_while_the_stream_runs_are_there_when_it_starts_again(
    read: Read, table: Path
) -> None:
    def widen() -> None:
        add(table, 2, x=[0.5])

    refused(lambda: read("continuous-service", first=widen), SchemaChangedError, "start it again")
    assert read() == [2]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("maxFilesPerTrigger", "lots", "maxFilesPerTrigger=lots: must be a positive integer"),
        ("startingVersion", "9", r"startingVersion or startingTimestamp$"),
        ("startingTimestamp", "2099-01-01", r"2099-01-01.*mend --source-option"),
    ],
)
def test_option_that_makes_no_sense_is_named(
    option: str, value: str, said: str, read: Read
) -> None:
    refused(lambda: read(**{option: value}), SourceError, said)


def test_option_that_is_misspelled_is_told_the_right_one(read: Read) -> None:
    with pytest.raises(SourceError, match=r"'maxFilesPerTriger' \(did you mean 'maxFilesPer"):
        read(maxFilesPerTriger="1")
