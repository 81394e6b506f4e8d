"""Opening a topic of Kafka as a stream: one row a message, with where the message lies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from sparkscore.errors import SourceError, nearest, shown
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.failures import SPARK_FAILURES, reason_of
from sparkscore.spark.kafka import topic_id, without_secrets
from sparkscore.spark.messages import json_rows
from sparkscore.spark.other_formats import parsed_schema, spark_options

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CLIENT = "kafka."
_SERVERS = "kafka.bootstrap.servers"
_FROM_ENVIRONMENT = "env:"
_JSON = frozenset({"dateFormat", "timestampFormat"})
_SPARK = frozenset(
    {
        "startingOffsets",
        "startingTimestamp",
        "startingOffsetsByTimestamp",
        "startingOffsetsByTimestampStrategy",
        "maxOffsetsPerTrigger",
        "minOffsetsPerTrigger",
        "maxTriggerDelay",
        "minPartitions",
        "maxRecordsPerPartition",
        "failOnDataLoss",
        "groupIdPrefix",
        "kafkaConsumer.pollTimeoutMs",
        "fetchOffset.numRetries",
        "fetchOffset.retryIntervalMs",
    }
)
_OURS: Mapping[str, tuple[str, ...]] = {
    "keyFormat": ("text", "binary"),
    "tombstones": ("refuse", "skip"),
}
"""Options of ours with their values, the default first."""
_DEFAULTS = {
    # Spark begins at the end, and would leave out what is there.
    "startingOffsets": "earliest",
    # Kafka hands out messages of transactions that were given up, unless told otherwise.
    "kafka.isolation.level": "read_committed",
}
_BEGINNINGS = ("startingTimestamp", "startingOffsetsByTimestamp")


def open_topic(
    spark: SparkSession, topic: str, spec: SourceSpec, environ: Mapping[str, str] = os.environ
) -> tuple[DataFrame, str]:
    """The messages that come to a topic as rows, and its id; none is read yet.

    Args:
        spark: A classic session with the connector.
        topic: Its name.
        spec: The schema of the values, which are JSON, and options: `kafka.*` for Kafka's own
            clients, Spark's and ours; a value `env:NAME` is taken from the environment.
        environ: The environment.

    Raises:
        SourceError: There is no such topic, no schema, or an option is unknown.
        SourceAwayError: The brokers do not answer.
    """
    options = _options(spec, environ)
    if spec.schema is None:
        raise SourceError(
            f"topic {topic!r} has no columns of its own; say which the JSON of its messages has: "
            "--source-schema 'sensor STRING, ts TIMESTAMP, x DOUBLE'"
        )
    if spec.format not in ("auto", "json"):
        raise SourceError(
            f"the messages of topic {topic!r} are read as JSON, and not as {spec.format}; leave "
            "--source-format out"
        )
    client = {n.removeprefix(_CLIENT): v for n, v in options.items() if n.startswith(_CLIENT)}
    identity = topic_id(spark, topic, client)
    try:
        return _rows(spark, topic, spec, options), identity
    except SPARK_FAILURES as exc:
        reason = without_secrets(reason_of(exc), client)
        raise SourceError(
            f"topic {topic!r} cannot be read as a stream: {reason}; check --source-schema and "
            "--source-option"
        ) from None  # Java's trace may hold what is secret.


def _rows(
    spark: SparkSession, topic: str, spec: SourceSpec, options: Mapping[str, str]
) -> DataFrame:
    given = {n: value for n, value in options.items() if n not in _JSON and n not in _OURS}
    messages = spark.readStream.format("kafka").options(subscribe=topic, **given).load()
    if options["tombstones"] == "skip":
        messages = messages.where(sf.col("value").isNotNull())
    is_text = options["keyFormat"] == "text"
    key = sf.col("key").cast("string") if is_text else sf.col("key")
    kept = messages.select(
        "value",
        key.alias("kafka_key"),
        sf.col("partition").alias("kafka_partition"),
        sf.col("offset").alias("kafka_offset"),
        sf.col("timestamp").alias("kafka_timestamp"),
    )
    place = sf.format_string(
        f"topic '{topic}', partition %d, offset %d:", "kafka_partition", "kafka_offset"
    )
    no_text = sf.lit("has a key that is no UTF-8 (--source-option keyFormat=binary takes any)")
    wrong = sf.when(~sf.is_valid_utf8("kafka_key"), no_text) if is_text else None
    reading = {name: value for name, value in options.items() if name in _JSON}
    json_options = spark_options("json", replace(spec, options=reading))
    assert spec.schema is not None
    return json_rows(kept, parsed_schema(spec.schema), place, json_options, wrong)


def _options(spec: SourceSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """All options with their defaults, and secrets in the place of what names them.

    Raises:
        SourceError: One is unknown, or there are no brokers.
    """
    known = [*_SPARK, *_OURS, *_JSON]
    for name in spec.options:
        if not name.startswith(_CLIENT) and name not in known:
            raise SourceError(
                f"source option {shown(name)} is unknown for a topic{nearest(name, known)}; it "
                f"takes kafka.* and {', '.join(sorted(known))}"
            )
    if not spec.options.get(_SERVERS):
        raise SourceError(
            f"no brokers are named for {shown(spec.uri)}; say where they answer: --source-option "
            f"{_SERVERS}=HOST:PORT,HOST:PORT"
        )
    options = {**_DEFAULTS, **{name: values[0] for name, values in _OURS.items()}}
    if any(name in spec.options for name in _BEGINNINGS):
        del options["startingOffsets"]
    options |= {n: _resolved(n, value, environ) for n, value in spec.options.items()}
    _check_beginning(options.get("startingOffsets", "earliest"))
    for name, values in _OURS.items():
        if options[name] not in values:
            raise SourceError(
                f"source option {name} is {shown(options[name])}, and has to be one of: "
                f"{', '.join(values)}"
            )
    return options


def _check_beginning(text: str) -> None:
    if text in ("earliest", "latest"):
        return
    with suppress(ValueError):
        if isinstance(json.loads(text), dict):
            return
    raise SourceError(
        f"source option startingOffsets is {shown(text)}; it takes earliest, latest, or offsets by "
        'partition such as {"TOPIC": {"0": 23, "1": -2}}'
    )


def _resolved(name: str, value: str, environ: Mapping[str, str]) -> str:
    if not value.startswith(_FROM_ENVIRONMENT):
        return value
    variable = value.removeprefix(_FROM_ENVIRONMENT)
    if variable not in environ:
        raise SourceError(
            f"source option {name} is to be taken from the environment, which has no {variable!r}; "
            "set that variable where the driver runs"
        )
    return environ[variable]
