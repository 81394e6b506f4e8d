"""Checks hold scores back before anybody sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.journeys.conftest import Answer, Run, World

pytestmark = pytest.mark.usefixtures("spark")

CHECKS = ("--check", "max_drift.prediction=0.25", "--check", "max_row_change=0.5")


def write_rows(x: list[float]) -> None:
    columns = {"id": pa.array(range(len(x)), pa.int64()), "x": pa.array(x, pa.float64())}
    write_deltalake("source", pa.table(columns), mode="overwrite")


@pytest.fixture
def job(run: Run) -> Callable[..., Answer]:
    """Scores the source with 2 x + 1."""

    def job(*args: str) -> Answer:
        return run(
            *("score", "batch", "--name", "nightly", "--model", "models:/linear@champion"),
            *("--source", "./source", "--target", "./scores", "--key", "id", "--trust-code"),
            *args,
        )

    return job


def held(answer: Answer) -> str:
    assert (answer.exit_code, answer.result["error"]["code"]) == (3, "CHECK_FAILED"), answer.stderr
    return str(answer.result["message"])


def committed(answer: Answer) -> dict[str, Any]:
    assert answer.exit_code == 0, answer.stderr
    return answer.result


@pytest.mark.parametrize("engine", ["files", "arrow"])
def test_what_fails_is_held_then_looked_at_and_accepted(
    job: Callable[..., Answer], run: Run, world: World, engine: str
) -> None:
    args = (*CHECKS, "--engine", engine)
    write_rows([i / 100 for i in range(100)])
    committed(job(*args))  # There is nothing to be compared with.
    write_rows([i / 100 for i in range(50, 150)] * 2)
    message = held(job(*args, "--check", "max_value.prediction=3.5"))
    assert "max_value.prediction: the greatest value is 3.98, the bound is 3.5" in message
    assert "max_row_change: 200 rows after 100" in message
    assert "max_drift.prediction" in message
    assert len(world.commits("scores")) == 1
    assert DeltaTable("scores").to_pyarrow_table().num_rows == 100
    live = {Path(uri).name for uri in DeltaTable("scores").file_uris()}
    waiting = [path for path in Path("scores").glob("*.parquet") if path.name not in live]
    assert any(path.name in message for path in waiting)
    assert sum(pq.read_metadata(path).num_rows for path in waiting) == 200
    listed = run("score", "clean", "./scores", "--older-than", "0", "--output", "json")
    assert all(path.name in listed.stdout for path in waiting)
    committed(job(*args, "--accept-checks"))
    newest = world.commits("scores")[-1]
    assert newest["profile"]["rows"] == 200
    assert [line.split(":")[0] for line in newest["accepted_checks"]] == [
        "max_row_change",
        "max_drift.prediction",
    ]
    assert DeltaTable("scores").to_pyarrow_table().num_rows == 300


def test_an_empty_source_can_be_held(job: Callable[..., Answer], world: World) -> None:
    write_rows([])
    assert "min_rows: 0 rows" in held(job("--check", "min_rows=1"))
    assert world.commits("scores") == []


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("max_drift.prediktion=1", "did you mean 'prediction'"),
        ("min_row=1", "did you mean 'checks.min_rows'"),
        ("max_null_share.prediction=2", "less than or equal to 1"),
        ("min_rows", "NAME=BOUND"),
    ],
)
def test_checks_that_cannot_be_are_refused(
    job: Callable[..., Answer], check: str, said: str
) -> None:
    write_rows([0.5])
    answer = job("--check", check)
    assert (answer.exit_code, answer.result["error"]["code"]) == (2, "CONFIG_INVALID")
    assert said in answer.result["message"]


@pytest.mark.parametrize("args", [("--mode", "merge"), ("--engine", "pandas")])
def test_checks_hold_what_spark_would_write(
    job: Callable[..., Answer], world: World, args: tuple[str, ...]
) -> None:
    write_rows([0.5])
    assert "min_rows: 1 row" in held(job("--check", "min_rows=2", *args))
    assert world.commits("scores") == []
    committed(job("--check", "min_rows=1", *args))
    assert len(world.commits("scores")) == 1
