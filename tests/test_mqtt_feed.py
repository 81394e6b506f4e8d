"""What a real broker sends is in the spool once, whatever becomes of connection and process."""

from __future__ import annotations

import datetime as dt
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pyarrow.parquet as pq
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from sparkscore.errors import InvalidNameError, SourceAwayError
from sparkscore.files.spool import Message, Spool, segment_path, segments_in
from sparkscore.mqtt_feed import Delivery, MqttFeed, Resumption
from sparkscore.names import mqtt_source
from sparkscore.testing.mqtt_broker import MqttBroker, running_broker

_WAIT_S = 60


def delivery(text: str, packet_id: int = 0) -> Delivery:
    return Delivery(Message("t", text.encode(), dt.datetime.now(dt.UTC)), packet_id, 1, 1)


def resumed(recent: str, coming: str) -> tuple[str, str]:
    """What of the coming messages, a letter each, is new and what is known."""
    resumption = Resumption([delivery(text).message.digest for text in recent])
    new, repeats = [], []
    for text in coming:
        more_new, more_repeats = resumption.take(delivery(text))
        new += more_new
        repeats += more_repeats
    new += resumption.give_up()
    texts = ["".join(d.message.payload.decode() for d in each) for each in (new, repeats)]
    return texts[0], texts[1]


@pytest.mark.parametrize(
    ("recent", "coming", "new", "repeats"),
    [
        ("abc", "bcde", "de", "bc"),  # Two acknowledgements were lost.
        ("abc", "abcd", "d", "abc"),
        ("abc", "de", "de", ""),  # None was.
        ("abc", "ade", "ade", ""),  # A value that came before comes anew.
        ("abc", "b", "b", ""),
        ("aba", "ac", "c", "a"),
        ("abab", "abc", "c", "ab"),
        ("", "ab", "ab", ""),
        ("aab", "ab", "", "ab"),
    ],
)
def test_what_is_sent_again_is_told_from_what_is_new(
    recent: str, coming: str, new: str, repeats: str
) -> None:
    assert resumed(recent, coming) == (new, repeats)


@dataclass
class Wire:
    """A way to the broker that can be cut."""

    port_behind: int
    open_sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def cut(self) -> None:
        """End all connections at once."""
        while self.open_sockets:
            with suppress(OSError):  # The other end was quicker.
                self.open_sockets.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port_behind))
            self.open_sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()


def send(mqtt_sender: paho.Client, topic: str, *payloads: str) -> None:
    for payload in payloads:
        mqtt_sender.publish(topic, payload, qos=1).wait_for_publish(_WAIT_S)


def ids(folder: Path) -> list[int]:
    numbers = segments_in(folder)
    values = [v for n in numbers for v in pq.read_table(segment_path(folder, n))["value"]]
    return [int(value.as_py()) for value in values]


