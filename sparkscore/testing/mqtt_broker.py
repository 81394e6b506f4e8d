"""A real MQTT broker on loopback: rumqttd, from the wheel `iotcore`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class MqttBroker:
    """A broker that keeps sessions in its memory, while it runs.

    It sends again what was not acknowledged, as new and under new packet identifiers.
    """

    port: int


@contextmanager
def running_broker() -> Iterator[MqttBroker]:
    """A new broker until the block ends, in a process of its own."""
    from iotcore import Broker

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with Broker(port=port, listen="127.0.0.1"):
        yield MqttBroker(port)
