"""A real MQTT broker on loopback: rumqttd, from the wheel `iotcore`."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
"""
_LOGIN = """
[v4.1.connections.auth]
{user} = "{password}"
"""


@dataclass(frozen=True)
class MqttBroker:
    """A broker that keeps sessions in its memory, while it runs.

    It sends again what was not acknowledged, as new and under new packet identifiers.
    """

    port: int


@contextmanager
def running_broker(login: tuple[str, str] | None = None) -> Iterator[MqttBroker]:
    """A new broker until the block ends, in a process of its own.

    Args:
        login: The one user with a password; None: anybody.
    """
    from iotcore import Broker

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    text = _CONFIG.format(port=port)
    if login is not None:
        text += _LOGIN.format(user=login[0], password=login[1])
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "broker.toml"
        config.write_text(text, encoding="utf-8")
        with Broker(config_path=str(config)):
            yield MqttBroker(port)
