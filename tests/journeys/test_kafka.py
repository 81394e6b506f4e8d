"""Messages of a topic are scored once, to the bits of the batch job, whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from sparkscore.testing.kafka_broker import PASSWORD, USER
from tests.journeys.conftest import N_ROWS

if TYPE_CHECKING:
    from sparkscore.testing.kafka_broker import KafkaBroker
    from tests.journeys.conftest import Answer, Batch, Run, World

pytestmark = pytest.mark.usefixtures("spark")

Stream = Callable[..., list[str]]


@pytest.fixture
def stream(kafka: KafkaBroker) -> Stream:
    """The arguments of `score stream` for a topic."""

    def stream(topic: str, *more: str, model: str = "linear") -> list[str]:
        return [
            *("--model", f"models:/{model}@champion", "--target", "./scores", "--key", "id"),
            *("--checkpoint", "./checkpoint", "--trust-code", "--name", "telemetry"),
            *("--source", f"kafka:{topic}", "--source-schema", "id BIGINT, x DOUBLE"),
            *("--source-option", f"kafka.bootstrap.servers={kafka.address}", *more),
        ]

    return stream


def message(number: int, **more: object) -> bytes:
    return json.dumps({"id": number, "x": number / 8, **more}).encode()


def fill(kafka: KafkaBroker, n_partitions: int = 3) -> str:
    """A topic with the rows of the batch job's source."""
    topic = kafka.new_topic(n_partitions)
    for partition in range(n_partitions):
        rows = range(partition, N_ROWS, n_partitions)
        kafka.send(topic, [message(i) for i in rows], partition=partition)
    return topic


def assert_as_in_batch(world: World, batch: Batch, run: Run) -> None:
    assert run("score", "batch", *batch(target="undisturbed")).exit_code == 0
    scores = world.scores("scores").drop_columns("model_digest")
    assert scores.equals(world.scores("undisturbed").drop_columns("model_digest"))
    assert pc.count_distinct(scores["id"]).as_py() == scores.num_rows == N_ROWS


def refusal(answer: Answer) -> tuple[int, str, str]:
    error = answer.result["error"]
    return answer.exit_code, error["code"], error["message"]


