"""Jobs that score what is new: whatever has changed, the target is as if all were scored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
ENGINES = ("files", "arrow")
FACTS = RunFacts("a" * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def rows(*ids: int, part: str = "a b") -> pa.Table:
    """Rows of these ids, whose x is the id's half."""
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "x": [i / 2 for i in ids],
            "part": [part] * len(ids),
        }
    )


def append(*ids: int, part: str = "a b") -> None:
    write_deltalake("source", rows(*ids, part=part), mode="append", partition_by=["part"])


@pytest.fixture
def job(run: Run) -> Job:
    """Runs the job; a refusal has no traceback."""

    def job(*args: str, target: str = "scores", since_last: bool = True) -> Answer:
        answer = run(
            "score",
            "batch",
            *("--name", "nightly", "--model", "models:/linear@champion", "--source", "./source"),
            *("--target", f"./{target}", "--key", "id", "--trust-code"),
            *(("--since-last",) if since_last else ()),
            *args,
        )
        assert "Traceback" not in answer.stderr
        return answer

    return job


def quiet(line: str) -> None:
    """Takes what a job announces."""


def succeeded(answer: Answer) -> dict[str, Any]:
    assert answer.exit_code == 0, answer.stderr
    assert answer.result["status"] == "succeeded"
    return answer.result


def refused(answer: Answer, code: str = "SOURCE_CHANGES", exit_code: int = 2) -> str:
    assert (answer.exit_code, answer.result["error"]["code"]) == (exit_code, code), answer.stderr
    return str(answer.result["message"])


def scored(target: str = "scores") -> list[tuple[int, float]]:
    table = DeltaTable(target).to_pyarrow_table()
    return sorted(zip(table["id"].to_pylist(), table["prediction"].to_pylist(), strict=True))


def expected(*ids: int) -> list[tuple[int, float]]:
    return [(i, i + 1.0) for i in ids]


