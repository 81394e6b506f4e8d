"""The files sink over HDFS: the same contract, and what only HDFS can do wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from sparkscore.errors import (
    EngineUnfitError,
    SourceError,
    StoreUnavailableError,
    TargetUnwritableError,
)
from sparkscore.files.filesystem import StorePath, store_path
from sparkscore.files.hdfs_settings import hdfs_store
from sparkscore.files.hdfs_store import HdfsStore
from sparkscore.files.leftovers import leftovers, remove_leftovers
from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading, read_piece
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.plan import ScoringPlan, score_schema
from sparkscore.testing.sink_contract import Attempt, SinkContract, attempt, write_files


def in_hdfs(one: Attempt, above: StorePath) -> Attempt:
    """The attempt with a folder of HDFS as its target, in the place of a local one."""
    if one.request.target.startswith("hdfs:"):
        return one
    return replace(one, request=replace(one.request, target=f"{above}{one.request.target}"))


def sink_of(one: Attempt, above: StorePath) -> FilesSink:
    return FilesSink(one.request.target, store=above.store)


def at(root: StorePath, *rows: tuple[int, int, float], **asked: object) -> Attempt:
    one = attempt(Path("unused"), *rows, **asked)  # type: ignore[arg-type]  # handed on
    return replace(one, request=replace(one.request, target=str(root)))


def names(root: StorePath) -> set[str]:
    return {path.name for path in root.rglob("*.parquet")}


def table(root: StorePath) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(str(root), storage_options=root.store.delta_options)


def committed(root: StorePath) -> set[str]:
    return {uri.rpartition("/")[2] for uri in table(root).file_uris()}


def ids(root: StorePath) -> list[int]:
    return sorted(table(root).to_pyarrow_table()["id"].to_pylist())


def put(path: StorePath, content: bytes) -> None:
    with path.store.open_output(path.path) as file:
        file.write(content)


class TestFilesSinkInHdfs(SinkContract):
    """Targets are local paths to the contract, and folders of HDFS to the sink."""

    @pytest.fixture(autouse=True)
    def _bench(self, hdfs_folder: StorePath) -> None:
        self.above = hdfs_folder

    def write(self, attempt: Attempt) -> Commit:
        one = in_hdfs(attempt, self.above)
        return write_files(one, sink_of(one, self.above))

    def find(self, attempt: Attempt) -> Commit | None:
        one = in_hdfs(attempt, self.above)
        return sink_of(one, self.above).find(one.plan.identity)

    def check(self, attempt: Attempt) -> None:
        one = in_hdfs(attempt, self.above)
        sink_of(one, self.above).check(one.plan, score_schema(one.plan))

    def read(self, target: Path) -> pa.Table:
        return table(self._root(target)).to_pyarrow_table()

    def n_commits(self, target: Path) -> int:
        return len(list((self._root(target) / "_delta_log").glob("*.json")))

    def files(self, target: Path) -> list[str]:
        root = self._root(target)
        at_root = [root] if root.is_file() else []
        return [path.name for path in (*at_root, *root.rglob("*"))]

    def put(self, path: Path) -> None:
        put(self._root(path), b"mine")

    def _root(self, path: Path) -> StorePath:
        return StorePath(self.above.store, f"{self.above.path}{path}")


class _RivalledSink(FilesSink):
    """Another writer commits between the last look at the log and the first try to commit."""

    def _commit(
        self,
        table: deltalake.DeltaTable | None,
        scores: WrittenScores,
        plan: ScoringPlan,
        metadata: str,
    ) -> None:
        assert isinstance(self.root, StorePath)
        version = 0 if table is None else table.version() + 1
        rival = self.root / "_delta_log" / f"{version:020}.json"
        if version == 1:
            put(rival, b'{"txn": {"appId": "rival", "version": 1}}\n')
        super()._commit(table, scores, plan, metadata)


def test_commit_that_another_writer_is_faster_with_is_put_on_top_of_it(
    hdfs_folder: StorePath,
) -> None:
    root = hdfs_folder
    write_files(at(root, (0, 1, 0.0)), sink_of(at(root), root))
    sink = _RivalledSink(str(root), store=root.store)
    assert write_files(at(root, (1, 1, 0.5), run_key="next"), sink).version == 2
    assert "rival" in (root / "_delta_log" / f"{1:020}.json").read_text()
    assert ids(root) == [0, 1]


_KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from sparkscore.files.hdfs_settings import hdfs_store
from sparkscore.files.sink import FilesSink
from sparkscore.files.writing import ScoreWriter, file_prefix
from sparkscore.testing.sink_contract import attempt

one = attempt(Path("unused"), *((i, 1, i / 3) for i in range(50_000)))
sink = FilesSink(sys.argv[1], store=hdfs_store(sys.argv[1], lambda name: ""))
for index in range(2):
    writer = ScoreWriter(sink.layout(one.plan), file_prefix("e" * 32, index, 0))
    for batch in one.scores.to_batches():
        writer.write(batch)
    if index == 0:
        writer.finish()
    else:
        writer._open[()]._flush()  # Rows of a file that is never closed.
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_writer_that_is_killed_leaves_nothing_in_the_table_and_is_cleaned_up(
    hdfs_folder: StorePath,
) -> None:
    root = hdfs_folder
    write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
    before = names(root)
    done = subprocess.run([sys.executable, "-c", _KILLED, str(root)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert committed(root) == before
    found = leftovers(root)
    assert sorted(left.path.name[:10] for left in found) == ["part-00000", "part-00001"]
    assert ids(root) == [1]
    remove_leftovers(found)
    remove_leftovers(found)  # What is gone already is no error.
    assert names(root) == before


def test_draft_of_a_commit_that_lost_its_race_is_a_leftover(hdfs_folder: StorePath) -> None:
    root = hdfs_folder
    write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
    log = root / "_delta_log"
    ours = log / f".{1:020}.json.tmp.1"
    of_spark = log / f".{1:020}.json.0b9f3a52-8d7e-4d57-a4a3-6a0fb0d2d6f2.tmp"
    for draft in (ours, of_spark):
        put(draft, b"{}")
    found = leftovers(root)
    assert {left.path for left in found} == {ours, of_spark}
    remove_leftovers(found)
    assert [path.name for path in log.rglob("*")] == [f"{0:020}.json"]


def test_log_that_holds_but_the_draft_of_a_commit_is_no_table_yet(hdfs_folder: StorePath) -> None:
    """Another writer is about to make the table, or was killed before it did."""
    root = hdfs_folder
    put(root / "_delta_log" / f".{0:020}.json.tmp.1", b"{}")
    one = at(root, (1, 1, 0.5))
    sink = sink_of(one, root)
    assert sink.find(one.plan.identity) is None
    sink.check(one.plan, score_schema(one.plan))
    assert write_files(one, sink).version == 0


def test_user_without_the_right_is_told_so(
    hdfs_folder: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark's tasks act as the user of the application, and so does the client."""
    root = hdfs_folder
    write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
    before = names(root)
    monkeypatch.setenv("HADOOP_USER_NAME", "nobody")
    monkeypatch.setenv("SPARK_USER", "bob")
    of_bob = HdfsStore(root.bucket, (("of", "bob"),))  # Not the client that is there already.
    one = at(root, (2, 1, 0.5), run_key="next")
    with pytest.raises(TargetUnwritableError, match=r"does not let.*user=bob.*HADOOP_USER_NAME"):
        write_files(one, FilesSink(str(root), store=of_bob))
    assert names(root) == before


