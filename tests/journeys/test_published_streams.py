"""What a stream scores is published after its commit, whatever happens in between."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore import Workspace
from sparkscore.outlets.postgres import parse_postgres_uri
from sparkscore.testing.postgres_server import PostgresServer

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

DATABASES = count()
COLUMNS = ("id", "prediction", "run_id", "scored_at")


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.new_database(f"published_{next(DATABASES)}")


def stream(database: str, model: str = "linear", *more: str) -> list[str]:
    """The arguments of `score stream`: four batches of ten files each, published to `latest`."""
    return [
        *("--model", f"models:/{model}@champion", "--source", "./rows", "--target", "./scores"),
        *("--key", "id", "--checkpoint", "./checkpoint", "--trust-code", "--name", "telemetry"),
        *("--source-option", "maxFilesPerTrigger=10", "--publish", f"{database}&table=latest"),
        *more,
    ]


def published(database: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        names = ", ".join(COLUMNS)
        return connection.execute(f"SELECT {names} FROM latest ORDER BY id".encode()).fetchall()


def scored(world: World) -> list[Any]:
    """The rows of the score table."""
    table = DeltaTable(world.folder / "scores").to_pyarrow_table().sort_by("id")
    rows = table.select(COLUMNS).to_pylist()
    return [tuple(row[name] for name in COLUMNS) for row in rows]


def test_stream_killed_between_commit_and_publication_publishes_when_it_goes_on(
    world: World, database: str, run: Run
) -> None:
    world.hold()
    job = world.start("score", "stream", *stream(database, "slow"))
    job.await_sign(world.is_scoring)
    with psycopg.connect(database) as reader:
        reader.execute("LOCK TABLE latest IN ACCESS EXCLUSIVE MODE")
        world.release()
        job.await_sign(lambda: len(world.commits("scores")) == 1)
        job.kill_group()
    assert published(database) == []
    again = run("score", "stream", *stream(database, "slow"))
    assert again.exit_code == 0
    metrics = again.result["metrics"]
    assert (metrics["batches_replayed"], metrics["rows_scored"]) == (1, 1500)
    assert metrics["rows_published"] == 2000
    assert metrics["seconds_publish"] > 0
    rows = scored(world)
    assert len(rows) == 2000
    assert published(database) == rows


def test_outlet_that_stays_away_ends_the_stream_and_gets_all_later(
    world: World, database: str, run: Run
) -> None:
    write_deltalake(world.folder / "coming", pa.table({"id": [1, 2], "x": [0.5, 1.5]}))
    (world.folder / "telemetry.yaml").write_text("stream: {publish_retry_s: 1}\n")
    more = ("--source", "./coming", "--job", "telemetry.yaml", "--health-file", "health.json")
    url = database.replace("postgres@", "postgres:geheim@")
    arguments = stream(f"{url}&options=-c%20lock_timeout%3D100ms", "linear", *more)
    assert run("score", "stream", *arguments).exit_code == 0
    newer = pa.table({"id": [1, 3], "x": [4.5, 2.5]})
    write_deltalake(world.folder / "coming", newer, mode="append")
    with psycopg.connect(database) as other:
        other.execute("SELECT 1 FROM latest WHERE id = 1 FOR UPDATE")
        away = run("score", "stream", *arguments)
    assert (away.exit_code, away.result["error"]["code"]) == (75, "OUTLET_AWAY"), away.stderr
    assert "publishing waits: " in away.stderr
    assert "lock timeout" in json.loads((world.folder / "health.json").read_text())["waits_for"]
    assert [row[1] for row in published(database)] == [2.0, 4.0]
    assert run("score", "stream", *arguments).result["metrics"]["rows_published"] == 2
    assert [row[1] for row in published(database)] == [10.0, 4.0, 6.0]
    told = {each.params["publish"] for each in Workspace.open().runs.list_runs()}
    assert told == {parse_postgres_uri(f"{url}&options=-c lock_timeout=100ms&table=latest").name}
    assert b"geheim" not in b"".join(p.read_bytes() for p in world.folder.rglob("*") if p.is_file())


def test_what_cannot_be_published_is_refused_before_a_row_is_scored(
    world: World, database: str, run: Run
) -> None:
    with psycopg.connect(database) as owner:
        owner.execute("CREATE TABLE latest (id bigint PRIMARY KEY, prediction text)")
    refused = run("score", "stream", *stream(database))
    assert (refused.exit_code, refused.result["error"]["code"]) == (5, "OUTLET_INVALID")
    assert "prediction: the table has text" in refused.result["message"]
    absent = run("score", "stream", *stream(database.replace("published_", "absent_")))
    assert (absent.exit_code, absent.result["error"]["code"]) == (75, "OUTLET_AWAY")
    twice = run("score", "stream", *stream(database), "--publish", f"{database}&table=latest")
    assert (twice.exit_code, "named twice" in twice.stderr) == (2, True)
    other = run("score", "stream", *stream(database), "--publish", "ftp://host/file")
    assert (other.exit_code, "'ftp'" in other.stderr) == (2, True)
    assert not (world.folder / "scores").exists()
    assert not (world.folder / "checkpoint").exists()