def feed_table(spark: SparkSession) -> str:
    """A source with a change data feed; what SQL calls it."""
    name = f"delta.`{Path('source').absolute()}`"
    spark.sql(
        f"CREATE TABLE {name} (id BIGINT, x DOUBLE, part STRING) USING delta "
        "TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    )
    return name


@pytest.mark.parametrize("engine", ENGINES)
def test_each_run_scores_what_was_appended_since_the_last_one(job: Job, engine: str) -> None:
    append(1, 2)
    append(3)
    first = succeeded(job("--engine", engine))
    assert (first["input"]["version_from"], first["input"]["version_to"]) == ("start", "1")
    append(4, part="50%")
    append(5, 6, part="ü=/")
    second = succeeded(job("--engine", engine))
    assert (second["input"]["version_from"], second["input"]["version_to"]) == ("1", "3")
    assert second["metrics"]["rows_read"] == 3
    assert scored() == expected(1, 2, 3, 4, 5, 6)


def test_a_run_without_news_commits_nothing_and_says_so(job: Job, world: World) -> None:
    append(1)
    succeeded(job())
    answer = job("--skip-code", "99")
    assert (answer.exit_code, answer.result["status"]) == (99, "skipped")
    assert "nothing new" in answer.result["message"]
    assert "since version 0" in answer.result["message"]
    assert len(world.commits("scores")) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_optimize_has_moved_are_scored_once(
    job: Job, spark: SparkSession, engine: str
) -> None:
    append(1)
    succeeded(job("--engine", engine))
    append(2)
    append(3)
    spark.sql(f"OPTIMIZE delta.`{Path('source').absolute()}`")
    succeeded(job("--engine", engine))
    assert scored() == expected(1, 2, 3)
    spark.sql(f"OPTIMIZE delta.`{Path('source').absolute()}` ZORDER BY (id)")
    assert job("--engine", engine).result["status"] == "skipped"


def test_the_filter_goes_for_new_rows_too(job: Job) -> None:
    append(1, 2)
    args = ("--where", "id % 2 = 0 OR id > 4")
    succeeded(job(*args))
    append(3, 4, 5)
    succeeded(job(*args))
    assert scored() == expected(2, 4, 5)
    assert "filter 'id % 2 = 0" in refused(job("--where", "id > 0"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rewritten_source_is_refused_until_a_full_run(
    job: Job, spark: SparkSession, engine: str
) -> None:
    append(1, 2)
    succeeded(job("--engine", engine))
    spark.sql(f"UPDATE delta.`{Path('source').absolute()}` SET x = 7.0 WHERE id = 1")
    message = refused(job("--engine", engine))
    assert "version 1 (UPDATE)" in message
    assert "delta.enableChangeDataFeed=true" in message
    succeeded(job("--mode", "merge", since_last=False))
    assert scored() == [(1, 15.0), (2, 3.0)]
    append(3)
    assert succeeded(job("--engine", engine))["input"]["version_from"] == "1"
    assert scored() == [(1, 15.0), (2, 3.0), (3, 4.0)]


def test_deletes_of_whole_files_follow_the_rule(job: Job) -> None:
    append(1, part="old")
    append(2, part="new")
    succeeded(job())
    append(3, part="old")
    append(4, part="new")
    DeltaTable("source").delete("part = 'old'")
    assert "deletes" in refused(job("--deletes", "fail"), "DATA_INVALID", 3)
    assert "change data feed" in refused(job("--deletes", "tombstone", "--mode", "merge"))
    succeeded(job())
    assert scored() == expected(1, 2, 4)


def change(spark: SparkSession, name: str, rng: np.random.Generator) -> None:
    """One commit to a source of unique ids; now and then of nothing but appends."""
    taken = {row[0] for row in spark.sql(f"SELECT id FROM {name}").collect()}
    free = [int(i) for i in rng.permutation(40) if i not in taken][:3]
    some = ", ".join(str(int(i)) for i in rng.permutation(40)[:12])
    values = ", ".join(f"({i}, {rng.integers(20) / 2}, 'new')" for i in free)
    shift = rng.integers(1, 10**6) * 100
    clauses = (
        "ON t.id = s.id + 1 WHEN MATCHED AND t.x > 5 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET x = s.x WHEN NOT MATCHED THEN INSERT *"
    )
    statements = [
        f"INSERT INTO {name} VALUES {values}",
        f"UPDATE {name} SET x = x + 1 WHERE id IN ({some})",
        f"UPDATE {name} SET id = id + {shift} WHERE id IN ({some}) AND id < 20",
        f"DELETE FROM {name} WHERE id IN ({some})",
        f"MERGE INTO {name} t USING (SELECT * FROM VALUES {values} AS v(id, x, part)) s {clauses}",
        f"INSERT OVERWRITE {name} SELECT id, x * 2, part FROM {name} WHERE x < 40",
        f"OPTIMIZE {name}",
    ]
    chances = [0.3, 0.2, 0.1, 0.15, 0.1, 0.05, 0.1]
    spark.sql(statements[rng.choice(len(statements), p=chances)])


@pytest.mark.parametrize("seed", range(3))
def test_merging_what_is_new_is_as_scoring_all_again(
    job: Job, spark: SparkSession, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    name = feed_table(spark)
    spark.sql(f"INSERT INTO {name} SELECT id, id / 4, 'old' FROM range(20)")
    args = ("--mode", "merge", "--deletes", "tombstone", "--where", "x < 8")
    succeeded(job(*args))
    for round_ in range(3):
        for _ in range(rng.integers(1, 5)):
            change(spark, name, rng)
        assert job(*args).exit_code == 0
        succeeded(job("--where", "x < 8", target=f"whole{round_}", since_last=False))
        assert scored() == scored(f"whole{round_}")


def test_ignored_deletes_leave_scores_and_refused_ones_stop_the_job(
    job: Job, spark: SparkSession
) -> None:
    name = feed_table(spark)
    spark.sql(f"INSERT INTO {name} VALUES (1, 0.5, ''), (2, 1.0, ''), (3, 1.5, '')")
    succeeded(job("--mode", "merge"))
    spark.sql(f"DELETE FROM {name} WHERE id = 1")
    spark.sql(f"UPDATE {name} SET x = 9.5 WHERE id = 2")
    message = refused(job("--mode", "merge", "--deletes", "fail"), "DATA_INVALID", 3)
    assert "version 2 deleted rows" in message
    assert succeeded(job("--mode", "merge"))["metrics"]["rows_read"] == 1
    assert scored() == [(1, 2.0), (2, 20.0), (3, 4.0)]


def test_removed_scores_are_counted(job: Job, spark: SparkSession) -> None:
    name = feed_table(spark)
    spark.sql(f"INSERT INTO {name} VALUES (1, 0.5, ''), (2, 1.0, ''), (3, 1.5, '')")
    args = ("--mode", "merge", "--deletes", "tombstone")
    succeeded(job(*args))
    spark.sql(f"DELETE FROM {name} WHERE id < 3")
    result = succeeded(job(*args))
    assert result["metrics"]["rows_deleted"] == 2
    assert "2 deleted with their source" in result["message"]
    assert scored() == expected(3)


def test_auto_tells_why_changes_go_through_spark(job: Job, run: Run, spark: SparkSession) -> None:
    name = feed_table(spark)
    spark.sql(f"INSERT INTO {name} VALUES (1, 0.5, ''), (2, 1.0, '')")
    succeeded(job())
    spark.sql(f"UPDATE {name} SET x = 9.5 WHERE id = 2")
    answer = run(
        *("score", "plan", "--name", "nightly", "--model", "models:/linear@champion"),
        *("--source", "./source", "--target", "./scores", "--key", "id", "--trust-code"),
        *("--since-last", "--output", "json"),
    )
    assert "version 2 (UPDATE) changed rows" in answer.stdout
    refused(job("--engine", "files"), "ENGINE_UNFIT")
    assert succeeded(job())["metrics"]["rows_read"] == 1


def test_a_feed_that_was_turned_on_late_is_no_hindrance_to_appends(
    job: Job, spark: SparkSession
) -> None:
    append(1)
    succeeded(job())
    append(2)
    name = f"delta.`{Path('source').absolute()}`"
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    append(3)
    succeeded(job("--engine", "arrow"))
    assert scored() == expected(1, 2, 3)


def test_a_source_that_was_made_anew_is_refused(job: Job) -> None:
    append(1)
    succeeded(job())
    Path("source").rename("former")
    append(1)
    append(2)
    for engine in ENGINES:
        assert "made anew" in refused(job("--engine", engine))


def test_versions_that_the_log_has_no_more_are_refused(job: Job, spark: SparkSession) -> None:
    append(1)
    succeeded(job())
    append(2)
    append(3)
    DeltaTable("source").create_checkpoint()
    for version in range(2):
        Path(f"source/_delta_log/{version:020}.json").unlink()
    for engine in ENGINES:
        assert "version 1" in refused(job("--engine", engine))
    assert spark.read.format("delta").load("source").count() == 3


def test_vacuumed_files_of_what_is_new_are_refused(job: Job, spark: SparkSession) -> None:
    append(1)
    succeeded(job())
    append(2)
    append(3)
    spark.sql(f"OPTIMIZE delta.`{Path('source').absolute()}`")
    DeltaTable("source").vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    for engine in ENGINES:
        assert "VACUUM" in refused(job("--engine", engine))


def test_a_vacuumed_change_feed_is_refused(job: Job, spark: SparkSession) -> None:
    name = feed_table(spark)
    spark.sql(f"INSERT INTO {name} VALUES (1, 0.5, ''), (2, 1.0, '')")
    succeeded(job())
    spark.sql(f"UPDATE {name} SET x = 9.5 WHERE id = 2")
    for path in Path("source/_change_data").glob("*.parquet"):
        path.unlink()
    assert "VACUUM" in refused(job())


def test_a_restored_target_is_refused(job: Job, spark: SparkSession) -> None:
    append(1)
    succeeded(job())
    append(2)
    succeeded(job())
    spark.sql(f"RESTORE TABLE delta.`{Path('scores').absolute()}` TO VERSION AS OF 0")
    append(3)
    assert "restored" in refused(job())


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


def test_jobs_of_other_names_have_marks_of_their_own(job: Job) -> None:
    append(1)
    succeeded(job())
    other = succeeded(job("--name", "weekly"))
    assert other["input"]["version_from"] == "start"
    assert scored() == expected(1, 1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--run-key", "k1"), "--run-key"),
        (("--mode", "replace", "--replace-where", "part = 'x'"), "mode replace"),
        (("--deletes", "tombstone"), "--mode merge"),
    ],
)
def test_what_does_not_go_together_is_refused(job: Job, args: tuple[str, ...], said: str) -> None:
    append(1)
    assert said in refused(job(*args), "CONFIG_INVALID")


@pytest.mark.parametrize("engine", ENGINES)
def test_new_rows_of_other_formats_cannot_be_told(job: Job, engine: str) -> None:
    Path("source").mkdir()
    Path("source/rows.csv").write_text("id,x\n1,0.5\n")
    message = refused(job("--engine", engine, "--source-format", "csv"), "SOURCE_INVALID")
    assert "no Delta table" in message
