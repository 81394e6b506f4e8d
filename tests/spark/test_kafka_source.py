"""Options of a topic that are refused before a broker is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from sparkscore.errors import InvalidNameError, SourceError
from sparkscore.names import kafka_topic
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.kafka_source import open_topic

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SERVERS = {"kafka.bootstrap.servers": "127.0.0.1:9"}


def refused(schema: str | None = "id BIGINT", format_: str = "auto", **options: str) -> str:
    spec = SourceSpec("kafka:t", format_, options=SERVERS | options, schema=schema)
    with pytest.raises(SourceError) as caught:
        open_topic(cast("SparkSession", None), "t", spec, environ={})
    return str(caught.value)


def test_unknown_option_is_refused_with_the_nearest() -> None:
    assert "did you mean 'maxOffsetsPerTrigger'" in refused(maxOffsetPerTrigger="1")


def test_brokers_have_to_be_named() -> None:
    assert "kafka.bootstrap.servers=HOST:PORT" in refused(**{"kafka.bootstrap.servers": ""})


def test_columns_have_to_be_named() -> None:
    assert "--source-schema" in refused(schema=None)


def test_values_are_json() -> None:
    assert "not as csv" in refused(format_="csv")


@pytest.mark.parametrize("value", ["sometimes", "[1]", "{"])
def test_beginning_is_a_word_or_offsets(value: str) -> None:
    assert "earliest, latest, or offsets by partition" in refused(startingOffsets=value)


@pytest.mark.parametrize("name", ["keyFormat", "tombstones"])
def test_choice_is_refused_with_what_there_is(name: str) -> None:
    assert f"{name} is 'perhaps', and has to be one of" in refused(**{name: "perhaps"})


def test_secret_that_the_environment_lacks_is_told() -> None:
    assert "no 'KAFKA_LOGIN'" in refused(**{"kafka.sasl.jaas.config": "env:KAFKA_LOGIN"})


def test_topic_is_parsed_or_refused() -> None:
    assert kafka_topic("kafka:telemetry.v1_a-b") == "telemetry.v1_a-b"
    assert kafka_topic("./kafka") is None
    for uri in ("kafka:", "kafka:..", "kafka:a,b", "kafka://host:9092/topic", "kafka:" + "t" * 250):
        with pytest.raises(InvalidNameError, match="write kafka:TOPIC"):
            kafka_topic(uri)
