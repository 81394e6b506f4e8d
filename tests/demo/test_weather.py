"""What the weather stations told, and what the demo of a stream says of its table."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sparkscore.demo.play_stream import said_of
from sparkscore.demo.weather import (
    FEATURES,
    LABEL,
    autumn_weather,
    features,
    read_weather,
    train_linear,
    train_trees,
    training_weather,
    write_day_files,
)

NOON = dt.datetime(2013, 10, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def weather() -> pa.Table:
    return read_weather()


def test_each_reading_is_there_once_with_its_nulls(weather: pa.Table) -> None:
    assert weather.num_rows == 26_115
    assert weather.group_by(["station", "time"]).aggregate([]).num_rows == 26_115
    assert {name: weather[name].null_count for name in ("wind_gust", "pressure", "temp")} == {
        "wind_gust": 20_778,
        "pressure": 2_729,
        "temp": 1,
    }
    assert training_weather(weather).num_rows + autumn_weather(weather).num_rows == 26_115


def test_label_is_the_next_hour_s_temperature_and_null_before_a_gap(weather: pa.Table) -> None:
    temps = {(row["station"], row["time"]): row["temp"] for row in weather.to_pylist()}
    for row in weather.to_pylist():
        assert row[LABEL] == temps.get((row["station"], row["time"] + HOUR))
    assert weather[LABEL].null_count == 49


def test_trees_know_more_than_a_line_of_an_autumn_that_neither_has_seen(weather: pa.Table) -> None:
    autumn = autumn_weather(weather)
    autumn = autumn.filter(pc.is_valid(autumn[LABEL]))
    errors = [
        np.abs(train(training_weather(weather)).predict(features(autumn)) - autumn[LABEL]).mean()
        for train in (train_trees, train_linear)
    ]
    assert errors[0] < errors[1] < 2


def test_a_day_s_file_holds_its_readings_as_lines(weather: pa.Table, tmp_path: Path) -> None:
    days = autumn_weather(weather).slice(0, 100)
    n_files = write_day_files(days, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files][:2] == [
        "weather-2013-10-01.json",
        "weather-2013-10-02.json",
    ]
    assert len(files) == n_files
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert [row["time"] for row in rows] == [t.isoformat() for t in days["time"].to_pylist()]
    for name in FEATURES:
        assert [row[name] for row in rows] == days[name].to_pylist()


def scores(rows: list[tuple[str, int, str, int]]) -> pa.Table:
    """Rows of station, version, digest and batch; a station has one reading."""
    stations, versions, digests, batches = zip(*rows, strict=True)
    return pa.table(
        {
            "station": stations,
            "time": [NOON] * len(rows),
            "model_version": versions,
            "model_digest": digests,
            "scored_at": [NOON + batch * HOUR for batch in batches],
        }
    )


def test_rows_that_are_doubled_and_batches_that_mix_models_are_told() -> None:
    well = scores([("EWR", 1, "a" * 64, 0), ("JFK", 1, "a" * 64, 0), ("LGA", 2, "b" * 64, 1)])
    assert said_of(well) == (
        "3 scores of 3 readings; version 1 (aaaaaaaa): 2 rows; version 2 (bbbbbbbb): 1 rows; "
        "0 of 2 batches mix two models"
    )
    ill = scores([("EWR", 1, "a" * 64, 0), ("EWR", 1, "a" * 64, 1), ("LGA", 2, "b" * 64, 1)])
    assert said_of(ill).startswith("3 scores of 2 readings")
    assert said_of(ill).endswith("1 of 2 batches mix two models")
