"""Segments are given by number, the same ones to whoever asks, and go when they are done."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadMaxFiles

from sparkscore.files.spool import SPOOLED, Message, Spool, segments_in
from sparkscore.spark.spool_source import SpoolReader

ALL = ReadAllAvailable()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    add(spool, "a", "b")
    add(spool, "c")
    add(spool, "d")
    yield spool
    spool.close()


def add(spool: Spool, *payloads: str) -> None:
    now = dt.datetime.now(dt.UTC)
    spool.add([Message("t", payload.encode(), now) for payload in payloads])


def reader(folder: Path, max_files: int | None = None) -> SpoolReader:
    return SpoolReader(folder, SPOOLED.names, max_files)


def read(folder: Path, start: int, end: int) -> str:
    one = reader(folder)
    parts = one.partitions({"segment": start}, {"segment": end})
    values = [v for part in parts for rows in one.read(part) for v in rows["value"].to_pylist()]
    return b"".join(values).decode()


@pytest.mark.usefixtures("spool")
def test_segments_are_read_between_two_numbers(tmp_path: Path) -> None:
    assert reader(tmp_path).initialOffset() == {"segment": 0}
    assert reader(tmp_path).latestOffset({"segment": 0}, ALL) == {"segment": 3}
    assert reader(tmp_path).reportLatestOffset() == {"segment": 3}
    assert (read(tmp_path, 0, 3), read(tmp_path, 1, 2), read(tmp_path, 3, 3)) == ("abcd", "c", "")


@pytest.mark.usefixtures("spool")
def test_a_batch_has_so_many_segments(tmp_path: Path) -> None:
    one = reader(tmp_path, 2)
    limit = one.getDefaultReadLimit()
    assert limit == ReadMaxFiles(2)
    assert one.latestOffset({"segment": 0}, limit) == {"segment": 2}
    assert one.latestOffset({"segment": 2}, limit) == {"segment": 3}
    assert one.latestOffset({"segment": 3}, limit) == {"segment": 3}
    assert reader(tmp_path).getDefaultReadLimit() == ALL


def test_what_is_committed_goes_and_numbers_go_on(spool: Spool, tmp_path: Path) -> None:
    reader(tmp_path).commit({"segment": 2})
    assert segments_in(tmp_path) == [3]
    reader(tmp_path).commit({"segment": 3})
    assert reader(tmp_path).latestOffset({"segment": 3}, ALL) == {"segment": 3}
    add(spool, "e")
    assert read(tmp_path, 3, 4) == "e"


def test_what_comes_after_the_beginning_is_for_the_next_run(spool: Spool, tmp_path: Path) -> None:
    one = reader(tmp_path)
    one.prepareForTriggerAvailableNow()
    add(spool, "e")
    assert one.latestOffset({"segment": 0}, ALL) == {"segment": 3}
    assert reader(tmp_path).latestOffset({"segment": 3}, ALL) == {"segment": 4}
