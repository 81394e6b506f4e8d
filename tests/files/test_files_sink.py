from __future__ import annotations

import json
import resource
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkscore.errors import EngineUnfitError, RunKeyConflictError, TargetUnwritableError
from sparkscore.files.change import LostRaceError, TableChange
from sparkscore.files.ledger import Ledger
from sparkscore.files.log import read_snapshot
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import ScoreWriter, file_prefix
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import WriteMode
from sparkscore.scoring.staged_names import LEDGER_FOLDER
from sparkscore.scoring.target import HistoryEntry
from sparkscore.testing.sink_contract import (
    Attempt,
    SinkContract,
    attempt,
    write_files,
    written_files,
)

FIRST, SUCCESSOR = "1" * 32, "2" * 32


def write(one: Attempt) -> Commit:
    return write_files(one, FilesSink(one.request.target))


def data_files(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*.parquet")}


def committed(target: Path) -> set[str]:
    uris = deltalake.DeltaTable(target).file_uris()
    return {str(Path(uri.removeprefix("file://")).relative_to(target)) for uri in uris}


class TestFilesSink(SinkContract):
    def write(self, attempt: Attempt) -> Commit:
        return write(attempt)

    def find(self, attempt: Attempt) -> Commit | None:
        return FilesSink(attempt.request.target).find(attempt.plan.identity)

    def history(self, attempt: Attempt) -> list[HistoryEntry]:
        return list(FilesSink(attempt.request.target).history())

    def check(self, attempt: Attempt) -> None:
        FilesSink(attempt.request.target).check(attempt.table_write)

    def read(self, target: Path) -> pa.Table:
        return deltalake.DeltaTable(target).to_pyarrow_table()

    def n_commits(self, target: Path) -> int:
        return len(list((target / "_delta_log").glob("*.json")))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "scores"


def test_commit_names_run_model_and_input(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    write(one)
    (entry,) = deltalake.DeltaTable(target).history()
    metadata = json.loads(entry["userMetadata"])
    assert metadata["run_id"] == "first"
    assert metadata["app_id"] == one.plan.identity.app_id
    assert metadata["inputs"]["input_version"] == "7"
    assert deltalake.DeltaTable(target).transaction_version(one.plan.identity.app_id) == 1


def test_files_of_an_attempt_that_lost_are_removed(target: Path) -> None:
    write(attempt(target, (1, 1, 0.5)))
    before = data_files(target)
    write(attempt(target, (1, 1, 0.75), run_id="again"))
    assert data_files(target) == before == committed(target)


def test_attempt_that_fails_on_a_new_target_leaves_no_folder(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5), partition_by=("day",))
    sink = FilesSink(str(target))
    writer = ScoreWriter(sink.layout(one.table_write), file_prefix("lost", 0, 0))
    writer.write(one.scores.to_batches()[0])
    writer.finish()
    assert data_files(target)
    sink.clean(one.plan.identity, {"lost"})
    assert not target.exists()


def test_statistics_of_files_are_those_of_their_rows(target: Path) -> None:
    write(attempt(target, (1, 4, 0.5), (7, 2, -1.5)))
    facts = pa.table(deltalake.DeltaTable(target).get_add_actions(flatten=True)).to_pylist()[0]
    assert facts["num_records"] == 2
    assert (facts["min.id"], facts["max.id"], facts["null_count.id"]) == (1, 7, 0)
    assert (facts["min.prediction"], facts["max.prediction"]) == (-1.5, 0.5)
    assert facts["min.model_name"] == facts["max.model_name"] == "contract"


def test_history_counts_rows_files_and_bytes(target: Path) -> None:
    write(attempt(target, (1, 1, 0.5), (2, 2, 0.5), partition_by=("day",)))
    (entry,) = deltalake.DeltaTable(target).history()
    n_bytes = sum((target / path).stat().st_size for path in committed(target))
    assert entry["operationMetrics"] == {
        "numFiles": "2",
        "numOutputRows": "2",
        "numOutputBytes": str(n_bytes),
    }


def test_merge_is_left_to_spark(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5), mode=WriteMode.MERGE)
    with pytest.raises(EngineUnfitError, match=r"does not merge.*--engine arrow"):
        FilesSink(str(target)).refuse_unfit(one.table_write)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"delta.appendOnly": "true"}, "nothing but appends"),
        ({"delta.constraints.small": "id < 10"}, "constraints"),
    ],
    ids=["append-only", "constraint"],
)
def test_table_that_demands_more_of_its_writers_is_left_to_spark(
    properties: dict[str, str], said: str, target: Path
) -> None:
    one = attempt(target, (1, 1, 0.5), replace_where="day = 1")
    deltalake.write_deltalake(target, one.scores)
    if "delta.constraints.small" in properties:
        deltalake.DeltaTable(target).alter.add_constraint({"small": "id < 10"})
    else:
        deltalake.DeltaTable(target).alter.set_table_properties(properties)
    with pytest.raises(EngineUnfitError, match=said):
        FilesSink(str(target)).refuse_unfit(one.table_write)


