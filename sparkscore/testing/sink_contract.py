"""What every Sink does; an implementation's tests subclass `SinkContract`."""

from __future__ import annotations

import datetime as dt
import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.errors import (
    RunKeyConflictError,
    SparkscoreError,
    TargetError,
    TargetSchemaError,
    TargetUnwritableError,
)
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import ScoreWriter, WrittenFile, file_prefix, new_attempt
from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType, Signature
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable
from sparkscore.scoring.incremental import Mark, last_mark
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import (
    RECORD_COLUMNS,
    ScoringPlan,
    ScoringRequest,
    WriteMode,
    plan_scoring,
)
from sparkscore.scoring.table_write import TableWrite, score_write
from sparkscore.scoring.target import HistoryEntry

_SCORED_AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_MODEL = ModelFacts(
    name="contract",
    version=1,
    digest="d" * 64,
    uri="models:/contract/1",
    folder=Path("nowhere"),
    signature=Signature(
        ColumnSchema((ColumnSpec("x", ScalarType.DOUBLE),)),
        ColumnSchema((ColumnSpec("prediction", ScalarType.DOUBLE),)),
    ),
)
_COLUMNS = (
    SourceColumn("id", pa.int64(), "bigint"),
    SourceColumn("day", pa.int32(), "int"),
    SourceColumn("x", pa.float64(), "double"),
)


@dataclass(frozen=True)
class Attempt:
    """One try of a run at a sink: what it was asked, under which name it runs, and its rows.

    Attributes:
        rows: (id, day, prediction) of each row.
    """

    request: ScoringRequest
    run_id: str
    rows: tuple[tuple[int, int, float], ...]
    model: ModelFacts = _MODEL
    source_version: str = "7"
    txn_version: int = 1

    @property
    def plan(self) -> ScoringPlan:
        """The attempt as an engine would plan it."""
        source = SourceTable("/data/flights", "delta", self.source_version, _COLUMNS)
        plan = plan_scoring(self.model, source, self.request)
        return replace(plan, identity=replace(plan.identity, txn_version=self.txn_version))

    @property
    def table_write(self) -> TableWrite:
        """What a sink is told of it."""
        return score_write(self.plan)

    @property
    def facts(self) -> RunFacts:
        """What stands in each row."""
        return RunFacts(self.run_id, _SCORED_AT)

    @property
    def scores(self) -> pa.Table:
        """The score table's rows, in its columns."""
        ids, days, predictions = zip(*self.rows, strict=True) if self.rows else ((), (), ())
        n_rows = len(self.rows)
        record = ["contract", "1", self.model.digest, self.run_id, _SCORED_AT]
        columns = [
            pa.array(ids, pa.int64()),
            pa.array(days, pa.int32()),
            pa.array(predictions, pa.float64()),
            *(
                pa.array([value] * n_rows, f.type)
                for value, f in zip(record, RECORD_COLUMNS, strict=True)
            ),
        ]
        names = ["id", "day", "prediction", *RECORD_COLUMNS.names]
        return pa.Table.from_arrays(columns, names=names)


