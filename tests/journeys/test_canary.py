"""A stream's canary scores its share of entities, and gives it back at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore.cli import main
from sparkscore.scoring.canary import Split
from tests.journeys.conftest import register, save_line

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

N_SENSORS = 50
CANARY = ("--canary", "models:/linear@challenger=30%", "--canary-by", "sensor")
Stream = Callable[..., list[str]]


@pytest.fixture
def stream(world: World) -> Stream:
    """The arguments of `score stream`; 100 rows of 50 sensors wait to be scored."""
    add_rows(world, 0)
    save_line(world.folder / "next", 3.0)
    assert register(world.folder / "next", "linear") == 0
    set_alias("challenger", 2)
    set_alias("champion", 1)

    def stream(*more: str) -> list[str]:
        return [
            *("--model", "models:/linear@champion", "--source", "./coming", "--target", "./scores"),
            *("--key", "sensor", "--key", "id", "--checkpoint", "./checkpoint", "--trust-code"),
            *("--name", "telemetry", *more),
        ]

    return stream


def add_rows(world: World, start: int) -> None:
    ids = range(start, start + 100)
    rows = {
        "id": pa.array(ids, pa.int64()),
        "sensor": [f"s{i % N_SENSORS}" for i in ids],
        "x": [i / 8 for i in ids],
    }
    write_deltalake(world.folder / "coming", pa.table(rows), mode="append")


def set_alias(alias: str, version: int) -> None:
    arguments = ["aliases", "set", "linear", alias, str(version)]
    assert main(["--quiet", *arguments]) == 0


def canary_ids(world: World) -> list[int]:
    """Ids of rows that version 2 scored; all rows have the score of the version they name."""
    table = DeltaTable(world.folder / "scores").to_pyarrow_table().sort_by("id")
    assert table["id"].to_pylist() == list(range(table.num_rows))
    slopes = {"1": 2.0, "2": 3.0}
    by_digest: dict[str, set[str]] = {}
    for row in table.to_pylist():
        assert row["prediction"] == row["id"] / 8 * slopes[row["model_version"]] + 1.0
        by_digest.setdefault(row["model_digest"], set()).add(row["model_version"])
    assert all(len(versions) == 1 for versions in by_digest.values())
    return [row["id"] for row in table.to_pylist() if row["model_version"] == "2"]


def expected_ids(start: int, end: int, share: float = 0.3) -> list[int]:
    """Ids of rows whose sensor is one of the canary's."""
    sensors = pa.record_batch({"sensor": [f"s{i % N_SENSORS}" for i in range(start, end)]})
    places = Split(("sensor",), share).places_of(sensors)
    return [start + i for i, place in enumerate(places) if place == 1]


def test_canary_scores_the_same_sensors_until_its_alias_moves(
    world: World, stream: Stream, run: Run
) -> None:
    first = run("score", "stream", *stream(*CANARY))
    assert first.exit_code == 0
    assert first.result["metrics"]["canary_rows_scored"] == len(expected_ids(0, 100))
    assert canary_ids(world) == expected_ids(0, 100)
    assert 0 < len(expected_ids(0, 100)) < 60
    (commit,) = world.commits("scores")
    assert set(commit["panel"]["models"]) == {"champion", "canary"}
    add_rows(world, 100)
    assert run("score", "stream", *stream(*CANARY)).exit_code == 0
    assert canary_ids(world) == expected_ids(0, 200)
    set_alias("challenger", 1)  # The rollback.
    add_rows(world, 200)
    assert run("score", "stream", *stream(*CANARY)).exit_code == 0
    assert canary_ids(world) == expected_ids(0, 200)


def test_batch_that_was_begun_keeps_its_two_models_and_its_share(
    world: World, stream: Stream, run: Run
) -> None:
    assert run("score", "stream", *stream(*CANARY)).exit_code == 0
    begun = world.folder / "checkpoint" / "sparkscore"
    # What a stream that is killed in its second batch leaves.
    shutil.copy(begun / "batch-0.json", begun / "batch-1.json")
    set_alias("champion", 2)
    assert main(["--quiet", "aliases", "delete", "linear", "challenger"]) == 0
    add_rows(world, 100)
    assert run("score", "stream", *stream()).exit_code == 0
    assert canary_ids(world) == expected_ids(0, 200)
    add_rows(world, 200)
    assert run("score", "stream", *stream()).exit_code == 0
    assert canary_ids(world) == [*expected_ids(0, 200), *range(200, 300)]
    assert json.loads((begun / "batch-2.json").read_text())["canary"] is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--canary", "models:/linear@challenger=150%", "--canary-by", "sensor"), "0% to 100%"),
        (("--canary", "models:/linear@challenger"), "URI=SHARE"),
        (("--canary", "models:/linear@challenger=5%"), "--canary-by"),
        (("--canary-by", "sensor"), "--canary"),
        (("--canary", "models:/linear@challenger=5%", "--canary-by", "censor"), "'sensor'"),
        (("--canary", "models:/linear@challenger=5%", "--canary-by", "x"), "is double"),
        (("--canary", "models:/linear@nobody=5%", "--canary-by", "sensor"), "nobody"),
    ],
)
def test_canary_that_says_nothing_is_refused(
    more: tuple[str, ...], named: str, world: World, stream: Stream, run: Run
) -> None:
    refused = run("score", "stream", *stream(*more))
    assert refused.exit_code in (2, 4)
    assert named in refused.stderr
    assert not (world.folder / "scores").exists()
    assert not (world.folder / "checkpoint").exists()
