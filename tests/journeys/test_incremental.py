"""Jobs that score what is new: whatever has changed, the target is as if all were scored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore.errors import TargetBusyError
from sparkscore.job_planning import prepare
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import OutcomeStatus
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.journeys.conftest import Answer, Run, World

Job = Callable[..., "Answer"]
FACTS = RunFacts("a" * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def append(*ids: int) -> None:
    """Rows of these ids, whose x is the id's half and whose score is the id + 1."""
    columns = {"id": pa.array(ids, pa.int64()), "x": [i / 2 for i in ids]}
    write_deltalake("source", pa.table(columns), mode="append")


def job_args(*args: str) -> list[str]:
    return [
        *("--name", "nightly", "--model", "models:/linear@champion", "--source", "./source"),
        *("--target", "./scores", "--key", "id", "--trust-code", *args),
    ]


@pytest.fixture
def job(run: Run) -> Job:
    """Runs the job; a refusal has no traceback."""

    def job(*args: str, since_last: bool = True) -> Answer:
        flags = ("--since-last",) if since_last else ()
        answer = run("score", "batch", *job_args(*flags, *args))
        assert "Traceback" not in answer.stderr
        return answer

    return job


def quiet(line: str) -> None:
    """Takes what a job announces."""


def succeeded(answer: Answer) -> dict[str, Any]:
    assert answer.exit_code == 0, answer.stderr
    assert answer.result["status"] == "succeeded"
    return answer.result


def refused(answer: Answer, code: str, exit_code: int) -> str:
    assert (answer.exit_code, answer.result["error"]["code"]) == (exit_code, code), answer.stderr
    return str(answer.result["message"])


def scored() -> list[tuple[int, float]]:
    table = DeltaTable("scores").to_pyarrow_table()
    return sorted(zip(table["id"].to_pylist(), table["prediction"].to_pylist(), strict=True))


def expected(*ids: int) -> list[tuple[int, float]]:
    return [(i, i + 1.0) for i in ids]


def test_each_run_scores_what_is_new_since_the_last_one(job: Job, world: World) -> None:
    append(1, 2)
    append(3)
    first = succeeded(job())
    assert (first["input"]["version_from"], first["input"]["version_to"]) == ("start", "1")
    append(4)
    append(5, 6)
    second = succeeded(job())
    assert (second["input"]["version_from"], second["input"]["version_to"]) == ("1", "3")
    assert second["metrics"]["rows_read"] == 3
    assert scored() == expected(1, 2, 3, 4, 5, 6)
    third = job("--skip-code", "99")
    assert (third.exit_code, third.result["status"]) == (99, "skipped")
    assert "nothing new" in third.result["message"]
    assert "since version 3" in third.result["message"]
    assert len(world.commits("scores")) == 2
    other = succeeded(job("--name", "weekly"))
    assert other["input"]["version_from"] == "start"


def test_a_full_run_is_the_way_out_of_a_rewritten_source(job: Job, spark: SparkSession) -> None:
    append(1, 2)
    succeeded(job())
    spark.sql(f"UPDATE delta.`{Path('source').absolute()}` SET x = 7.0 WHERE id = 1")
    assert "version 1 (UPDATE)" in refused(job(), "SOURCE_CHANGES", 2)
    succeeded(job("--mode", "merge", since_last=False))
    assert scored() == [(1, 15.0), (2, 3.0)]
    append(3)
    assert succeeded(job())["input"]["version_from"] == "1"
    assert scored() == [(1, 15.0), (2, 3.0), (3, 4.0)]


def test_scores_of_deleted_rows_are_removed_in_the_same_commit(
    job: Job, run: Run, spark: SparkSession, world: World
) -> None:
    append(1, 2, 3)
    name = f"delta.`{Path('source').absolute()}`"
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    args = ("--mode", "merge", "--deletes", "tombstone")
    succeeded(job(*args))
    spark.sql(f"DELETE FROM {name} WHERE id < 3")
    spark.sql(f"INSERT INTO {name} VALUES (2, 9.5), (4, 2.0)")
    told = run("score", "plan", *job_args("--since-last", "--output", "json"))
    assert "version 2 (DELETE)" in told.stdout
    result = succeeded(job(*args))
    assert scored() == [(2, 20.0), (3, 4.0), (4, 5.0)]
    assert result["metrics"]["rows_deleted"] == 1
    assert result["metrics"]["rows_read"] == 2
    assert "1 deleted with their source" in result["message"]
    assert len(world.commits("scores")) == 2


def test_of_two_runs_from_one_mark_one_commits(job: Job) -> None:
    append(1)
    succeeded(job())
    append(2)
    opened = Workspace.open(overrides={"trust.allow_code": True})
    keys = {
        "name": "nightly",
        "model": "models:/linear@champion",
        "source.uri": "./source",
        "target.uri": "./scores",
        "key": ["id"],
        "since_last": True,
    }
    settings = opened.job(None, keys).values
    slow = prepare(opened, settings, None, quiet)
    append(3)
    fast = prepare(opened, settings, None, quiet)
    assert fast.run(FACTS).status is OutcomeStatus.SUCCEEDED
    with pytest.raises(TargetBusyError, match="from the same version of the source on"):
        slow.run(FACTS)
    assert scored() == expected(1, 2, 3)
    assert job().result["status"] == "skipped"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--run-key", "k1"), "--run-key"),
        (("--mode", "replace", "--replace-where", "id > 0"), "mode replace"),
        (("--deletes", "tombstone"), "--mode merge"),
    ],
)
def test_what_does_not_go_together_is_refused(job: Job, args: tuple[str, ...], said: str) -> None:
    assert said in refused(job(*args), "CONFIG_INVALID", 2)


def write_source(rows: dict[str, list[object]]) -> None:
    write_deltalake("source", pa.table(rows), mode="overwrite")


def test_one_row_of_a_key_is_scored_and_the_others_are_on_the_books(job: Job) -> None:
    # Of id 1 the last one by `at`; of id 2 one of two alike; of id 3 the one that has an `at`.
    write_source({"id": [1, 1, 1, 2, 2, 3, 3], "x": [1.0, 3.0, 2.0, 5.0, 5.0, 7.0, 8.0],
                  "at": [1, 3, 2, 1, 1, None, 0]})  # fmt: skip
    args = ("--duplicates", "last", "--order-by", "at")
    result = succeeded(job(*args, since_last=False))
    counted = ("rows_read", "rows_scored", "rows_rejected", "rows_skipped")
    assert [result["metrics"][name] for name in counted] == [7, 3, 0, 4]
    assert result["output"]["skipped"] == 4
    assert "4 skipped" in result["message"]
    assert scored() == [(1, 7.0), (2, 11.0), (3, 17.0)]
    merged = succeeded(
        job("--duplicates", "first", "--order-by", "at", "--mode", "merge", since_last=False)
    )
    assert [merged["metrics"][name] for name in counted] == [7, 3, 0, 4]
    assert scored() == [(1, 3.0), (2, 11.0), (3, 17.0)]


def test_doubled_keys_stop_a_job_that_says_so(job: Job, world: World) -> None:
    write_source({"id": [1, 2, 2], "x": [1.0, 2.0, 3.0]})
    message = refused(job("--duplicates", "fail", since_last=False), "KEY_INVALID", 3)
    assert "{'id': 2}" in message
    assert world.commits("scores") == []
    refused(job("--duplicates", "fail", "--engine", "files", since_last=False), "ENGINE_UNFIT", 2)
    succeeded(job("--duplicates", "keep", since_last=False))
    assert len(scored()) == 3
