"""All flights of October, scored on Spark and by the models called directly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import sparkscore
from sparkscore.demo.flights import features, october_flights, read_flights, training_flights
from sparkscore.demo.models import categorised, package, train_lightgbm, train_pipeline

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

N_OCTOBER = 28_889
N_CANCELLED = 236


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    return read_flights()


@pytest.fixture(scope="module")
def october(flights: pa.Table) -> pa.Table:
    return october_flights(flights)


@pytest.fixture(scope="module")
def october_frame(
    october: pa.Table, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> DataFrame:
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("october")
    pq.write_table(october, folder / "october.parquet")
    return spark.read.parquet(str(folder)).repartition(8)


def by_id(flights: pa.Table, answers: object) -> dict[int, float]:
    values = pa.array(answers, pa.float64()).to_pylist()
    return dict(zip(flights["flight_id"].to_pylist(), values, strict=True))


def scored(frame: DataFrame, folder: Path) -> dict[int, float]:
    rows = sparkscore.score(frame, str(folder)).select("flight_id", "prediction").toArrow()
    return dict(zip(rows["flight_id"].to_pylist(), rows["prediction"].to_pylist(), strict=True))


def test_the_data_is_all_flights_with_unique_ids(flights: pa.Table) -> None:
    assert flights.num_rows == 336_776
    assert len(set(flights["flight_id"].to_pylist())) == flights.num_rows


def test_october_has_strings_and_whole_numbers_with_nulls(october: pa.Table) -> None:
    assert october.num_rows == N_OCTOBER
    assert october["dep_delay"].null_count == N_CANCELLED
    assert pa.types.is_int64(october["dep_delay"].type)
    assert october["tailnum"].null_count == 82


def test_every_score_of_the_pipeline_is_what_it_says_itself(
    flights: pa.Table, october: pa.Table, october_frame: DataFrame, tmp_path: Path
) -> None:
    model = train_pipeline(training_flights(flights))
    package(model, training_flights(flights), tmp_path / "package")
    direct = by_id(october, model.predict(features(october)))
    scores = scored(october_frame, tmp_path / "package")
    assert len(scores) == N_OCTOBER
    assert scores == direct


def test_every_score_of_lightgbm_is_what_it_says_itself(
    flights: pa.Table, october: pa.Table, october_frame: DataFrame, tmp_path: Path
) -> None:
    model = train_lightgbm(training_flights(flights))
    package(model, training_flights(flights), tmp_path / "package")
    direct = by_id(october, model.predict(categorised(features(october))))
    scores = scored(october_frame, tmp_path / "package")
    assert len(scores) == N_OCTOBER
    assert scores == direct