def wait_until(sign: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not sign():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # Another process writes: nothing here can notify us.


@dataclass
class Feeds:
    """Makes feeds of one session, in one spool."""

    folder: Path
    topic: str
    told: list[str] = field(default_factory=list)
    waits: list[Exception | None] = field(default_factory=list)

    def feed(self, port: int, spool: Spool | None = None, login: str = "") -> MqttFeed:
        uri = mqtt_source(f"mqtt://{login}127.0.0.1:{port}/{self.topic}/#")
        assert uri is not None
        kept = spool or Spool(self.folder)
        return MqttFeed(uri, kept, self.topic, self.told.append, self.waits.append)


@pytest.fixture
def feeds(tmp_path: Path, request: pytest.FixtureRequest) -> Feeds:
    return Feeds(tmp_path, request.node.name.replace("[", "_")[:60])


def test_messages_come_into_the_spool_and_none_twice_over_restarts(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds
) -> None:
    with feeds.feed(mqtt_broker.port) as feed:
        send(mqtt_sender, f"{feeds.topic}/a", "1", "2")
        wait_until(lambda: ids(feeds.folder) == [1, 2])
        feed.await_quiet(0.1)
    send(mqtt_sender, f"{feeds.topic}/b", "3")  # Kept by the broker meanwhile.
    with feeds.feed(mqtt_broker.port):
        send(mqtt_sender, f"{feeds.topic}/b", "4")
        wait_until(lambda: len(ids(feeds.folder)) >= 4)
    assert ids(feeds.folder) == [1, 2, 3, 4]
    assert feeds.told == []


def test_acknowledgements_that_are_lost_double_nothing(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(paho.Client, "ack", lambda *_: None)
        with feeds.feed(mqtt_broker.port):
            send(mqtt_sender, feeds.topic, *(str(i) for i in range(20)))
            wait_until(lambda: len(ids(feeds.folder)) == 20)
    with feeds.feed(mqtt_broker.port):
        send(mqtt_sender, feeds.topic, "20")
        wait_until(lambda: 20 in ids(feeds.folder))
    assert ids(feeds.folder) == list(range(21))


def test_what_was_not_kept_is_not_acknowledged(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds
) -> None:
    spool = Spool(feeds.folder)
    (feeds.folder / "segments").rmdir()  # As on a full disk.
    with feeds.feed(mqtt_broker.port, spool):
        send(mqtt_sender, feeds.topic, "1")
        wait_until(lambda: any("cannot be written" in str(each) for each in feeds.waits))
    with feeds.feed(mqtt_broker.port):
        wait_until(lambda: ids(feeds.folder) == [1])


def test_what_nobody_foresaw_is_told_and_nothing_is_acknowledged(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "add", fail)
        with feeds.feed(mqtt_broker.port):
            send(mqtt_sender, feeds.topic, "1")
            wait_until(lambda: any("unforeseen" in str(each) for each in feeds.waits))
    assert any("unforeseen" in line for line in feeds.told)
    with feeds.feed(mqtt_broker.port):
        wait_until(lambda: ids(feeds.folder) == [1])


def test_a_connection_that_is_cut_again_and_again_loses_and_doubles_nothing(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds
) -> None:
    wire = Wire(mqtt_broker.port)
    with feeds.feed(wire.port):
        for start in range(0, 300, 100):
            send(mqtt_sender, feeds.topic, *(str(i) for i in range(start, start + 50)))
            wire.cut()
            send(mqtt_sender, feeds.topic, *(str(i) for i in range(start + 50, start + 100)))
            wait_until(lambda last=start + 99: last in ids(feeds.folder))  # type: ignore[misc]
    wire.close()
    assert ids(feeds.folder) == list(range(300))
    assert any("is lost" in line for line in feeds.told)
    assert {type(each) for each in feeds.waits} == {SourceAwayError, type(None)}


def test_retained_messages_come_once(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds
) -> None:
    mqtt_sender.publish(f"{feeds.topic}/a", "1", qos=1, retain=True).wait_for_publish(_WAIT_S)
    for last in (2, 3):
        with feeds.feed(mqtt_broker.port):
            wait_until(lambda: 1 in ids(feeds.folder))
            send(mqtt_sender, f"{feeds.topic}/b", str(last))
            wait_until(lambda n=last: n in ids(feeds.folder))  # type: ignore[misc]
    assert ids(feeds.folder) == [1, 2, 3]


def test_a_session_without_topics_gets_them(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, feeds: Feeds
) -> None:
    killed = paho.Client(CallbackAPIVersion.VERSION2, feeds.topic, clean_session=False)
    killed.connect("127.0.0.1", mqtt_broker.port)
    killed.loop_start()
    wait_until(killed.is_connected)
    killed.disconnect()
    killed.loop_stop()
    with feeds.feed(mqtt_broker.port):
        send(mqtt_sender, feeds.topic, "1")
        wait_until(lambda: ids(feeds.folder) == [1])


def test_a_session_that_the_broker_has_forgotten_is_told(feeds: Feeds) -> None:
    for _ in range(2):
        with running_broker() as fresh, feeds.feed(fresh.port):
            client = paho.Client(CallbackAPIVersion.VERSION2)
            client.connect("127.0.0.1", fresh.port)
            client.loop_start()
            send(client, feeds.topic, "1")
            n_before = len(feeds.told)
            wait_until(lambda n=n_before: len(ids(feeds.folder)) == n + 1)  # type: ignore[misc]
            client.disconnect()
            client.loop_stop()
    assert len(feeds.told) == 1
    assert "has forgotten the session" in feeds.told[0]


def test_a_broker_that_is_away_is_named_and_the_spool_is_free(feeds: Feeds) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = int(closed.getsockname()[1])
    for _ in range(2):
        with pytest.raises(SourceAwayError, match=f"127.0.0.1:{port}"), feeds.feed(port):
            pass


def test_a_login_that_is_refused_is_named(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_broker(("reader", "geheim")) as guarded:
        with feeds.feed(guarded.port, login="reader:geheim@"):
            pass
        monkeypatch.setenv("SPARKSCORE_MQTT_PASSWORD", "geheim")
        with feeds.feed(guarded.port, login="reader@"):
            pass
        refused = feeds.feed(guarded.port, login="reader:falsch@")
        with pytest.raises(SourceAwayError, match="SPARKSCORE_MQTT_PASSWORD") as told, refused:
            pass
    assert "falsch" not in str(told.value)


@pytest.mark.parametrize(
    "uri", ["mqtt://h", "mqtt://h/", "mqtt:///t", "mqtt://h:x/t", "mqtt://h/a#", "mqtt://h/#/a",
            "mqtt://h/a+/b"],
)  # fmt: skip
def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="mqtt://HOST"):
        mqtt_source(uri)


def test_a_uri_tells_broker_login_and_topics() -> None:
    uri = mqtt_source("mqtts://u:ge%3Aheim@host/plant/+/temp/#")
    assert uri is not None
    assert (uri.host, uri.port, uri.is_encrypted) == ("host", 8883, True)
    assert (uri.topic, uri.user, uri.password) == ("plant/+/temp/#", "u", "ge:heim")
    assert uri.name == "mqtts://u@host/plant/+/temp/#"
    assert "heim" not in repr(uri)
    assert mqtt_source("s3://bucket/t") is None
