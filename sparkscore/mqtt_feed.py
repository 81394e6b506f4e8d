"""Rows from an MQTT broker: a client that keeps messages in a spool before it acknowledges them.

MQTT has no replay. A broker keeps messages for a client that is away, if the client has a session,
and sends again what was not acknowledged. So the client has a name that stays, asks for quality of
service 1, and acknowledges only what lies in the spool. What a broker sends again that lies there
already, since an acknowledgement was lost, is known by its place: brokers send again the last of
what they had sent, in the same order. (Packet identifiers would say so too, but some brokers give
new ones.)
"""

from __future__ import annotations

import datetime as dt
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from sparkscore.errors import (
    CheckpointError,
    SourceAwayError,
    SourceError,
    shown,
)
from sparkscore.files.spool import Message, Spool
from sparkscore.names import MqttSource

if TYPE_CHECKING:
    from types import TracebackType

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

_VARIABLE = "SPARKSCORE_MQTT_PASSWORD"
_QOS = 1
_KEEPALIVE_S = 30
_CONNECT_S = 15.0
_GATHER_S = 0.1
_GATHER = 1000
"""Messages that become one segment, or those that come within a tenth of a second."""
_BURST = 16
_PAUSE_S = 0.005
"""After which a burst counts as over: a broker sends a hundred or so, then waits for answers."""
_HOLD_S = 3.0
_RETRY_S = 1.0


class Resumption:
    """Tells what a broker sends again from what is new, after it has taken up a session again.

    What was not acknowledged are the last messages of those that were sent, so that what comes
    first repeats an end of `recent`. Messages that could be such an end are held, until it is
    whole (they were known) or another message comes (they were new).

    Args:
        recent: Digests of messages that are kept, the newest last.
    """

    def __init__(self, recent: Sequence[str]) -> None:
        self._recent = recent
        self._next = list(range(len(recent)))
        self._held: list[Delivery] = []

    @property
    def is_over(self) -> bool:
        """Whether all that comes from now on is new."""
        return not self._next

    def take(self, delivery: Delivery) -> tuple[list[Delivery], list[Delivery]]:
        """Which deliveries are now known to be new, and which to be repeats."""
        digest = delivery.message.digest
        if self.is_over:
            return [delivery], []
        self._next = [i + 1 for i in self._next if self._recent[i] == digest]
        self._held.append(delivery)
        if not self._next:
            return self.give_up(), []
        if self._next[-1] == len(self._recent):
            held = self.give_up()
            return [], held
        return [], []

    def give_up(self) -> list[Delivery]:
        """Take what is held for new."""
        held, self._held, self._next = self._held, [], []
        return held


@dataclass(frozen=True)
class Delivery:
    """A message, and how it is acknowledged.

    Attributes:
        connection: Counted from 1: an acknowledgement is for the connection that brought it.
    """

    message: Message
    packet_id: int
    qos: int
    connection: int


@dataclass(frozen=True)
class _Connected:
    """The broker has taken the client in; deliveries come after it."""

    is_resumed: bool


