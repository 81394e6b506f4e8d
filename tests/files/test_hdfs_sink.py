"""The files sink over HDFS: the same contract, and what only HDFS can do wrong."""

from __future__ import annotations

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
from sparkscore.files.sink import FilesSink
from sparkscore.testing.sink_contract import write_files
from sparkscore.testing.store_sink_contract import (
    StoreSinkContract,
    at,
    ids,
    names,
    put,
    sink_of,
)


class TestFilesSinkInHdfs(StoreSinkContract):
    opening = (
        "from sparkscore.files.hdfs_settings import hdfs_store",
        "hdfs_store(sys.argv[1], lambda name: '')",
    )

    @pytest.fixture
    def store_folder(self, hdfs_folder: StorePath) -> StorePath:
        return hdfs_folder


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
    remove_leftovers(root, found)
    assert [path.name for path in log.rglob("*")] == [f"{0:020}.json"]


def test_log_that_holds_but_the_draft_of_a_commit_is_no_table_yet(hdfs_folder: StorePath) -> None:
    """Another writer is about to make the table, or was killed before it did."""
    root = hdfs_folder
    put(root / "_delta_log" / f".{0:020}.json.tmp.1", b"{}")
    one = at(root, (1, 1, 0.5))
    sink = sink_of(one, root)
    assert sink.find(one.plan.identity) is None
    sink.check(one.table_write)
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
        sink_of(one, root).refuse_unfit(one.table_write)
