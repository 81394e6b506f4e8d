"""What the brokers of Kafka say of a topic, and what must not be told on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError

from sparkscore.errors import SourceAwayError, SourceError, SparkscoreError, shown
from sparkscore.spark.failures import reason_of, said_by

if TYPE_CHECKING:
    from py4j.java_gateway import JavaObject
    from pyspark.sql import SparkSession

_ADMIN_TIMEOUT_MS = "20000"
_AWAY = re.compile(r"kafka\.common\.errors\.(?:Timeout|Disconnect|Network|Retriable)\w*Exception")
_NO_TOPIC = re.compile(r"UnknownTopicOrPartitionException|InvalidTopicException")
_SECRET = re.compile(r"password|secret|jaas|token|credential|keystore\.key", re.IGNORECASE)


def topic_id(spark: SparkSession, topic: str, config: Mapping[str, str]) -> str:
    """What tells a topic from another of its name: the ids of its cluster and its own.

    Args:
        spark: A session with the connector.
        topic: The topic's name.
        config: Settings of Kafka's own clients.

    Raises:
        SourceError: There is no such topic, or the brokers refuse to say.
        SourceAwayError: They do not answer.
    """
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    settings = jvm.java.util.HashMap()
    timeouts = dict.fromkeys(("default.api.timeout.ms", "request.timeout.ms"), _ADMIN_TIMEOUT_MS)
    for name, value in {**timeouts, **config}.items():
        settings.put(name, value)
    names = jvm.java.util.ArrayList()
    names.add(topic)
    admin: JavaObject | None = None
    try:
        admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(settings)
        cluster = admin.describeCluster().clusterId().get()
        described = admin.describeTopics(names).allTopicNames().get().get(topic)
        return f"{cluster}/{described.topicId().toString()}"
    except Py4JError as exc:
        raise _refusal(exc, topic, config) from None  # Java's trace may hold what is secret.
    finally:
        if admin is not None:
            admin.close(jvm.java.time.Duration.ofSeconds(0))


def without_secrets(text: str, config: Mapping[str, str]) -> str:
    """A text in which no value of a secret setting stands."""
    for name, value in config.items():
        if value and _SECRET.search(name):
            text = text.replace(value, "***")
    return text


def _refusal(exc: Py4JError, topic: str, config: Mapping[str, str]) -> SparkscoreError:
    text = without_secrets(said_by(exc), config)
    servers = shown(config.get("bootstrap.servers"))
    if _NO_TOPIC.search(text):
        return SourceError(
            f"there is no topic {topic!r} at {servers}; check --source and the brokers, or make "
            "the topic first"
        )
    reason = without_secrets(reason_of(exc), config)
    if _AWAY.search(text):
        return SourceAwayError(
            f"the brokers at {servers} do not answer ({reason}); run the same command again when "
            "they do, or check kafka.bootstrap.servers and kafka.security.protocol "
            "(--source-option)"
        )
    return SourceError(
        f"topic {topic!r} at {servers} cannot be read: {reason}; check --source-option kafka.* and "
        "the rights of its user"
    )
