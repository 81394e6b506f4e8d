"""A topic of Kafka that gets each row of a stream as a message, a batch as one transaction.

What says that a batch is there is committed in the same transaction, as an offset of a consumer
group of the stream's own: so a batch that is published again changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from sparkscore.errors import (
    ConfigError,
    OutletAwayError,
    OutletError,
    SparkscoreError,
    listed,
    shown,
)
from sparkscore.names import kafka_topic
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.scoring.rejects import json_rows

_FORM = "kafka:TOPIC?bootstrap.servers=HOST:PORT&key=COLUMN"
_SERVERS = "bootstrap.servers"
_KEY = "key"
_FROM_ENVIRONMENT = "env:"
_SECRET = re.compile(r"password|secret|token|credential|\.pem$|ssl\.key", re.IGNORECASE)
_MODEL = "model_digest"
_TIMEOUT_S = 30.0
_DEFAULTS = {
    # Java's clients lay a key into this partition too.
    "partitioner": "murmur2_random",
    # The longest that brokers admit unless they are told otherwise: a large batch takes its time.
    "transaction.timeout.ms": "900000",
    "compression.type": "lz4",
}
_SILENT = logging.Logger("sparkscore.kafka", logging.CRITICAL + 1)
"""What goes wrong is raised, and told once."""
_REFUSED = frozenset({"transactional.id", "group.id", "enable.idempotence"})
_FINAL = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError._INVALID_ARG,
    }
)
"""Asking again would not help."""
_FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
)


@dataclass(frozen=True)
class KafkaUri:
    """Where messages go to.

    Attributes:
        topic: The topic's name.
        config: Settings of Kafka's client; may hold secrets.
        name: The URI without them.
        keys: Columns of which a message's key is made; empty: those of the job.
    """

    topic: str
    config: Mapping[str, str]
    name: str
    keys: tuple[str, ...]


def parse_kafka_uri(uri: str, environ: Mapping[str, str] = os.environ) -> KafkaUri:
    """Read `kafka:TOPIC?bootstrap.servers=HOST:PORT&key=COLUMN`; other options are librdkafka's.

    Args:
        uri: With `env:NAME` for a secret.
        environ: Where `env:NAME` is looked up.

    Raises:
        ConfigError: It names no brokers, or a secret stands in it or is not to be had.
        InvalidNameError: It names no topic.
    """
    place, _, query = uri.partition("?")
    topic = kafka_topic(place)
    if topic is None:
        raise ConfigError(f"{shown(place)} names no topic to publish to; write {_FORM}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    keys = tuple(part for part in options.pop(_KEY, "").split(",") if part)
    servers = options.get(_SERVERS, "")
    name = f"{place}?{_SERVERS}={servers}" + (f"&{_KEY}={','.join(keys)}" if keys else "")
    if not servers:
        raise ConfigError(f"{shown(name)} names no brokers; write {_FORM}")
    refused = sorted(_REFUSED & options.keys())
    if refused:
        raise ConfigError(f"{shown(name)}: {listed(refused)} belongs to the stream; leave it out")
    config = {option: _resolved(name, option, v, environ) for option, v in options.items()}
    return KafkaUri(topic, config, name, keys)


class KafkaOutlet:
    """Sends each row as a message: its key columns as the key, the whole row in JSON as the value.

    Readers that read committed messages alone, as Kafka's newer clients do, see each row once, and
    a batch whole. Headers say which row it is, for readers that do not.

    Args:
        uri: Where to.
        timeout_s: How long the brokers may take for an answer.
    """

    def __init__(self, uri: KafkaUri, timeout_s: float = _TIMEOUT_S) -> None:
        self._uri = uri
        self._timeout_s = timeout_s
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._refused: KafkaError | None = None

    @property
    def name(self) -> str:
        """See Outlet."""
        return self._uri.name

    def check(self, shape: ScoreShape) -> None:
        """See Outlet; nothing is sent."""
        for name in self._uri.keys:
            if name not in shape.schema.names:
                raise ConfigError(
                    f"{shown(self.name)} makes keys of {name!r}, which the score table does not "
                    f"have (it has {listed(shape.schema.names)}); carry it along with --keep {name}"
                )
        with self._failures():
            self._producer = self._new_producer({})
            topics = self._producer.list_topics(self._uri.topic, self._timeout_s).topics
            error = topics[self._uri.topic].error
            if error is not None:
                raise KafkaException(error)
        self.close()

    def publish(self, batch: CommittedBatch) -> int:
        """See Outlet."""
        with self._failures():
            producer, consumer = self._opened(batch.stream_id)
            mark = TopicPartition(self._uri.topic, 0, batch.number + 1)
            (known,) = consumer.committed([mark], self._timeout_s)
            if known.offset > batch.number:
                return 0
            producer.begin_transaction()
            try:
                n_rows = self._sent(producer, batch)
                group = consumer.consumer_group_metadata()
                producer.send_offsets_to_transaction([mark], group, self._timeout_s)
                producer.commit_transaction(self._timeout_s)
            except BaseException:
                with suppress(KafkaException):
                    producer.abort_transaction(self._timeout_s)
                raise
            return n_rows

    def close(self) -> None:
        """See Outlet."""
        if self._consumer is not None:
            self._consumer.close()
        self._producer = self._consumer = self._refused = None

    def _opened(self, stream_id: str) -> tuple[Producer, Consumer]:
        """The clients of a stream; brokers refuse those of a process that had them before."""
        if self._producer is None or self._consumer is None:
            ours = f"sparkscore-{stream_id}-{self._uri.topic}"
            self._producer = self._new_producer({"transactional.id": ours})
            self._producer.init_transactions(self._timeout_s)
            self._consumer = Consumer({**self._uri.config, "group.id": ours}, logger=_SILENT)
        return self._producer, self._consumer

    def _new_producer(self, more: Mapping[str, str]) -> Producer:
        config = {**_DEFAULTS, **self._uri.config, **more, "error_cb": self._told}
        return Producer(config, logger=_SILENT)

    def _told(self, error: KafkaError) -> None:
        """Keep why brokers refuse us, which the calls that time out for it do not say."""
        if error.code() in _FINAL:
            self._refused = error

    def _sent(self, producer: Producer, batch: CommittedBatch) -> int:
        refusals: list[KafkaError] = []

        def told(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refusals.append(error)

        keys = self._uri.keys or batch.shape.keys
        n_rows = 0
        for rows in batch.rows():
            for key, value, model in zip(
                _keys(rows, keys), json_rows(rows), rows[_MODEL].to_pylist(), strict=True
            ):
                headers = {
                    "sparkscore.stream": batch.stream_id,
                    "sparkscore.batch": str(batch.number),
                    "sparkscore.row": str(n_rows),
                    "sparkscore.model": model,
                }
                self._send(producer, key, value, headers, told)
                n_rows += 1
        left = n_rows + 1
        while left and left > (left := producer.flush(self._timeout_s)):
            pass  # As long as some are taken, brokers are slow and not away.
        if refusals:
            raise KafkaException(refusals[0])
        if left:
            raise self._away(f"{left} messages were not taken")
        return n_rows

    def _send(
        self,
        producer: Producer,
        key: str | None,
        value: str,
        headers: Mapping[str, str],
        told: Callable[[KafkaError | None, Message], None],
    ) -> None:
        while True:
            try:
                producer.produce(
                    self._uri.topic, value, key, on_delivery=told, headers=dict(headers)
                )
            except BufferError:  # More wait already than may.
                if producer.poll(self._timeout_s) == 0:
                    raise self._away("no message was taken") from None
            else:
                producer.poll(0)
                return

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What Kafka says as errors of ours; clients that failed are not asked again."""
        try:
            yield
        except KafkaException as exc:
            if self._producer is not None:
                self._producer.poll(0)  # Hands over what `_told` is to know.
            error = self._refused or exc.args[0]
            self.close()
            raise self._refusal(error) from None  # Kafka's words may hold what is secret.
        except OutletAwayError:
            self.close()
            raise

    def _refusal(self, error: KafkaError) -> SparkscoreError:
        code, reason = error.code(), _without_secrets(error.str(), self._uri.config)
        if code in _FENCED:
            return OutletError(
                f"{shown(self.name)}: another process publishes for this stream; see which one is "
                "to go on, and end the other"
            )
        if code in _FINAL:
            return OutletError(
                f"{shown(self.name)} does not take the rows: {reason}; check topic, settings, the "
                "rights of the user (write to the topic, its transactions and its group) and "
                "max.message.bytes"
            )
        return self._away(reason)

    def _away(self, reason: str) -> OutletAwayError:
        return OutletAwayError(
            f"{shown(self.name)} does not answer: {reason}; the scores are in the table, and are "
            "published when the same command is run again"
        )


def _keys(rows: pa.RecordBatch, names: Sequence[str]) -> list[str | None]:
    """The keys of messages: the text of one column, or an object of several."""
    if not names:
        return [None] * rows.num_rows
    texts = json_rows(rows.select(names))
    if len(names) > 1:
        return list(texts)
    values = (json.loads(text)[names[0]] for text in texts)
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _resolved(name: str, option: str, value: str, environ: Mapping[str, str]) -> str:
    if value.startswith(_FROM_ENVIRONMENT):
        variable = value.removeprefix(_FROM_ENVIRONMENT)
        if variable not in environ:
            raise ConfigError(
                f"{shown(name)}: {option} is to be taken from the environment, which has no "
                f"{variable!r}; set that variable where the driver runs"
            )
        return environ[variable]
    if _SECRET.search(option):
        raise ConfigError(
            f"{shown(name)}: {option} is a secret, which lists of processes and job files would "
            f"show; put it into a variable of the environment and write {option}=env:NAME"
        )
    return value


def _without_secrets(text: str, config: Mapping[str, str]) -> str:
    for option, value in config.items():
        if value and _SECRET.search(option):
            text = text.replace(value, "***")
    return text