def test_commit_whose_history_has_expired_is_an_error(target: Path) -> None:
    write(attempt(target, (1, 1, 0.5)))
    late = attempt(target, (2, 1, 1.5), run_key="late")
    transaction = deltalake.Transaction(late.plan.identity.app_id, 1)
    deltalake.write_deltalake(
        target,
        late.scores,
        mode="append",
        commit_properties=deltalake.CommitProperties(app_transactions=[transaction]),
    )
    before = deltalake.DeltaTable(target).version()
    with pytest.raises(RunKeyConflictError, match=r"skipped the commit.*--run-key"):
        write(late)
    assert deltalake.DeltaTable(target).version() == before
    assert data_files(target) == committed(target)


def test_replace_reads_the_files_that_statistics_do_not_decide(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5), (2, 2, 1.5), (3, 3, 2.5))
    write(one)
    replacing = attempt(target, (9, 1, 9.5), run_key="next", replace_where="day != 2")
    assert write(replacing).n_rows == 1
    rows = deltalake.DeltaTable(target).to_pyarrow_table().select(["id", "day"]).to_pylist()
    assert sorted((row["id"], row["day"]) for row in rows) == [(2, 2), (9, 1)]
    newest = deltalake.DeltaTable(target).history()[0]["operationMetrics"]
    assert (newest["numRemovedFiles"], newest["numCopiedRows"]) == ("1", "1")
    assert newest["numDeletedRows"] == "2"


def test_log_that_is_broken_is_left_to_spark(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    write(one)
    (target / "_delta_log" / f"{0:020}.json").write_text("no json")
    with pytest.raises(EngineUnfitError, match="log of the target"):
        FilesSink(str(target)).find(one.plan.identity)


def test_target_behind_a_link_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "real table").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real table")
    write(attempt(link, (1, 1, 0.5), (2, 2, 0.5), partition_by=("day",)))
    write(attempt(link, (3, 1, 0.5), run_key="next", replace_where="day = 1"))
    rows = deltalake.DeltaTable(link).to_pyarrow_table()
    assert sorted(rows["id"].to_pylist()) == [2, 3]


def test_folder_whose_name_deltalake_decodes_is_left_to_spark(tmp_path: Path) -> None:
    write(attempt(tmp_path / "a b", (1, 1, 0.5)))
    other = attempt(tmp_path / "a%20b", (2, 1, 0.5))
    with pytest.raises(EngineUnfitError, match=r"a%20b"):
        FilesSink(other.request.target).refuse_unfit(other.table_write)
    with pytest.raises(EngineUnfitError, match=r"a%20b"):
        read_snapshot(tmp_path / "a%20b", None)


def test_files_have_bounds_of_all_columns_but_floats(target: Path) -> None:
    write(attempt(target, (1, 1, float("nan")), (2, 1, 0.5)))
    (path,) = target.rglob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    bounded = {name for name, column in columns.items() if column.is_stats_set}
    assert {"id", "run_id"} <= bounded
    assert "prediction" in columns
    assert "prediction" not in bounded


def test_partition_of_empty_text_is_left_to_spark(tmp_path: Path) -> None:
    rows = pa.table({"id": [1, 2], "part": pa.array(["", "a"])})
    deltalake.write_deltalake(tmp_path, rows, partition_by=["part"])
    with pytest.raises(EngineUnfitError, match=r"empty text.*part=/"):
        read_snapshot(tmp_path, None).files(None)


def test_version_of_a_commit_is_that_of_its_file(target: Path) -> None:
    first = write(attempt(target, (1, 1, 0.5)))
    log = target / "_delta_log"
    # A commit that says nothing of itself, as Delta allows, has no entry in a history.
    (log / f"{1:020}.json").write_text('{"txn": {"appId": "other", "version": 1}}\n')
    second = write(attempt(target, (2, 1, 0.5), run_key="next"))
    assert (first.version, second.version) == (0, 2)
    again = FilesSink(str(target)).find(attempt(target, (1, 1, 0.5)).plan.identity)
    assert again is not None
    assert again.version == 0