class MqttFeed:
    """Fills a spool with the messages of a broker, in threads of its own.

    Args:
        uri: Which broker and topics.
        spool: Where messages lie until they are scored.
        client_id: Names the session at the broker; one a stream, for its whole life.
        announce: Told in one line what a person should know.
        on_wait: Told why no message comes, when that begins; and None when they come again.
    """

    def __init__(
        self,
        uri: MqttSource,
        spool: Spool,
        client_id: str,
        announce: Callable[[str], None],
        on_wait: Callable[[Exception | None], None],
    ) -> None:
        self._uri = uri
        self._spool = spool
        self._announce = announce
        self._on_wait = on_wait
        self._items: queue.SimpleQueue[Delivery | _Connected | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._connection = 0
        self._is_connected = False
        self._answered = threading.Event()
        self._refusal: Exception | None = None
        self._resumption = Resumption(())
        self._knows_retained = False
        self._last_at = time.monotonic()
        self._is_ending = False
        self._client = self._made_client(client_id)
        self._thread = threading.Thread(target=self._run, name="sparkscore-mqtt", daemon=True)

    def __enter__(self) -> Self:
        """Connect; messages come from then on.

        Raises:
            SourceAwayError: The broker does not answer.
            SourceError: It refuses the client, or the topics.
        """
        try:
            self._client.connect(self._uri.host, self._uri.port, _KEEPALIVE_S)
        except OSError as exc:
            self._spool.close()
            raise self._away(exc) from exc
        self._thread.start()
        self._client.loop_start()
        is_answered = self._answered.wait(_CONNECT_S)
        if self._refusal is not None or not is_answered:
            self._stop()
            raise self._refusal or self._away("it accepts the connection and says nothing")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def await_quiet(self, seconds: float) -> None:
        """Wait until no message has come for a while: the broker has sent what it had kept."""
        self._last_at = time.monotonic()
        while (left_s := self._last_at + seconds - time.monotonic()) > 0:
            time.sleep(left_s)

    def _stop(self) -> None:
        """Keep what has come, and leave; the broker keeps the session and what comes later."""
        self._is_ending = True
        self._items.put(None)
        if self._thread.is_alive():
            self._thread.join(_CONNECT_S)
        self._client.disconnect()
        self._client.loop_stop()
        self._spool.close()

    def _made_client(self, client_id: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=False, manual_ack=True
        )
        if self._uri.user is not None:
            client.username_pw_set(self._uri.user, self._uri.password or os.environ.get(_VARIABLE))
        if self._uri.is_encrypted:
            client.tls_set()
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        return client

    def _away(self, why: object) -> SourceAwayError:
        return SourceAwayError(
            f"broker {shown(self._uri.name)} does not answer: {why}; look whether it runs and can "
            "be reached, then run the same command again"
        )

    def _connected(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refuse(f"refuses the connection: {reason}; check user and {_VARIABLE}")
            return
        is_resumed = bool(flags.session_present)
        with self._lock:
            self._connection += 1
            self._is_connected = True
        self._items.put(_Connected(is_resumed))
        self._knows_retained = is_resumed and not self._spool.is_new
        # Each time: a session may be there whose first client was killed before it said so.
        client.subscribe(self._uri.topic, _QOS)
        if not is_resumed and not self._spool.is_new:
            self._announce(
                f"broker {self._uri.name} has forgotten the session of this stream: what came "
                "while it was away is lost"
            )
        self._on_wait(None)

    def _subscribed(
        self,
        _client: paho.Client,
        _userdata: object,
        _packet_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refuse(f"does not let this user read {self._uri.topic!r}")
        self._answered.set()

    def _refuse(self, why: str) -> None:
        self._refusal = SourceError(f"broker {shown(self._uri.name)} {why}")
        self._on_wait(self._refusal)
        self._answered.set()

    def _disconnected(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._lock:
            was_connected, self._is_connected = self._is_connected, False
        if not was_connected and not self._answered.is_set():
            self._refusal = self._away(
                f"it ends the connection before it answers ({reason}), as some do that refuse a "
                f"login; check user and {_VARIABLE}"
            )
            self._answered.set()
        if was_connected and not self._is_ending:
            self._announce(f"the connection to {self._uri.name} is lost ({reason}); trying again")
            self._on_wait(self._away(reason))

    def _received(self, client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.retain and self._knows_retained:
            # To subscribe again brings again what came when the session began, or later as new.
            client.ack(message.mid, message.qos)
            return
        kept = Message(message.topic, bytes(message.payload), dt.datetime.now(dt.UTC))
        self._last_at = time.monotonic()
        self._items.put(Delivery(kept, message.mid, message.qos, self._connection))

    def _run(self) -> None:
        try:
            self._fill()
        except Exception as exc:  # noqa: BLE001 - a thread's edge: it must not end in silence
            what = f"{type(exc).__name__}: {exc}"
            failure = SourceError(
                f"messages of broker {shown(self._uri.name)} are not kept any more: {what}; what "
                "was not kept was not acknowledged, so start the stream again, and report this"
            )
            self._announce(str(failure))
            self._on_wait(failure)

    def _fill(self) -> None:
        """Move deliveries into the spool until the end, and those that came before it too."""
        is_last = False
        while not is_last:
            items, is_last = self._gathered()
            new: list[Delivery] = []
            repeats: list[Delivery] = []
            for item in items:
                if isinstance(item, Delivery):
                    more_new, more_repeats = self._resumption.take(item)
                    new += more_new
                    repeats += more_repeats
                else:
                    self._keep(new, repeats)
                    new, repeats = self._resume(item), []
            if not items and not is_last:  # It is quiet; what is held at the end comes again.
                new += self._resumption.give_up()
            self._keep(new, repeats)

    def _gathered(self) -> tuple[list[Delivery | _Connected], bool]:
        """What comes within a moment of the first; and whether nothing follows."""
        items: list[Delivery | _Connected] = []
        ends_at = time.monotonic() + _HOLD_S
        while len(items) < _GATHER:
            left_s = max(0.0, ends_at - time.monotonic())
            try:
                item = self._items.get(timeout=left_s if len(items) < _BURST else _PAUSE_S)
            except queue.Empty:
                break
            if item is None:
                return items, True
            if not items:
                ends_at = time.monotonic() + _GATHER_S
            items.append(item)
        return items, False

    def _resume(self, connected: _Connected) -> list[Delivery]:
        """Begin to look for repeats; what was held until now comes again, or else is new."""
        held = self._resumption.give_up()
        if connected.is_resumed:
            self._resumption = Resumption(self._spool.recent)
            return []
        return held

    def _keep(self, new: Sequence[Delivery], repeats: Sequence[Delivery]) -> None:
        """Put what is new into the spool, and then acknowledge all, each to its connection."""
        while new:
            try:
                self._spool.add([each.message for each in new])
                break
            except CheckpointError as exc:  # Such as a full disk: the broker keeps them meanwhile.
                if self._is_ending:
                    return
                self._on_wait(exc)
                time.sleep(_RETRY_S)
        with self._lock:
            for each in (*repeats, *new):
                if self._is_connected and each.connection == self._connection:
                    self._client.ack(each.packet_id, each.qos)
