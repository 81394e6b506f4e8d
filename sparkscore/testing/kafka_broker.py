"""A real Kafka on loopback: one node, in a Java process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparkscore.spark.ivy import IvyProject
from sparkscore.spark.java import find_java
from sparkscore.testing.maven_jars import fetched_jars

USER = "scorer"
PASSWORD = "swordfish-7"  # noqa: S105 - of a broker that lives as long as the tests
_VERSION = "4.2.1"
_START_TIMEOUT_S = 120
_TIMEOUT_S = 30
_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
_SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config={login} user_{user}="{password}";
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
"""
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


class Message(NamedTuple):
    """What a topic holds at one offset."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str | bytes | None]


@dataclass(frozen=True)
class KafkaBroker:
    """A running broker.

    Attributes:
        address: Where it answers anybody.
        sasl_address: Where it asks for `USER` and `PASSWORD` (mechanism PLAIN).
    """

    address: str
    sasl_address: str

    @property
    def login(self) -> str:
        """What Kafka's Java clients take as `sasl.jaas.config`."""
        return f'{_LOGIN} username="{USER}" password="{PASSWORD}";'

    def new_topic(self, n_partitions: int = 1, name: str | None = None) -> str:
        """The name of a new and empty topic."""
        from confluent_kafka.cimpl import NewTopic

        name = name or f"topic-{uuid.uuid4().hex}"
        admin = self._admin()
        _await_all(admin.create_topics([NewTopic(name, n_partitions, 1)]))
        return name

    def remove_topic(self, name: str) -> None:
        """Remove a topic with all that it holds, and wait until it is gone."""
        admin = self._admin()
        _await_all(admin.delete_topics([name]))
        deadline = time.monotonic() + _TIMEOUT_S
        while name in admin.list_topics(timeout=_TIMEOUT_S).topics:
            assert time.monotonic() < deadline, f"topic {name} stays"
            time.sleep(0.05)  # The removal goes on after the answer.

    def remove_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Remove a partition's messages before an offset, as an end of their retention does."""
        from confluent_kafka import TopicPartition

        admin = self._admin()
        _await_all(admin.delete_records([TopicPartition(topic, partition, offset)]))

    def send(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        partition: int = 0,
        transaction: str | None = None,
        aborts: bool = False,
    ) -> None:
        """Append messages to a partition, and wait until they are there.

        Args:
            topic: Its name.
            values: One a message.
            keys: One a message; None: there are none.
            partition: Of the topic.
            transaction: An id: they are sent as one transaction; None: as they are.
            aborts: Whether the transaction is given up, so that nobody may see them.
        """
        from confluent_kafka import Producer

        settings: dict[str, Any] = {"bootstrap.servers": self.address, "log_level": 3}
        if transaction is not None:
            settings["transactional.id"] = transaction
        producer = Producer(settings)
        if transaction is not None:
            producer.init_transactions(_TIMEOUT_S)
            producer.begin_transaction()
        for value, key in zip(values, keys or [None] * len(values), strict=True):
            producer.produce(topic, value, key, partition)
        left = producer.flush(_TIMEOUT_S)
        assert left == 0, f"{left} messages were not taken"
        if transaction is not None and aborts:
            producer.abort_transaction(_TIMEOUT_S)
        elif transaction is not None:
            producer.commit_transaction(_TIMEOUT_S)

    def messages(self, topic: str) -> list[Message]:
        """All that a topic holds, partition by partition, but for transactions given up."""
        from confluent_kafka import Consumer, KafkaError, TopicPartition

        found: list[Message] = []
        settings = {
            "bootstrap.servers": self.address,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        consumer = Consumer(settings)
        try:
            for partition in consumer.list_topics(topic, _TIMEOUT_S).topics[topic].partitions:
                start, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition))
                consumer.assign([TopicPartition(topic, partition, start)])
                while True:
                    message = consumer.poll(_TIMEOUT_S)
                    assert message is not None, f"partition {partition} of {topic} has no end"
                    error = message.error()
                    if error is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        break
                    headers = dict(message.headers() or [])
                    found.append(Message(message.key(), message.value(), headers))
        finally:
            consumer.close()
        return found

    def is_ready(self) -> bool:
        """Whether it answers, for the offsets of groups too, which it makes room for when asked."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        settings = {"bootstrap.servers": self.address, "group.id": "ready", "log_level": 0}
        consumer = Consumer(settings)
        try:
            self._admin().list_topics(timeout=1)
            consumer.committed([TopicPartition("ready", 0)], timeout=1)
        except KafkaException:
            return False
        finally:
            consumer.close()
        return True

    def _admin(self) -> Any:  # noqa: ANN401 - the client's class says nothing of its methods
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})


@contextmanager
def running_kafka(cache: Path) -> Iterator[KafkaBroker]:
    """A new and empty broker until the block ends, or this process does.

    Args:
        cache: Where the jars are kept for good; they are fetched as Delta's are.
    """
    # With jars of its own: those that Spark brings under the same names are other releases.
    project = IvyProject("org.apache.kafka", "kafka_2.13", _VERSION, excluded=())
    jars = fetched_jars(cache, f"kafka-broker-{_VERSION}", [project])
    java = str(find_java(cache, os.environ).executable)
    program = [java, *_OPTIONS, "-cp", os.pathsep.join(map(str, jars))]
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-kafka-"))
    plain, sasl, controller = _free_ports(3)
    settings = folder / "server.properties"
    settings.write_text(
        _SETTINGS.format(
            plain=plain,
            sasl=sasl,
            controller=controller,
            login=_LOGIN,
            user=USER,
            password=PASSWORD,
            data=folder / "data",
        )
    )
    process: subprocess.Popen[bytes] | None = None
    try:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_it = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(settings))
        done = subprocess.run(  # noqa: S603 - our own command line, no shell
            [*program, *format_it], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        log = folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                _bound_to_us([*program, "kafka.Kafka", str(settings)]),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        broker = KafkaBroker(f"127.0.0.1:{plain}", f"127.0.0.1:{sasl}")
        _await(broker, process, log)
        yield broker
    finally:
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def _bound_to_us(command: list[str]) -> list[str]:
    """A command whose process is killed when the one that starts it dies, where that is possible.

    By setpriv of util-linux: a function that Python would run between fork and exec may hang.
    """
    setpriv = shutil.which("setpriv")
    return command if setpriv is None else [setpriv, "--pdeathsig", "KILL", *command]


def _await_all(futures: Mapping[Any, Any]) -> None:
    for future in futures.values():
        future.result(_TIMEOUT_S)


def _await(broker: KafkaBroker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if broker.is_ready():
            return
    raise AssertionError(f"no Kafka within {_START_TIMEOUT_S} s:\n{log.read_text()[-2000:]}")


def _free_ports(n: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
