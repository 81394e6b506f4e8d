"""Rows that come while a stream runs are scored once, whatever happens to it."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.journeys.conftest import register, save_line

if TYPE_CHECKING:
    from tests.journeys.conftest import Batch, Run, World

pytestmark = pytest.mark.usefixtures("spark")

Stream = Callable[..., list[str]]


@pytest.fixture
def stream() -> Stream:
    """The arguments of `score stream` for a model: four batches of ten files each."""

    def stream(model: str = "linear", *more: str, source: str = "./rows") -> list[str]:
        return [
            *("--model", f"models:/{model}@champion", "--source", source, "--target", "./scores"),
            *("--key", "id", "--checkpoint", "./checkpoint", "--trust-code", "--name", "telemetry"),
            *("--source-option", "maxFilesPerTrigger=10", *more),
        ]

    return stream


def has_commits(world: World, n_commits: int) -> bool:
    return len(world.commits("scores")) >= n_commits


def assert_as_in_batch(world: World, batch: Batch, run: Run) -> None:
    """The stream's table holds the scores of the batch job over the same rows, bit for bit."""
    assert run("score", "batch", *batch(target="undisturbed")).exit_code == 0
    scores = world.scores("scores").drop_columns("model_digest")
    assert scores.equals(world.scores("undisturbed").drop_columns("model_digest"))
    assert pc.count_distinct(scores["id"]).as_py() == scores.num_rows == 2000


def test_a_stream_scores_as_the_batch_job_does(
    world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    first = run("score", "stream", *stream())
    assert (first.exit_code, first.result["status"]) == (0, "succeeded")
    assert first.result["output"]["rows"] == 2000
    assert first.result["metrics"]["batches"] == 4
    assert [commit["inputs"]["batch"] for commit in world.commits("scores")] == list("0123")
    again = run("score", "stream", *stream())
    assert (again.exit_code, again.result["status"]) == (0, "skipped")
    assert again.result["output"]["version"] is None
    assert_as_in_batch(world, batch, run)


def test_rows_that_come_later_are_scored_later(world: World, stream: Stream, run: Run) -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "x": [0.5, 1.5]})
    write_deltalake(world.folder / "coming", rows)
    arguments = stream("linear", source="./coming")
    assert run("score", "stream", *arguments).result["output"]["rows"] == 2
    more = pa.table({"id": pa.array([3], pa.int64()), "x": [2.5]})
    write_deltalake(world.folder / "coming", more, mode="append")
    assert run("score", "stream", *arguments).result["output"]["rows"] == 1
    assert world.scores("scores")["prediction"].to_pylist() == [2.0, 4.0, 6.0]


def test_files_that_come_to_a_folder_are_a_stream(world: World, stream: Stream, run: Run) -> None:
    folder = world.folder / "arriving"
    folder.mkdir()
    schema = ("--source-format", "json", "--source-schema", "id BIGINT, x DOUBLE")
    arguments = stream("linear", *schema, source="./arriving")
    (folder / "a.json").write_text('{"id": 1, "x": 0.5}\n{"id": 2, "x": 1.5}\n')
    assert run("score", "stream", *arguments).result["output"]["rows"] == 2
    (folder / "b.json").write_text('{"id": 3, "x": 2.5}\n')
    assert run("score", "stream", *arguments).result["output"]["rows"] == 1
    (folder / "c.json").write_text('{"id": "three", "x": 2.5}\n')
    refused = run("score", "stream", *arguments)
    assert refused.exit_code == 2
    assert "c.json" in refused.result["error"]["message"]
    assert world.scores("scores")["id"].to_pylist() == [1, 2, 3]


