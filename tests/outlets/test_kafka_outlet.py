"""Each row of a stream as a message of a real Kafka: a batch whole, and once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError, InvalidNameError, OutletAwayError, OutletError
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.outlets.kafka import KafkaOutlet, parse_kafka_uri
from sparkscore.testing.kafka_broker import PASSWORD, USER

if TYPE_CHECKING:
    from sparkscore.testing.kafka_broker import KafkaBroker

ROWS = pa.RecordBatch.from_pydict(
    {"sensor": ["a", "ä"], "n": [1, 2], "score": [0.5, None], "model_digest": ["d1", "d2"]}
)
SHAPE = ScoreShape(ROWS.schema, ("sensor",))


class KilledError(Exception):
    """Stands for the end of a process."""


def batch(number: int, *parts: pa.RecordBatch, stream: str = "s1") -> CommittedBatch:
    return CommittedBatch(SHAPE, stream, number, lambda: iter(parts or (ROWS,)))


def cut_off(number: int) -> CommittedBatch:
    """A batch whose reader is killed in the middle."""

    def rows() -> Iterator[pa.RecordBatch]:
        yield ROWS
        raise KilledError

    return CommittedBatch(SHAPE, "s1", number, rows)


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    return kafka.new_topic()


def outlet(kafka: KafkaBroker, topic: str, more: str = "") -> KafkaOutlet:
    uri = f"kafka:{topic}?bootstrap.servers={kafka.address}{more}"
    return KafkaOutlet(parse_kafka_uri(uri), timeout_s=10)


def test_row_is_a_message_with_key_value_and_where_it_comes_from(
    kafka: KafkaBroker, topic: str
) -> None:
    by_key, by_several = outlet(kafka, topic), outlet(kafka, topic, "&key=sensor,n")
    by_key.check(SHAPE)
    assert by_key.publish(batch(3)) == 2
    assert by_several.publish(batch(0, stream="s2")) == 2
    found = kafka.messages(topic)
    assert [message.key for message in found] == [
        b"a",
        "ä".encode(),
        b'{"sensor": "a", "n": 1}',
        '{"sensor": "ä", "n": 2}'.encode(),
    ]
    values = [json.loads(message.value or b"") for message in found]
    assert values == [*ROWS.to_pylist(), *ROWS.to_pylist()]
    assert found[1].headers == {
        "sparkscore.stream": b"s1",
        "sparkscore.batch": b"3",
        "sparkscore.row": b"1",
        "sparkscore.model": b"d2",
    }


def test_batch_is_sent_once_however_often_it_is_published(kafka: KafkaBroker, topic: str) -> None:
    first = outlet(kafka, topic)
    assert [first.publish(batch(0)), first.publish(batch(0))] == [2, 0]
    # Another process, which knows nothing but what the brokers say.
    second = outlet(kafka, topic)
    assert [second.publish(batch(0)), second.publish(batch(1))] == [0, 2]
    assert len(kafka.messages(topic)) == 4


def test_batch_that_is_cut_off_is_not_seen_and_sent_whole_later(
    kafka: KafkaBroker, topic: str
) -> None:
    cut = outlet(kafka, topic)
    with pytest.raises(KilledError):
        cut.publish(cut_off(0))
    assert kafka.messages(topic) == []
    assert outlet(kafka, topic).publish(batch(0)) == 2
    assert len(kafka.messages(topic)) == 2


def test_process_that_was_followed_by_another_sends_no_more(kafka: KafkaBroker, topic: str) -> None:
    old, new = outlet(kafka, topic), outlet(kafka, topic)
    old.publish(batch(0))
    new.publish(batch(1))
    with pytest.raises(OutletError, match="another process publishes"):
        old.publish(batch(2))
    assert len(kafka.messages(topic)) == 4


def test_row_that_is_too_large_is_refused_with_all_of_its_batch(
    kafka: KafkaBroker, topic: str
) -> None:
    large = ROWS.set_column(0, "sensor", pa.array(["x" * 2_000_000, "b"]))
    with pytest.raises(OutletError, match=r"max\.message\.bytes"):
        outlet(kafka, topic).publish(batch(0, ROWS, large))
    assert kafka.messages(topic) == []


def test_topic_that_is_not_there_is_refused_before_anything_is_sent(kafka: KafkaBroker) -> None:
    with pytest.raises(OutletError, match="Unknown topic"):
        outlet(kafka, "nothing").check(SHAPE)


def test_brokers_that_do_not_answer_are_away() -> None:
    uri = parse_kafka_uri("kafka:t?bootstrap.servers=127.0.0.1:1")
    with pytest.raises(OutletAwayError, match="does not answer"):
        KafkaOutlet(uri, timeout_s=0.5).check(SHAPE)


def test_password_is_taken_from_the_environment_and_not_told(
    kafka: KafkaBroker, topic: str
) -> None:
    login = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.password=env:KAFKA_PASSWORD"
    place = f"kafka:{topic}?bootstrap.servers={kafka.sasl_address}&{login}&sasl.username="
    environ = {"KAFKA_PASSWORD": PASSWORD}
    mine = parse_kafka_uri(place + USER, environ)
    KafkaOutlet(mine, timeout_s=10).check(SHAPE)
    assert PASSWORD not in mine.name
    theirs = KafkaOutlet(parse_kafka_uri(place + "nobody", environ), timeout_s=1)
    with pytest.raises(OutletError, match="Invalid username or password") as caught:
        theirs.check(SHAPE)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("kafka:t", "names no brokers"),
        ("kafka:t?bootstrap.servers=h:1&sasl.password=hunter2", "sasl.password=env:NAME"),
        ("kafka:t?bootstrap.servers=h:1&sasl.password=env:NONE", "has no 'NONE'"),
        ("kafka:t?bootstrap.servers=h:1&transactional.id=x", "'transactional.id' belongs to"),
    ],
)
def test_uri_is_refused_with_what_is_wrong(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_kafka_uri(uri, {})
    assert "hunter2" not in str(caught.value)


def test_uri_names_a_topic() -> None:
    with pytest.raises(InvalidNameError):
        parse_kafka_uri("kafka:?bootstrap.servers=h:1")


def test_key_has_to_be_a_column_of_the_rows() -> None:
    uri = parse_kafka_uri("kafka:t?bootstrap.servers=127.0.0.1:1&key=place")
    with pytest.raises(ConfigError, match="--keep place"):
        KafkaOutlet(uri).check(SHAPE)


def test_setting_that_kafka_does_not_know_is_told(kafka: KafkaBroker, topic: str) -> None:
    with pytest.raises(OutletError, match="nonsense"):
        outlet(kafka, topic, "&nonsense=1").check(SHAPE)
