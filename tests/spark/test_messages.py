"""Which messages are rows, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as sf

from sparkscore.errors import InvalidRowsError, SourceError
from sparkscore.scoring.facts import MALFORMED_COLUMN
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.messages import json_rows, stopped_at_malformed
from sparkscore.spark.other_formats import parsed_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = {
    b'{"id":1,"x":0.5}': (1, 0.5),
    b' {"id": 2}\n': (2, None),
    b'{"id":3,"x":null,"more":[1]}': (3, None),
    b"{}": (None, None),
    b'{"id":4,"x":Infinity}': (4, float("inf")),
}
NO_ROWS = (
    b'{"id":2,"x":"three"}',
    b'{"id":1.5}',
    b'{"id":1e30}',
    b'{"id":3}{"id":4}',
    b'{"id":3}, {"id":4}',
    b'{"id":6} trailing',
    b'{"id":7}]',
    b'{"id":8',
    b'[{"id":9}]',
    b'{"id":9,"x":"\xff"}',
    b"\xff\xfe",
    b"null",
    b"5",
    b"",
)


def parsed(spark: SparkSession, values: list[bytes | None], schema: str) -> DataFrame:
    frame = spark.createDataFrame([(v, i) for i, v in enumerate(values)], "value BINARY, n INT")
    place = sf.format_string("topic %d", "n")
    return json_rows(frame, parsed_schema(schema), place, {"timeZone": "UTC"})


def test_json_objects_are_rows(spark: SparkSession) -> None:
    rows = parsed(spark, list(ROWS), "id BIGINT, x DOUBLE").collect()
    assert [(row["id"], row["x"]) for row in rows] == list(ROWS.values())
    assert [row[MALFORMED_COLUMN] for row in rows] == [None] * len(ROWS)


def test_all_else_is_told_with_its_place_and_never_null_in_silence(spark: SparkSession) -> None:
    rows = parsed(spark, [*NO_ROWS, None], "id BIGINT, x DOUBLE").collect()
    said = [row[MALFORMED_COLUMN] for row in rows]
    assert [text and text.split(":")[0] for text in said[:-1]] == [
        f"topic {i} is no JSON object with id" for i in range(len(NO_ROWS))
    ]
    assert said[0] == (
        """topic 0 is no JSON object with id:bigint,x:double: '{"id":2,"x":"three"}'"""
    )
    assert said[-1] == f"topic {len(NO_ROWS)} has no value"


def test_first_malformed_message_ends_what_puts_rows_together(spark: SparkSession) -> None:
    rows = parsed(spark, [b'{"id":1}', b"[]"], "id BIGINT")
    assert stopped_at_malformed(rows.where("n = 0")).columns == ["id", "n"]
    assert stopped_at_malformed(rows.where("n = 0")).count() == 1
    with pytest.raises(SPARK_FAILURES) as caught:
        stopped_at_malformed(rows).collect()
    error = translated(caught.value, "scoring")
    assert isinstance(error, InvalidRowsError)
    assert "message of topic 1 is no JSON object" in str(error)


def test_schema_may_not_name_what_each_message_has(spark: SparkSession) -> None:
    with pytest.raises(SourceError, match="names 'n', which each message has anyway"):
        parsed(spark, [b"{}"], "n INT")