def test_killed_stream_goes_on_with_the_model_that_its_batch_began_with(
    world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    world.hold()
    job = world.start("score", "stream", *stream("slow"))
    job.await_sign(world.is_scoring)
    job.kill_group()
    world.release()
    assert world.commits("scores") == []
    save_line(world.folder / "next", 2.0, world.gate / "nowhere")  # Another digest, same scores.
    assert register(world.folder / "next", "slow") == 0
    again = run("score", "stream", *stream("slow"))
    assert again.result["output"]["rows"] == 2000
    digests = [commit["inputs"]["model_digest"] for commit in world.commits("scores")]
    assert len(set(digests)) == 2
    assert digests[0] != digests[1] == digests[2] == digests[3]
    assert_as_in_batch(world, batch, run)


def test_stream_killed_at_any_moment_loses_and_doubles_nothing(
    world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    for n_commits in (1, 3):
        job = world.start("score", "stream", *stream())
        job.await_sign(partial(has_commits, world, n_commits))
        save_line(world.folder / f"next-{n_commits}", 2.0, world.gate / f"nowhere-{n_commits}")
        assert register(world.folder / f"next-{n_commits}", "linear") == 0  # The same scores.
        job.kill_group()
    last = run("score", "stream", *stream())
    assert last.exit_code == 0
    commits = world.commits("scores")
    assert [commit["inputs"]["batch"] for commit in commits] == list("0123")
    assert_as_in_batch(world, batch, run)
    rows = DeltaTable(world.folder / "scores").to_pyarrow_table()
    of_batches = rows.group_by("scored_at").aggregate([("model_digest", "distinct")])
    digests = of_batches.sort_by("scored_at")["model_digest_distinct"].to_pylist()
    assert digests == [[commit["inputs"]["model_digest"]] for commit in commits]
    assert len({digest for (digest,) in digests}) > 1


def test_new_version_is_live_at_a_boundary_and_a_service_ends_well(
    world: World, stream: Stream
) -> None:
    write_deltalake(world.folder / "coming", rows_from(0))
    health = world.folder / "health.json"
    more = ("--trigger", "continuous-service", "--health-file", str(health), "--metrics-port", "0")
    job = world.start("score", "stream", *stream("linear", *more, source="./coming"))
    job.await_sign(lambda: len(world.commits("scores")) == 1)
    save_line(world.folder / "next", 3.0)
    assert register(world.folder / "next", "linear") == 0
    err = world.folder / "job.err"
    job.await_sign(lambda: "from the next batch on" in err.read_text())
    write_deltalake(world.folder / "coming", rows_from(10), mode="append")
    job.await_sign(lambda: len(world.commits("scores")) == 2)
    job.await_sign(lambda: json.loads(health.read_text())["batch"] == 1)
    port = err.read_text().partition("at port ")[2].split()[0]
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'sparkscore_stream_rows_scored_total{job="telemetry"} 20' in page
    job.signal(signal.SIGTERM)
    answer = job.answer()
    assert (answer.exit_code, answer.result["status"]) == (0, "succeeded")
    table = DeltaTable(world.folder / "scores").to_pyarrow_table().sort_by("id")
    assert table["prediction"].to_pylist() == [
        *(x / 8 * 2 + 1 for x in range(10)),
        *(x / 8 * 3 + 1 for x in range(10, 20)),
    ]
    first, second = (commit["inputs"]["model_digest"] for commit in world.commits("scores"))
    assert table["model_digest"].to_pylist() == [first] * 10 + [second] * 10
    assert "Traceback" not in answer.stderr


def rows_from(start: int) -> pa.Table:
    ids = range(start, start + 10)
    return pa.table({"id": pa.array(ids, pa.int64()), "x": [i / 8 for i in ids]})


def test_signal_lets_the_batch_end_and_a_night_that_is_cut_off_says_so(
    world: World, batch: Batch, stream: Stream, run: Run
) -> None:
    world.hold()
    job = world.start("score", "stream", *stream("slow"))
    job.await_sign(world.is_scoring)
    job.signal(signal.SIGTERM)
    time.sleep(1)  # The signal must find the batch waiting; nobody tells when it has.
    world.release()
    assert job.answer().exit_code == 143
    assert len(world.commits("scores")) == 1
    assert run("score", "stream", *stream("slow")).result["output"]["rows"] == 1500
    assert_as_in_batch(world, batch, run)


def test_checkpoint_that_is_lost_is_refused_before_a_row_is_read(
    world: World, stream: Stream, run: Run
) -> None:
    assert run("score", "stream", *stream()).exit_code == 0
    shutil.rmtree(world.folder / "checkpoint")
    refused = run("score", "stream", *stream())
    assert refused.exit_code == 5
    assert refused.result["error"]["code"] == "CHECKPOINT_LOST"
    assert len(world.commits("scores")) == 4
    assert run("score", "stream", *stream("linear", "--start-over")).exit_code == 0
    assert len(world.commits("scores")) == 8


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--mode", "replace", "--replace-where", "id = 1"), "mode 'replace'"),
        (("--since-last", "--check", "min_rows=1"), "only a batch job has 'since_last', 'checks'"),
        (("--accept-checks", "--deletes", "tombstone"), "'checks', 'deletes'"),
        (("--challenger", "models:/linear@champion"), "--canary, --shadow"),
        (("--engine", "files"), "--engine auto"),
        (("--trigger", "nightly"), "available-now"),
        (("--checkpoint", "./scores/"), "the folder of the target itself"),
        (("--checkpoint", "rows"), "the folder of the source itself"),
        (("--run-key", "k1"), "--run-key"),
        (("--event-time", "x"), "--event-time"),
        (("--source-version", "3"), "startingVersion"),
        (("--source-option", "nonsense=1"), "maxFilesPerTrigger"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(
    more: tuple[str, ...], named: str, world: World, stream: Stream, run: Run
) -> None:
    refused = run("score", "stream", *stream("linear", *more))
    assert refused.exit_code == 2
    assert named in refused.stderr
    assert not (world.folder / "scores").exists()
    assert not (world.folder / "checkpoint").exists()