def test_disk_that_fills_is_named_and_nothing_stays(target: Path) -> None:
    one = attempt(target, *((i, 1, i / 3) for i in range(20_000)))
    writer = ScoreWriter(FilesSink(str(target)).layout(one.table_write), file_prefix("full", 0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        writer.write(one.scores.combine_chunks().to_batches()[0])
        with pytest.raises(TargetUnwritableError, match=r"(?s)target .*scores.*File too large"):
            writer.finish()
        writer.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert data_files(target) == set()


def test_run_is_found_after_the_table_has_forgotten_its_id(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    commit = write(one)
    table = deltalake.DeltaTable(target)
    table.alter.set_table_properties({"delta.setTransactionRetentionDuration": "interval 0 hours"})
    app_id = one.plan.identity.app_id
    assert deltalake.DeltaTable(target).transaction_version(app_id) is None
    assert FilesSink(str(target)).find(one.plan.identity) == commit
    other = attempt(target, (1, 1, 0.5), run_key="other").plan.identity
    assert FilesSink(str(target)).find(other) is None


def staged(one: Attempt, name: str) -> WrittenScores:
    """The files of an attempt that has not committed yet."""
    return WrittenScores(written_files(one, FilesSink(one.request.target), name), name)


def test_woken_attempt_writes_nothing_and_takes_no_file_of_its_successor(target: Path) -> None:
    """The successor commits what the first had finished, and files of its own."""
    first = attempt(target, (1, 1, 0.5), run_id="first")
    successor = attempt(target, (2, 1, 1.5), run_id="successor")
    sink, identity = FilesSink(str(target)), first.plan.identity
    before, after = staged(first, FIRST), staged(successor, SUCCESSOR)
    both = WrittenScores((*before.files, *after.files), SUCCESSOR, ("first",))
    commit = sink.write(both, successor.table_write, successor.facts)
    sink.clean(identity, {FIRST, SUCCESSOR})
    late = staged(attempt(target, (3, 1, 2.5)), FIRST)
    assert sink.write(late, first.table_write, first.facts) == commit
    sink.clean(identity, {FIRST})
    assert deltalake.DeltaTable(target).version() == 0
    assert data_files(target) == committed(target) == {file.path for file in both.files}
    (entry,) = deltalake.DeltaTable(target).history()
    assert json.loads(entry["userMetadata"])["resumed_from"] == ["first"]


def test_what_was_left_right_after_the_commit_goes_when_the_run_is_asked_for_again(
    target: Path,
) -> None:
    one = attempt(target, (1, 1, 0.5))
    sink, identity = FilesSink(str(target)), one.plan.identity
    sink.clear(identity)
    assert not target.exists()
    ledger = Ledger(target, identity.app_id, FIRST, "first", "inputs")
    ledger.claim(1)
    ledger.record("c" * 32, "result")
    scores = staged(one, FIRST)
    sink.write(scores, one.table_write, one.facts)
    twice = target / f"part-00001-{FIRST}-0-c000.zstd.parquet"
    twice.write_bytes(b"of a try that Spark did not take")
    sink.clear(identity)
    assert data_files(target) == committed(target) == {file.path for file in scores.files}
    assert not (target / LEDGER_FOLDER).exists()


def test_woken_attempt_keeps_files_that_only_an_earlier_version_has(target: Path) -> None:
    one = attempt(target, (1, 1, 0.5))
    scores = staged(one, FIRST)
    sink = FilesSink(str(target))
    sink.write(scores, one.table_write, one.facts)
    deltalake.DeltaTable(target).delete()
    assert committed(target) == set()
    sink.clean(one.plan.identity, {FIRST})
    assert deltalake.DeltaTable(target, version=0).to_pyarrow_table().num_rows == 1


def test_commit_whose_answer_is_lost_is_found_and_not_made_again(target: Path) -> None:
    """Another library commits, says that it lost a race, and it had landed."""
    write(attempt(target, (0, 0, 0.0), run_key="before"))
    protocol = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["domainMetadata"]}
    log = target / "_delta_log"
    (log / f"{1:020}.json").write_text(json.dumps({"protocol": protocol}) + "\n")
    writer = UnansweredLog(log)
    one = attempt(target, (1, 1, 0.5), run_id="unanswered")
    sink = FilesSink(str(target), log_writer=writer)
    commit = sink.write(staged(one, FIRST), one.table_write, one.facts)
    assert (commit.run_id, commit.version, writer.n_calls) == ("unanswered", 2, 1)
    assert deltalake.DeltaTable(target).to_pyarrow_table().num_rows == 2


class UnansweredLog:
    """Commits, and says that another commit was faster."""

    features = frozenset({"domainMetadata"})

    def __init__(self, log: Path) -> None:
        self.log = log
        self.n_calls = 0

    def refuse_unfit(self) -> None:
        """It works everywhere."""

    def commit(self, folder: str, change: TableChange) -> None:  # noqa: ARG002 - the seam
        self.n_calls += 1
        info = {"operation": "WRITE", "userMetadata": change.user_metadata}
        lines = [{"commitInfo": info}, *change.actions()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.log / f"{change.version + 1:020}.json").write_text(text)
        raise LostRaceError
