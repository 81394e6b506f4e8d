"""What a broker or a feed of the user's sends is scored once, whatever happens meanwhile."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest
from deltalake import DeltaTable
from pyspark import cloudpickle

from sparkscore.testing.mqtt_broker import MqttBroker

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")
_WAIT_S = 60


def stream(source: str, *more: str) -> list[str]:
    return [
        *("--model", "models:/linear@champion", "--source", source, "--target", "./scores"),
        *("--key", "id", "--checkpoint", "./checkpoint", "--trust-code", "--name", "telemetry"),
        *more,
    ]


def read_rows(mqtt_broker: MqttBroker, *more: str) -> list[str]:
    """The arguments of a stream of what machines send."""
    schema = ("--source-schema", "id BIGINT, x DOUBLE", "--keep", "mqtt_topic")
    rejects = ("--on-invalid", "quarantine", "--max-rejects", "10")
    return stream(f"mqtt://127.0.0.1:{mqtt_broker.port}/plant/#", *schema, *rejects, *more)


def send(mqtt_sender: paho.Client, ids: range) -> None:
    for i in ids:
        payload = f'{{"id": {i}, "x": {i / 8}}}'
        mqtt_sender.publish(f"plant/{i % 3}", payload, qos=1).wait_for_publish(_WAIT_S)


def n_scored(world: World) -> int:
    if not world.commits("scores"):
        return 0
    return int(DeltaTable(world.folder / "scores").to_pyarrow_table().num_rows)


def has_scored(world: World, n_rows: int) -> bool:
    return n_scored(world) >= n_rows


def test_a_killed_stream_of_a_broker_loses_and_doubles_nothing(
    mqtt_broker: MqttBroker, mqtt_sender: paho.Client, world: World, run: Run
) -> None:
    job = world.start("score", "stream", *read_rows(mqtt_broker, "--trigger", "continuous-service"))
    segments = world.folder / "checkpoint" / "sparkscore" / "mqtt" / "segments"
    job.await_sign(segments.is_dir)
    job.await_sign(lambda: "as rows come" in (world.folder / "job.err").read_text())
    job.await_sign(partial(_is_subscribed, world))
    send(mqtt_sender, range(100))
    job.await_sign(partial(has_scored, world, 1))
    send(mqtt_sender, range(100, 150))
    job.kill_group()
    mqtt_sender.publish("plant/0", "no json", qos=1).wait_for_publish(_WAIT_S)
    send(mqtt_sender, range(150, 200))
    last = run("score", "stream", *read_rows(mqtt_broker))
    assert last.exit_code == 0, last.stderr
    table = DeltaTable(world.folder / "scores").to_pyarrow_table().sort_by("id")
    assert table["id"].to_pylist() == list(range(200))
    assert table["mqtt_topic"].to_pylist() == [f"plant/{i % 3}" for i in range(200)]
    assert table["prediction"].to_pylist() == [i / 8 * 2 + 1 for i in range(200)]
    assert last.result["output"]["rejected"] == 1


@pytest.mark.usefixtures("world")
def test_a_run_to_which_nothing_was_sent_is_skipped(mqtt_broker: MqttBroker, run: Run) -> None:
    empty = run("score", "stream", *read_rows(mqtt_broker))
    assert (empty.exit_code, empty.result["status"]) == (0, "skipped"), empty.stderr
    assert empty.result["message"] == "no row had come"


def _is_subscribed(world: World) -> bool:
    """Whether the job has a session at the broker: from then on nothing is lost."""
    return "Reading from mqtt://" in (world.folder / "job.err").read_text()


@pytest.fixture
def counting_feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a feed in a module that this process alone can import."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = importlib.import_module("counting_feed")
    register: Callable[[ModuleType], None] = cloudpickle.register_pickle_by_value
    unregister: Callable[[ModuleType], None] = cloudpickle.unregister_pickle_by_value
    register(module)  # Workers have not this process's path.
    yield "python:counting_feed:CountingFeed"
    unregister(module)


def test_a_feed_of_the_users_is_a_stream(counting_feed: str, world: World, run: Run) -> None:
    source = counting_feed
    first = run("score", "stream", *stream(source, "--source-option", "rows=10"))
    assert (first.exit_code, first.result["output"]["rows"]) == (0, 10), first.stderr
    again = run("score", "stream", *stream(source, "--source-option", "rows=25"))
    assert again.result["output"]["rows"] == 15
    table = DeltaTable(world.folder / "scores").to_pyarrow_table()
    assert sorted(table["id"].to_pylist()) == list(range(25))


@pytest.mark.parametrize(
    ("source", "more", "code", "named"),
    [
        ("mqtt://127.0.0.1:1/t", ("--source-schema", "id BIGINT, x DOUBLE"), 75, "does not answer"),
        ("mqtt://127.0.0.1:1/t", (), 2, "--source-schema"),
        ("mqtt://u:geheim@h/a#", (), 2, "topic filter"),
        ("mqtt://u:geheim@h/a", ("--source-option", "qos=2"), 2, "maxFilesPerTrigger"),
        (
            "mqtt://h/a",
            ("--source-option", "maxFilesPerTrigger=0", "--source-schema", "id BIGINT, x DOUBLE"),
            2,
            "whole number",
        ),
        ("python:no.such.module:Feed", (), 2, "no.such.module"),
        ("python:pathlib:Path", (), 2, "DataSource"),
        ("python:pathlib", (), 2, "python:PACKAGE.MODULE:CLASS"),
    ],
)
def test_what_sends_no_rows_is_refused(
    source: str, more: tuple[str, ...], code: int, named: str, world: World, run: Run
) -> None:
    refused = run("score", "stream", *stream(source, *more))
    assert (refused.exit_code, named in refused.stderr) == (code, True), refused.stderr
    assert "geheim" not in refused.stderr
    assert not (world.folder / "scores").exists()


def test_a_feed_is_no_batch(world: World, run: Run) -> None:
    for source in ("mqtt://u:geheim@h/a", "python:a:B"):
        refused = run(
            *("score", "batch", "--model", "models:/linear@champion", "--source", source),
            *("--target", "./scores", "--key", "id", "--trust-code"),
        )
        assert refused.exit_code == 2
        assert "score stream" in refused.stderr
        assert "geheim" not in refused.stderr
    assert not (world.folder / "scores").exists()
