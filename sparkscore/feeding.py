"""What has to run beside a stream so that rows come to its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, MissingExtraError
from sparkscore.files.spool import SPOOL_OPTION, Spool
from sparkscore.job_planning import Announce, source_spec
from sparkscore.names import feed_name, mqtt_source

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.scoring.engine import SourceSpec
    from sparkscore.scoring.streams import StreamFacts
    from sparkscore.stream_record import StreamRecord
    from sparkscore.workspace import Workspace

_QUIET_S = 2.0
"""With `available-now`: a broker that sends nothing for so long has sent what it had kept."""


def stream_spec(workspace: Workspace, job: JobSettings) -> SourceSpec:
    """What a stream reads; of a broker, the spool that its messages lie in.

    Raises:
        ConfigError: The spool would lie where only Spark can write.
        MissingExtraError: The client of the broker is not installed.
    """
    spec = source_spec(job)
    broker = mqtt_source(spec.uri)
    if broker is None:
        return spec
    if find_spec("paho") is None:
        raise MissingExtraError(
            "reading from an MQTT broker needs 'paho', which is not installed; "
            "run: pip install 'sparkscore[mqtt]'"
        )
    folder = spec.options.get(SPOOL_OPTION)
    if folder is None:
        assert job.stream.checkpoint is not None
        root = workspace.table_path(job.stream.checkpoint)
        if not isinstance(root, Path):
            raise ConfigError(
                f"messages of {broker.name!r} are kept in a folder before they are acknowledged, "
                f"and checkpoint {str(root)!r} lies in none; name one that workers see at the same "
                f"path with --source-option {SPOOL_OPTION}=FOLDER"
            )
        folder = str(root.absolute() / "sparkscore" / "mqtt")
    return replace(spec, uri=broker.name, options={**spec.options, SPOOL_OPTION: folder})


def spark_places(spec: SourceSpec, job: JobSettings) -> list[str]:
    """Where Spark itself reads and writes."""
    return [job.target.uri] if feed_name(spec.uri) else [spec.uri, job.target.uri]


@contextmanager
def feeding(
    workspace: Workspace,
    job: JobSettings,
    stream: StreamFacts,
    record: StreamRecord,
    announce: Announce,
) -> Iterator[None]:
    """Have a broker's messages come into the stream's spool while the block runs; else nothing.

    Raises:
        SourceAwayError: The broker does not answer, or another process fills the spool.
        SourceError: The broker refuses.
    """
    broker = mqtt_source(job.source.uri)
    if broker is None:
        yield
        return
    from sparkscore.mqtt_feed import MqttFeed

    spool = Spool(Path(stream_spec(workspace, job).options[SPOOL_OPTION]))
    client_id = f"sparkscore-{stream.stream_id[:12]}"  # 23 characters are what all brokers take.
    feed = MqttFeed(
        broker, spool, client_id, announce, lambda reason: record.waits("source", reason)
    )
    with feed:
        announce(f"Reading from {broker.name}")
        if job.stream.trigger == "available-now":
            feed.await_quiet(_QUIET_S)
        yield