def test_topic_is_scored_as_the_batch_job_scores_its_rows(
    kafka: KafkaBroker, world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    topic = fill(kafka)
    arguments = stream(topic, "--source-option", "maxOffsetsPerTrigger=600")
    first = run("score", "stream", *arguments)
    assert (first.exit_code, first.result["status"]) == (0, "succeeded"), first.stderr
    assert first.result["output"]["rows"] == N_ROWS
    assert [commit["inputs"]["batch"] for commit in world.commits("scores")] == list("0123")
    again = run("score", "stream", *arguments)
    assert (again.exit_code, again.result["status"]) == (0, "skipped")
    assert_as_in_batch(world, batch, run)
    kafka.send(topic, [message(N_ROWS)], partition=1)
    assert run("score", "stream", *arguments).result["output"]["rows"] == 1


def test_malformed_messages_are_set_aside_with_where_they_lie(
    kafka: KafkaBroker, world: World, stream: Stream, run: Run
) -> None:
    topic = kafka.new_topic()
    odd = [b'{"id": 2, "x": "three"}', None, b'{"id": 3}{"id": 4}', b"garbage"]
    kafka.send(topic, [message(1), *odd])
    code, name, text = refusal(run("score", "stream", *stream(topic)))
    assert (code, name) == (3, "ROWS_INVALID"), text
    assert f"topic '{topic}', partition 0, offset 1: is no JSON object" in text
    assert world.commits("scores") == []
    code, name, text = refusal(run("score", "stream", *stream(topic, "--on-invalid", "null")))
    assert (code, name) == (2, "CONFIG_INVALID")
    assert "--key kafka_partition --key kafka_offset" in text
    # Not even a filter that they do not pass takes them out of sight.
    more = ("--on-invalid", "quarantine", "--where", "x < 100", "--mode", "merge")
    done = run("score", "stream", *stream(topic, *more, "--checkpoint", "./another"))
    assert done.exit_code == 0, done.stderr
    assert (done.result["output"]["rows"], done.result["output"]["rejected"]) == (1, 4)
    assert world.scores("scores")["id"].to_pylist() == [1]
    rejects = DeltaTable(world.folder / "scores_rejects").to_pyarrow_table()
    found = sorted(rejects["reject_message"].to_pylist())
    places = [f"topic '{topic}', partition 0, offset {offset}: " for offset in (1, 2, 3, 4)]
    assert [text.startswith(place) for text, place in zip(found, places, strict=True)] == [True] * 4
    assert set(rejects["reject_code"].to_pylist()) == {"MALFORMED"}
    assert sorted(rejects["id"].to_pylist(), key=str) == [2, 3, None, None]


def test_killed_stream_reads_and_publishes_again_what_its_batch_had_begun(
    kafka: KafkaBroker, world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    topic, alerts = fill(kafka), kafka.new_topic(2)
    outlet = f"kafka:{alerts}?bootstrap.servers={kafka.address}"
    more = ("--source-option", "maxOffsetsPerTrigger=900", "--publish", outlet)
    arguments = stream(topic, *more, model="slow")
    world.hold()
    job = world.start("score", "stream", *arguments)
    job.await_sign(world.is_scoring)
    job.kill_group()
    world.release()
    assert world.commits("scores") == []
    # More has come meanwhile: the batch that was begun has the same rows all the same.
    kafka.send(topic, [message(N_ROWS)])
    again = run("score", "stream", *arguments)
    assert again.exit_code == 0, again.stderr
    commits = world.commits("scores")
    assert [commit["inputs"]["batch"] for commit in commits] == list("012")
    assert again.result["output"]["rows"] == N_ROWS + 1
    published = [json.loads(message.value or b"") for message in kafka.messages(alerts)]
    scores = world.scores("scores").to_pylist()
    names = scores[0].keys()
    rows = [{name: row[name] for name in names} for row in published]
    assert sorted(rows, key=lambda row: row["id"]) == scores
    DeltaTable(world.folder / "scores").delete(f"id = {N_ROWS}")
    assert_as_in_batch(world, batch, run)
    # The last words are lost, as where the kill comes right after what they tell of.
    for word in (world.folder / "checkpoint" / "commits").glob("*2*"):
        word.unlink()
    (world.folder / "checkpoint" / "sparkscore" / "published.json").unlink()
    replayed = run("score", "stream", *arguments)
    assert replayed.result["metrics"]["batches_replayed"] == 1
    assert len(kafka.messages(alerts)) == N_ROWS + 1


def test_messages_and_topics_that_are_gone_are_told_and_not_passed_over(
    kafka: KafkaBroker, world: World, stream: Stream, run: Run
) -> None:
    topic = kafka.new_topic()
    kafka.send(topic, [message(i) for i in range(4)])
    assert run("score", "stream", *stream(topic)).exit_code == 0
    kafka.send(topic, [message(i) for i in range(4, 8)])
    kafka.remove_before(topic, 6)
    code, name, text = refusal(run("score", "stream", *stream(topic)))
    assert (code, name) == (2, "SOURCE_LOST"), text
    assert "[4, 8)" in text
    assert "failOnDataLoss=false" in text
    lossy = stream(topic, "--source-option", "failOnDataLoss=false")
    assert run("score", "stream", *lossy).result["output"]["rows"] == 2
    assert world.scores("scores")["id"].to_pylist() == [0, 1, 2, 3, 6, 7]
    kafka.remove_topic(topic)
    kafka.new_topic(name=topic)
    kafka.send(topic, [message(i) for i in range(20)])  # Spark would begin at the ninth.
    code, name, text = refusal(run("score", "stream", *stream(topic)))
    assert (code, name) == (5, "CHECKPOINT_FOREIGN"), text
    assert "topic's cluster and id" in text
    shutil.rmtree(world.folder / "checkpoint")
    assert refusal(run("score", "stream", *stream(topic)))[1] == "CHECKPOINT_LOST"
    assert len(world.commits("scores")) == 2


def test_secrets_come_from_the_environment_and_are_told_nowhere(
    kafka: KafkaBroker,
    world: World,
    stream: Stream,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = kafka.new_topic()
    kafka.send(topic, [message(1)])
    kafka.send(topic, [message(2)], transaction="t", aborts=True)
    login = {
        "kafka.bootstrap.servers": kafka.sasl_address,
        "kafka.security.protocol": "SASL_PLAINTEXT",
        "kafka.sasl.mechanism": "PLAIN",
        "kafka.sasl.jaas.config": "env:KAFKA_LOGIN",
    }
    options = [word for item in login.items() for word in ("--source-option", "=".join(item))]
    monkeypatch.setenv("KAFKA_LOGIN", kafka.login)
    done = run("score", "stream", *stream(topic, *options))
    assert done.exit_code == 0, done.stderr
    assert done.result["output"]["rows"] == 1
    monkeypatch.setenv("KAFKA_LOGIN", kafka.login.replace(USER, "nobody"))
    refused = run("score", "stream", *stream(topic, *options))
    assert refusal(refused)[1] == "SOURCE_INVALID"
    assert "Invalid username or password" in refused.stderr
    told = [done.stdout, done.stderr, refused.stdout, refused.stderr]
    kept = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    assert not any(PASSWORD in text for text in told)
    assert not any(PASSWORD.encode() in text for text in kept)


def test_topic_has_no_end_for_a_batch_job(run: Run, batch: Batch) -> None:
    refused = run("score", "batch", *batch(), "--source", "kafka:telemetry")
    assert refused.exit_code == 2
    assert "sparkscore score stream" in refused.stderr
