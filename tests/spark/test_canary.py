"""The entities of a canary are the same for Spark SQL as for the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkscore.scoring.canary import Split

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_sql_chooses_the_same_entities(spark: SparkSession) -> None:
    frame = spark.sql(
        "SELECT id, if(id % 9 = 0, NULL, concat('sénsor-', id)) AS `odd``name`, "
        "cast(id - 500 AS smallint) AS n, id % 3 = 0 AS flag, "
        "date_add(DATE'1969-12-20', id) AS day "
        "FROM (SELECT cast(id AS int) AS id FROM range(1000))"
    )
    split = Split(("odd`name", "n", "flag", "day"), 0.3)
    batch = frame.toArrow().combine_chunks().to_batches()[0]
    expected = [
        row
        for row, place in zip(batch["id"].to_pylist(), split.places_of(batch), strict=True)
        if place == 1
    ]
    assert [row["id"] for row in frame.where(split.sql).collect()] == expected
    assert 250 < len(expected) < 350
