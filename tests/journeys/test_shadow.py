"""A model in the shadow scores the same rows, into its own table, and harms nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore import infer_signature, save_model
from tests.journeys.conftest import register, save_line
from tests.journeys.test_canary import add_rows, canary_ids, expected_ids, set_alias

if TYPE_CHECKING:
    import pandas as pd

    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

SHADOW = ("--shadow", "models:/linear@shadow")
Stream = Callable[..., list[str]]


@pytest.fixture
def stream(world: World) -> Stream:
    """The arguments of `score stream`; version 2, of another slope, is the shadow."""
    add_rows(world, 0)
    save_line(world.folder / "next", 3.0)
    assert register(world.folder / "next", "linear") == 0
    set_alias("shadow", 2)
    set_alias("champion", 1)

    def stream(*more: str) -> list[str]:
        return [
            *("--model", "models:/linear@champion", "--source", "./coming", "--target", "./scores"),
            *("--key", "id", "--checkpoint", "./checkpoint", "--trust-code"),
            *("--name", "telemetry", *more),
        ]

    return stream


def rows_of(world: World, table: str) -> list[tuple[int, float, str]]:
    """Id, prediction and version of each row."""
    found = DeltaTable(world.folder / table).to_pyarrow_table().sort_by("id").to_pylist()
    return [(row["id"], row["prediction"], row["model_version"]) for row in found]


def lines(start: int, end: int, slope: float, version: str) -> list[tuple[int, float, str]]:
    return [(i, i / 8 * slope + 1.0, version) for i in range(start, end)]


def save_harmful(folder: Path, *, ends_worker: bool) -> None:
    """A model that raises on its rows, or ends the process that asks it; its example it answers."""

    class Harmful:  # Local, so that it is pickled by value.
        def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002
            import os

            if not ends_worker:
                raise ValueError("no row is good enough")
            os._exit(3)

    inputs, outputs = pa.table({"x": [0.5]}), pa.table({"prediction": [2.0]})
    signature = infer_signature(inputs, outputs)
    save_model(Harmful(), folder, flavor="python_function", signature=signature)


def test_shadow_scores_all_rows_apart_and_once(world: World, stream: Stream, run: Run) -> None:
    first = run("score", "stream", *stream(*SHADOW))
    assert first.exit_code == 0, first.stderr
    assert rows_of(world, "scores") == lines(0, 100, 2.0, "1")
    assert rows_of(world, "scores_shadow") == lines(0, 100, 3.0, "2")
    columns = DeltaTable(world.folder / "scores").schema().fields
    assert "shadow" not in {column.name for column in columns}
    metrics = first.result["metrics"]
    assert metrics["shadow_rows_compared"] == 100
    assert metrics["shadow_different_share"] == 0.99  # Of x = 0 both say 1.
    assert metrics["shadow_mean_difference"] == pytest.approx(sum(range(100)) / 8 / 100)
    # What is left of a stream that was killed between the two commits of its second batch:
    # the shadow's is there.
    add_rows(world, 100)
    assert run("score", "stream", *stream(*SHADOW)).exit_code == 0
    log = world.folder / "scores" / "_delta_log"
    (log / "00000000000000000001.json").unlink()
    (log / "00000000000000000001.crc").unlink(missing_ok=True)
    (world.folder / "checkpoint" / "commits" / "1").unlink()
    (world.folder / "checkpoint" / "commits" / ".1.crc").unlink(missing_ok=True)
    assert run("score", "stream", *stream(*SHADOW)).exit_code == 0
    assert rows_of(world, "scores") == lines(0, 200, 2.0, "1")
    assert rows_of(world, "scores_shadow") == lines(0, 200, 3.0, "2")


def test_shadow_beside_a_canary(world: World, stream: Stream, run: Run) -> None:
    canary = ("--canary", "models:/linear@shadow=30%", "--canary-by", "sensor")
    both = (*canary, *SHADOW, "--shadow-target", "./aside")
    assert run("score", "stream", *stream(*both)).exit_code == 0
    assert canary_ids(world) == expected_ids(0, 100)
    assert rows_of(world, "aside") == lines(0, 100, 3.0, "2")


@pytest.mark.parametrize("ends_worker", [False, True])
def test_shadow_that_fails_costs_no_score_and_is_put_off(
    ends_worker: bool, world: World, stream: Stream, run: Run
) -> None:
    save_harmful(world.folder / "harmful", ends_worker=ends_worker)
    assert register(world.folder / "harmful", "harmful") == 0
    for start in (100, 200, 300, 400):
        add_rows(world, start)
    one_each = ("--source-option", "maxFilesPerTrigger=1")
    answer = run("score", "stream", *stream("--shadow", "models:/harmful@champion", *one_each))
    assert answer.exit_code == 0, answer.stderr
    assert rows_of(world, "scores") == lines(0, 500, 2.0, "1")
    assert "models:/harmful/1, which scores in the shadow, is put off" in answer.stderr
    begun = world.folder / "checkpoint" / "sparkscore"
    shadows = [json.loads((begun / f"batch-{i}.json").read_text())["shadow"] for i in range(5)]
    assert [shadow is not None for shadow in shadows] == [True] * 3 + [False] * 2


def test_shadow_that_ends_its_worker_costs_no_score_where_no_task_is_tried_again(
    world: World, stream: Stream
) -> None:
    save_harmful(world.folder / "harmful", ends_worker=True)
    assert register(world.folder / "harmful", "harmful") == 0
    arguments = stream("--shadow", "models:/harmful@champion")
    once = {"SPARKSCORE__SPARK__MASTER": "local[1,1]"}
    answer = world.start("score", "stream", *arguments, environ=once).answer()
    assert answer.exit_code == 0, answer.stderr
    assert rows_of(world, "scores") == lines(0, 100, 2.0, "1")
    assert "models:/harmful/1, which scores in the shadow, is put off" in answer.stderr
    assert answer.result["metrics"]["shadow_rows_failed"] == 100


def test_shadow_whose_table_is_another_one_is_refused_at_the_start(
    world: World, stream: Stream, run: Run
) -> None:
    write_deltalake(world.folder / "scores_shadow", pa.table({"quite": ["other"]}))
    answer = run("score", "stream", *stream(*SHADOW))
    assert (answer.exit_code, answer.result["error"]["code"]) == (5, "TARGET_SCHEMA")
    assert not (world.folder / "scores").exists()


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        (("--shadow", "models:/linear@nobody"), 4, "nobody"),
        ((*SHADOW, "--shadow-target", "./scores"), 2, "the score table itself"),
        ((*SHADOW, "--shadow-target", "scores"), 2, "the score table itself"),
        (("--shadow-target", "./aside"), 2, "--shadow"),
        ((*SHADOW, "--mode", "merge"), 2, "it does not merge"),
    ],
)
def test_shadow_that_cannot_be_is_refused(
    more: tuple[str, ...], code: int, named: str, world: World, stream: Stream, run: Run
) -> None:
    refused = run("score", "stream", *stream(*more))
    assert refused.exit_code == code
    assert named in refused.stderr
    assert not (world.folder / "scores").exists()
    assert not (world.folder / "checkpoint").exists()