def test_name_node_that_is_gone_is_worth_another_try(hdfs_folder: StorePath) -> None:
    gone = StorePath(
        HdfsStore("127.0.0.1:9", (("dfs.client.failover.max.attempts", "1"),)), "127.0.0.1:9/x"
    )
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9 gave no.*name node") as caught:
        sink_of(at(gone), gone).find(at(gone).plan.identity)
    assert caught.value.retryable
    reading = TableReading(pa.schema([]), (), {}, None, 2**20, store=hdfs_folder.store)
    with pytest.raises(SourceError, match=r"hdfs://.*gone\.parquet.*earlier version") as missing:
        list(read_piece(FilePiece(str(hdfs_folder / "gone.parquet"), 0, 1), reading))
    assert "org.apache" not in str(missing.value)


def test_cluster_of_two_name_nodes_is_written_to_where_the_first_is_gone(
    hdfs_folder: StorePath,
) -> None:
    settings = {
        "dfs.ha.namenodes.lake": "a, b",
        "dfs.namenode.rpc-address.lake.a": "127.0.0.1:9",
        "dfs.namenode.rpc-address.lake.b": hdfs_folder.bucket,
    }
    uri = f"hdfs://lake/{hdfs_folder.name}"
    store = hdfs_store(uri, lambda name: settings.get(name, ""))
    assert store is not None
    root = store_path(store, uri)
    one = at(root, (1, 1, 0.5))
    assert write_files(one, sink_of(one, root)).version == 0
    assert ids(root) == ids(hdfs_folder) == [1]


def test_folder_whose_name_would_be_encoded_is_left_to_spark(hdfs_folder: StorePath) -> None:
    root = hdfs_folder / "scores of a night"
    one = at(root, (1, 1, 0.5))
    with pytest.raises(EngineUnfitError, match="encodes the folder's name"):
        sink_of(one, root).refuse_unfit(one.plan)