class SinkContract:
    """Subclass with the six methods below; every test has an empty `tmp_path`."""

    def write(self, attempt: Attempt) -> Commit:
        """Write the attempt's scores to its target; may be called from several threads."""
        raise NotImplementedError

    def find(self, attempt: Attempt) -> Commit | None:
        """What the sink finds of the attempt's logical run."""
        raise NotImplementedError

    def history(self, attempt: Attempt) -> list[HistoryEntry]:
        """What the sink tells of the commits of the attempt's target."""
        raise NotImplementedError

    def check(self, attempt: Attempt) -> None:
        """Ask the sink whether it would take the attempt's scores."""
        raise NotImplementedError

    def read(self, target: Path) -> pa.Table:
        """The score table as its files say, read without the sink."""
        raise NotImplementedError

    def n_commits(self, target: Path) -> int:
        """Commits in the target's log; 0 where there is no table."""
        raise NotImplementedError

    def files(self, target: Path) -> list[str]:
        """Names of the files at or below a target."""
        below = [path for path in (target, *target.rglob("*")) if path.is_file()]
        return [path.name for path in below]

    def put(self, path: Path) -> None:
        """Put a file of somebody else's there."""
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")

    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        return tmp_path / "scores"

    def test_run_that_was_not_written_is_not_found(self, target: Path) -> None:
        assert self.find(attempt(target, (1, 1, 0.5))) is None
        assert self.files(target) == []
        assert not target.exists()

    def test_written_run_is_found_with_its_rows_and_version(self, target: Path) -> None:
        one = attempt(target, (1, 1, 0.5), (2, 1, 1.5))
        commit = self.write(one)
        assert commit.run_id == one.run_id
        assert commit.n_rows == 2
        assert self.find(one) == commit
        assert self.read(target).sort_by("id").equals(one.scores)

    def test_history_tells_the_runs_that_a_job_has_committed_newest_first(
        self, target: Path
    ) -> None:
        first = attempt(target, (1, 1, 0.5))
        assert self.history(first) == []
        self.write(first)
        second = attempt(target, (2, 1, 1.5), run_key="next", run_id="second")
        commit = self.write(second)
        told = self.history(first)
        assert told[0].version == commit.version
        runs = [json.loads(entry.user_metadata) for entry in told if entry.user_metadata]
        assert [run["run_id"] for run in runs] == ["second", "first"]
        job = first.request.job
        assert last_mark(told, job, "target") == Mark("", int(first.source_version), "")
        assert last_mark(told, "another", "target") is None

    def test_another_run_is_not_found_in_a_table_of_others(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5)))
        assert self.find(attempt(target, (1, 1, 0.5), run_key="other")) is None

    def test_batches_of_a_stream_are_commits_under_one_id(self, target: Path) -> None:
        batches = [
            replace(
                attempt(target, (n, 1, n / 2), run_id=f"run-{n}"),
                source_version=f"{n}",
                txn_version=n,
            )
            for n in range(3)
        ]
        assert self.find(batches[0]) is None
        commits = [self.write(batch) for batch in batches]
        assert [commit.run_id for commit in commits] == ["run-0", "run-1", "run-2"]
        assert [self.find(batch) for batch in batches] == commits
        assert self.write(replace(batches[1], run_id="again")) == commits[1]
        with pytest.raises(RunKeyConflictError):
            self.find(replace(batches[1], source_version="9"))
        assert self._scores(target) == {0: 0.0, 1: 0.5, 2: 1.0}

    def test_batch_that_a_later_one_has_passed_is_refused(self, target: Path) -> None:
        late = replace(attempt(target, (1, 1, 0.5)), txn_version=4)
        self.write(replace(late, run_id="ahead", txn_version=5))
        assert self.find(late) is None
        with pytest.raises(RunKeyConflictError, match="skipped the commit"):
            self.write(late)
        assert self.n_commits(target) == 1

    def test_same_run_again_writes_nothing_and_gets_the_first_commit(self, target: Path) -> None:
        first = self.write(attempt(target, (1, 1, 0.5)))
        again = attempt(target, (1, 1, 0.75), run_id="again")
        assert self.write(again) == first
        assert self.n_commits(target) == 1
        assert self._scores(target) == {1: 0.5}

    @pytest.mark.parametrize(
        "change",
        [{"model": replace(_MODEL, digest="e" * 64)}, {"source_version": "8"}],
        ids=["model", "source"],
    )
    def test_known_key_with_other_inputs_is_refused(
        self, change: dict[str, object], target: Path
    ) -> None:
        one = attempt(target, (1, 1, 0.5))
        self.write(one)
        other = replace(one, run_id="other", **change)  # type: ignore[arg-type]  # field values
        with pytest.raises(RunKeyConflictError, match="Nothing was written"):
            self.find(other)
        with pytest.raises(RunKeyConflictError, match="Nothing was written"):
            self.write(other)
        assert self.n_commits(target) == 1

    def test_append_keeps_what_is_there(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5)))
        commit = self.write(attempt(target, (2, 1, 1.5), run_key="next"))
        assert commit.version == 1
        assert self._scores(target) == {1: 0.5, 2: 1.5}

    def test_replace_exchanges_the_rows_of_its_predicate_and_no_others(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5), (2, 2, 1.5)))
        replacing = attempt(
            target, (3, 2, 2.5), (4, 2, 3.5), run_key="next", replace_where="day = 2"
        )
        assert self.write(replacing).n_rows == 2
        assert self._scores(target) == {1: 0.5, 3: 2.5, 4: 3.5}
        assert self.n_commits(target) == 2

    def test_replace_counts_its_own_rows_where_files_hold_others_too(self, target: Path) -> None:
        self.write(attempt(target, *((i, 1 + i // 2 % 2, i / 2) for i in range(8))))
        commit = self.write(attempt(target, (9, 2, 9.5), run_key="next", replace_where="day = 2"))
        assert commit.n_rows == 1
        assert self._scores(target) == {0: 0.0, 1: 0.5, 4: 2.0, 5: 2.5, 9: 9.5}

    def test_run_without_rows_is_a_commit(self, target: Path) -> None:
        self.check_commit_without_rows(target, WriteMode.APPEND)

    @pytest.mark.parametrize("is_first", [True, False], ids=["new-table", "known-table"])
    def test_writers_of_one_run_at_once_make_one_commit(self, is_first: bool, target: Path) -> None:
        if not is_first:
            self.write(attempt(target, (0, 0, 0.0), run_key="before"))
        before = self.n_commits(target)
        one, two = self._together(
            attempt(target, (1, 1, 0.5), run_id="one"), attempt(target, (1, 1, 0.5), run_id="two")
        )
        assert one == two
        assert self.n_commits(target) == before + 1
        assert self._scores(target)[1] == 0.5

    def test_writers_of_different_partitions_at_once_both_succeed(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5), (2, 2, 1.5), partition_by=("day",)))
        one, two = self._together(
            attempt(target, (1, 1, 7.5), run_key="1", replace_where="day = 1"),
            attempt(target, (2, 2, 8.5), run_key="2", replace_where="day = 2"),
        )
        assert {one.version, two.version} == {1, 2}
        assert self._scores(target) == {1: 7.5, 2: 8.5}

    def test_target_that_is_not_there_is_accepted_and_not_made(self, target: Path) -> None:
        self.check(attempt(target, (1, 1, 0.5)))
        assert self.files(target) == []
        assert not target.exists()

    def test_target_of_the_same_columns_is_accepted(self, target: Path) -> None:
        one = attempt(target, (1, 1, 0.5))
        self.write(one)
        self.check(replace(one, request=replace(one.request, run_key="next")))

    def test_target_of_other_columns_is_refused_with_the_difference(self, target: Path) -> None:
        one = attempt(target, (1, 1, 0.5))
        self.write(one)
        other = replace(one, request=replace(one.request, keep=("x",), keys=("id",)))
        with pytest.raises(TargetSchemaError) as caught:
            self.check(other)
        text = str(caught.value)
        assert "day: the table has int, the job writes no such column" in text
        assert "x: the table has no such column, the job writes double" in text

    def test_target_of_other_partitions_is_refused(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5), partition_by=("day",)))
        with pytest.raises(TargetSchemaError, match="partitioned by"):
            self.check(attempt(target, run_key="next", partition_by=("id",)))

    def test_partitions_of_a_known_target_need_not_be_named(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5), partition_by=("day",)))
        later = attempt(target, (2, 2, 1.5), run_key="next")
        self.check(later)
        self.write(later)
        assert self._scores(target) == {1: 0.5, 2: 1.5}

    def test_file_in_the_place_of_the_target_is_refused(self, target: Path) -> None:
        self.put(target)
        with pytest.raises(TargetUnwritableError, match="no folder"):
            self.check(attempt(target, (1, 1, 0.5)))
        assert self.files(target) == [target.name]

    def test_folder_of_other_files_is_refused(self, target: Path) -> None:
        self.put(target / "part.parquet")
        with pytest.raises(TargetError, match="no Delta table"):
            self.check(attempt(target, (1, 1, 0.5)))
        assert self.files(target) == ["part.parquet"]

    def check_commit_without_rows(self, target: Path, mode: WriteMode) -> None:
        """A run without rows is committed, and makes the table."""
        commit = self.write(attempt(target, mode=mode))
        assert commit.n_rows in (0, None)
        assert self.read(target).num_rows == 0
        assert self.read(target).schema.names == attempt(target).scores.schema.names

    def _together(self, *attempts: Attempt) -> list[Commit]:
        """Write all attempts at the same time, each in a thread of its own."""
        barrier = threading.Barrier(len(attempts))
        results: dict[int, Commit | SparkscoreError] = {}

        def act(index: int, one: Attempt) -> None:
            barrier.wait(timeout=60)
            try:
                results[index] = self.write(one)
            except SparkscoreError as exc:
                results[index] = exc

        threads = [threading.Thread(target=act, args=pair) for pair in enumerate(attempts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        commits = [results[index] for index in range(len(attempts))]
        assert all(isinstance(commit, Commit) for commit in commits), commits
        return [commit for commit in commits if isinstance(commit, Commit)]

    def _scores(self, target: Path) -> dict[int, float]:
        rows = self.read(target).select(["id", "prediction"]).to_pylist()
        scores = {row["id"]: row["prediction"] for row in rows}
        assert len(scores) == len(rows), "a key stands in two rows"
        return scores


class MergingSinkContract(SinkContract):
    """What a sink does beyond `SinkContract` that can merge."""

    def test_merge_updates_known_keys_and_inserts_new_ones(self, target: Path) -> None:
        first = attempt(target, (1, 1, 0.5), (2, 1, 1.5), mode=WriteMode.MERGE)
        assert self.write(first).n_rows == 2
        second = attempt(
            target, (2, 2, 9.5), (3, 2, 2.5), mode=WriteMode.MERGE, run_key="next", run_id="second"
        )
        commit = self.write(second)
        assert commit.n_rows == 2
        assert self.find(second) == commit
        assert self._scores(target) == {1: 0.5, 2: 9.5, 3: 2.5}
        assert self.n_commits(target) == 2

    def test_merge_again_writes_nothing(self, target: Path) -> None:
        self.write(attempt(target, (1, 1, 0.5)))
        merging = attempt(target, (1, 1, 2.5), mode=WriteMode.MERGE, run_key="m")
        first = self.write(merging)
        assert self.write(replace(merging, run_id="again", rows=((1, 1, 3.5),))) == first
        assert self._scores(target) == {1: 2.5}

    def test_merge_without_rows_is_a_commit(self, target: Path) -> None:
        self.check_commit_without_rows(target, WriteMode.MERGE)


def write_files(attempt: Attempt, sink: FilesSink) -> Commit:
    """Write an attempt's rows as one task's files, and commit them as a driver would."""
    name = new_attempt()
    files = written_files(attempt, sink, name)
    try:
        return sink.write(WrittenScores(files, name), attempt.table_write, attempt.facts)
    finally:
        sink.clean(attempt.plan.identity, {name})


def written_files(attempt: Attempt, sink: FilesSink, name: str) -> tuple[WrittenFile, ...]:
    """The files of an attempt's rows, which nobody has committed yet."""
    writer = ScoreWriter(sink.layout(attempt.table_write), file_prefix(name, 0, 0))
    for batch in attempt.scores.to_batches():
        writer.write(batch)
    return tuple(writer.finish())


def attempt(
    target: Path,
    *rows: tuple[int, int, float],
    run_id: str = "first",
    run_key: str = "night",
    mode: WriteMode = WriteMode.APPEND,
    replace_where: str | None = None,
    partition_by: tuple[str, ...] = (),
) -> Attempt:
    """An attempt to write `rows` of (id, day, prediction)."""
    request = ScoringRequest(
        job="contract",
        target=str(target),
        run_key=run_key,
        keys=("id",),
        keep=("day",),
        mode=WriteMode.REPLACE if replace_where else mode,
        replace_where=replace_where,
        partition_by=partition_by,
    )
    return Attempt(request, run_id, rows)
