"""Attempts at one run that commit rejected rows, and the one whose scores are committed."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.errors import RunKeyConflictError
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import ScoreWriter, file_prefix, new_attempt
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.plan import ScoringPlan, plan_scoring
from sparkscore.scoring.rejects import InvalidRows
from sparkscore.scoring.table_write import reject_sweep, reject_write, rejects_of
from tests.scoring.test_plan import MODEL, REQUEST, TABLE

if TYPE_CHECKING:
    from pathlib import Path

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
REQUESTED = replace(REQUEST, on_invalid=InvalidRows.QUARANTINE)


@pytest.fixture
def sink(tmp_path: Path) -> FilesSink:
    return FilesSink(str(tmp_path / "rejects"))


def plan_of(run_key: str) -> ScoringPlan:
    return plan_scoring(MODEL, TABLE, replace(REQUESTED, run_key=run_key))


def commit(sink: FilesSink, plan: ScoringPlan, run_id: str) -> None:
    """One attempt rejects one row."""
    write, attempt = reject_write(plan, run_id), new_attempt()
    writer = ScoreWriter(sink.layout(write), file_prefix(attempt, 0, 0))
    row = dict.fromkeys(write.schema.names, "text") | {"id": 7, "rejected_at": AT}
    row |= {"app_id": plan.identity.app_id, "run_id": run_id}
    writer.write(pa.RecordBatch.from_pylist([row], schema=write.schema))
    facts = RunFacts(run_id, AT)
    sink.write(WrittenScores(tuple(writer.finish()), attempt), write, facts)


def sweep(sink: FilesSink, plan: ScoringPlan, run_id: str) -> None:
    sink.remove(reject_sweep(plan, run_id), rejects_of(plan), RunFacts(run_id, AT))


def run_ids(sink: FilesSink) -> list[str]:
    rows = deltalake.DeltaTable(sink.uri).to_pyarrow_table()
    return sorted(rows["run_id"].to_pylist())


def test_rows_of_the_attempt_with_scores_stay_and_others_of_the_run_go(sink: FilesSink) -> None:
    one, other = plan_of("one"), plan_of("other")
    for run_id in ("a", "b", "c"):
        commit(sink, one, run_id)
    commit(sink, other, "d")
    sweep(sink, one, "b")
    assert run_ids(sink) == ["b", "d"]


def test_attempt_that_wakes_up_after_the_run_is_done_commits_nothing(sink: FilesSink) -> None:
    plan = plan_of("one")
    commit(sink, plan, "a")
    sweep(sink, plan, "a")
    version = deltalake.DeltaTable(sink.uri).version()
    with pytest.raises(RunKeyConflictError, match="another attempt at run key 'one' is done"):
        commit(sink, plan, "zombie")
    sweep(sink, plan, "a")
    assert deltalake.DeltaTable(sink.uri).version() == version
    assert run_ids(sink) == ["a"]


def test_run_without_rejected_rows_leaves_the_table_alone(sink: FilesSink) -> None:
    sweep(sink, plan_of("one"), "a")
    assert not sink.root.is_dir()
    commit(sink, plan_of("other"), "b")
    sweep(sink, plan_of("one"), "a")
    assert deltalake.DeltaTable(sink.uri).version() == 0


def test_rows_go_where_the_attempt_with_scores_rejected_none(sink: FilesSink) -> None:
    plan = plan_of("one")
    commit(sink, plan, "a")
    sweep(sink, plan, "b")
    assert run_ids(sink) == []
