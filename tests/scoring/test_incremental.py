from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from sparkscore.errors import SourceChangesError
from sparkscore.scoring.facts import SourceColumn, SourceTable
from sparkscore.scoring.incremental import Mark, check_mark, last_mark
from sparkscore.scoring.target import HistoryEntry

TABLE = SourceTable(
    uri="/data/flights",
    format="delta",
    version="7",
    columns=(SourceColumn("id", pa.int64(), "bigint"),),
    table_id="t1",
    since="5",
)


def commit(
    version: int,
    *,
    job: str = "nightly",
    read: str = "",
    table: str = "t1",
    where: str = "",
    since: str = "",
    operation: str = "WRITE",
) -> HistoryEntry:
    """A commit of a job that read a version; without one, of somebody else."""
    inputs = {"input_id": table, "input_version": read, "where": where}
    if since:
        inputs["since"] = since
    metadata = json.dumps({"sparkscore": 1, "job": job, "inputs": inputs}) if read else "by hand"
    return HistoryEntry(version, operation, metadata, {})


def mark(*history: HistoryEntry) -> Mark | None:
    return last_mark(history, "nightly", "/data/scores")


def test_the_newest_run_of_the_job_tells_up_to_where_it_read() -> None:
    found = mark(
        commit(3),
        commit(2, read="9", job="weekly"),
        commit(1, read="5", since="start", where="x > 0"),
        commit(0, read="4"),
    )
    assert found == Mark("t1", 5, "x > 0")


def test_commits_without_a_source_are_passed_over() -> None:
    replay = json.dumps({"sparkscore": 1, "job": "nightly", "inputs": {"replay_of": "a" * 32}})
    assert mark(HistoryEntry(1, "WRITE", replay, {}), commit(0, read="4")) == Mark("t1", 4, "")


def test_a_job_that_never_wrote_here_has_no_mark() -> None:
    assert mark() is None
    assert mark(commit(1, read="9", job="weekly"), commit(0)) is None


def test_a_run_over_an_older_version_takes_no_mark_back() -> None:
    assert mark(commit(2, read="3"), commit(1, read="8"), commit(0, read="1")) == Mark("t1", 8, "")


def test_runs_over_another_table_or_filter_do_not_count() -> None:
    history = commit(2, read="3"), commit(1, read="8", table="t0"), commit(0, read="9", where="a")
    assert mark(*history) == Mark("t1", 3, "")


def test_history_is_read_no_further_than_an_incremental_run() -> None:
    def history() -> Iterator[HistoryEntry]:
        yield commit(9, read="8", since="5")
        pytest.fail("read on")

    assert last_mark(history(), "nightly", "/data/scores") == Mark("t1", 8, "")


def test_a_restored_target_has_no_mark_until_the_next_run() -> None:
    restored = commit(2, operation="RESTORE"), commit(1, read="5"), commit(0, read="4")
    with pytest.raises(SourceChangesError, match="restored at version 2, after the last run"):
        mark(*restored)
    assert mark(commit(3, read="6"), *restored) == Mark("t1", 6, "")


def test_a_history_that_was_cut_off_tells_of_no_first_run() -> None:
    with pytest.raises(SourceChangesError, match="begins at version 4"):
        mark(commit(5), commit(4, read="9", job="weekly"))
    assert mark(commit(5, read="6"), commit(4)) == Mark("t1", 6, "")


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (Mark("t0", 5, ""), "made anew"),
        (Mark("t1", 5, "x > 0"), "filter 'x > 0'"),
        (Mark("t1", 8, ""), "scored up to version 8"),
        (Mark("t1", -1, ""), "as a stream"),
    ],
)
def test_a_mark_of_something_else_is_refused(mark: Mark, said: str) -> None:
    with pytest.raises(SourceChangesError, match=said):
        check_mark(mark, TABLE)
    check_mark(Mark("t1", 7, ""), TABLE)
    check_mark(Mark("t1", 5, "x > 0"), replace(TABLE, where="x > 0"))
