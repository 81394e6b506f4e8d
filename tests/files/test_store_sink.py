"""The files sink over a store: the same contract, and what only a store can do wrong."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from sparkscore.errors import (
    EngineUnfitError,
    StoreUnavailableError,
    TargetUnwritableError,
)
from sparkscore.files.filesystem import StorePath
from sparkscore.files.leftovers import leftovers, remove_leftovers
from sparkscore.files.sink import FilesSink
from sparkscore.files.writing import ScoreWriter, file_prefix
from sparkscore.testing.s3_server import S3Server
from sparkscore.testing.sink_contract import write_files, written_files
from sparkscore.testing.store_sink_contract import (
    StoreSinkContract,
    at,
    committed,
    names,
    put,
    sink_of,
    table,
)


class TestFilesSinkInS3(StoreSinkContract):
    opening = (
        "from sparkscore.files.s3_settings import s3_store",
        "s3_store(sys.argv[1], {}, os.environ)",
    )

    @pytest.fixture
    def store_folder(self, bucket: StorePath) -> StorePath:
        return bucket


@pytest.fixture
def root(bucket: StorePath) -> StorePath:
    return bucket / "scores of a night"


def test_files_of_an_attempt_that_lost_are_removed(root: StorePath) -> None:
    one = at(root, (1, 1, 0.5))
    sink = sink_of(one, root)
    write_files(one, sink)
    before = names(root)
    write_files(replace(one, run_id="again", rows=((1, 1, 0.75),)), sink)
    assert names(root) == before == committed(root)


def test_commit_that_another_writer_is_faster_with_is_put_on_top_of_it(
    root: StorePath, s3_server: S3Server
) -> None:
    """The other one comes between our last look at the log and our put, which then must fail."""
    sink = sink_of(at(root), root)
    write_files(at(root, (0, 1, 0.0)), sink)
    rival = b'{"txn": {"appId": "rival", "version": 1}}\n'
    s3_server.rival = (f"{1:020}.json", rival)
    commit = write_files(at(root, (1, 1, 0.5), run_key="next"), sink)
    assert commit.version == 2
    assert (root / "_delta_log" / f"{1:020}.json").read_text() == rival.decode()
    assert sorted(table(root).to_pyarrow_table()["id"].to_pylist()) == [0, 1]


def test_commit_whose_answer_is_lost_is_found_and_not_repeated(
    root: StorePath, s3_server: S3Server
) -> None:
    sink = sink_of(at(root), root)
    write_files(at(root, (1, 1, 0.5)), sink)
    s3_server.loses_answers_to = "00000000000000000001.json"
    commit = write_files(at(root, (2, 1, 1.5), run_key="next", run_id="next"), sink)
    assert not s3_server.loses_answers_to
    assert (commit.version, commit.run_id) == (1, "next")
    assert sorted(table(root).to_pyarrow_table()["id"].to_pylist()) == [1, 2]


def test_store_that_would_overwrite_a_commit_is_left_to_spark(
    root: StorePath, s3_server: S3Server
) -> None:
    s3_server.ignores_conditions = True
    one = at(root, (1, 1, 0.5))
    with pytest.raises(EngineUnfitError, match=r"ignores 'If-None-Match'.*--engine arrow"):
        sink_of(one, root).refuse_unfit(one.table_write)
    assert list(root.rglob("*")) == []


def test_library_that_asks_the_store_is_named_where_it_is_missing(
    root: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    one = at(root, (1, 1, 0.5))
    with pytest.raises(EngineUnfitError, match=r"'obstore', which is not.*sparkscore\[buckets\]"):
        sink_of(one, root).refuse_unfit(one.table_write)


def test_store_is_asked_once_and_nothing_stays_of_it(root: StorePath, s3_server: S3Server) -> None:
    one = at(root, (1, 1, 0.5))
    for _ in range(2):
        sink_of(one, root).refuse_unfit(one.table_write)
    puts = [path for method, path in s3_server.requests if method == "PUT"]
    assert len(puts) == 2
    assert "_sparkscore-probe-" in puts[0]
    assert list(root.rglob("*")) == []


def test_bucket_that_is_not_there_is_named(root: StorePath) -> None:
    missing = StorePath(root.store, "no-such-bucket/scores")
    one = at(missing, (1, 1, 0.5))
    sink = sink_of(one, missing)
    with pytest.raises(TargetUnwritableError, match=r"no bucket 'no-such-bucket'; create it"):
        sink.find(one.plan.identity)
    with pytest.raises(TargetUnwritableError, match="no bucket"):
        sink.refuse_unfit(one.table_write)


def test_credentials_that_are_wrong_are_named_and_not_shown(
    root: StorePath, s3_server: S3Server
) -> None:
    store = replace(s3_server.store, access_key="AKIAWRONG", secret_key="s3cret-words")
    one = at(root, (1, 1, 0.5))
    sink = FilesSink(str(root), store=store)
    with pytest.raises(TargetUnwritableError) as caught:
        sink.find(one.plan.identity)
    text = str(caught.value)
    assert "refuses the credentials of AWS_ACCESS_KEY_ID" in text
    assert "check them, and that they may read and write there" in text
    shown = text + repr(sink) + repr(store) + repr(sink.root)
    assert "AKIAWRONG" not in shown
    assert "s3cret-words" not in shown
    layout = replace(sink_of(one, root).layout(one.table_write), folder=sink.root)
    writer = ScoreWriter(layout, file_prefix("lost", 0, 0))
    writer.write(one.scores.to_batches()[0])
    with pytest.raises(TargetUnwritableError, match="refuses the credentials"):
        writer.finish()


def test_store_that_takes_no_commit_from_this_key_is_named_and_its_files_go(
    root: StorePath, s3_server: S3Server
) -> None:
    sink = sink_of(at(root), root)
    write_files(at(root, (1, 1, 0.5)), sink)
    before = names(root)
    s3_server.refuses = "/_delta_log/"
    with pytest.raises(TargetUnwritableError, match="refuses the credentials"):
        write_files(at(root, (2, 1, 0.5), run_key="next"), sink)
    s3_server.refuses = None
    assert names(root) == before == committed(root)


def test_key_that_may_not_look_at_the_bucket_itself_is_enough(
    root: StorePath, s3_server: S3Server
) -> None:
    s3_server.refuses_bucket = True
    write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
    assert names(root) == committed(root)


def test_store_that_does_not_answer_is_worth_another_try(
    root: StorePath, s3_server: S3Server
) -> None:
    down = StorePath(replace(s3_server.store, endpoint="http://127.0.0.1:9"), root.path)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9.*AWS_ENDPOINT_URL") as caught:
        sink_of(at(root), down).find(at(root).plan.identity)
    assert caught.value.retryable


def test_file_is_visible_only_when_it_is_whole(root: StorePath) -> None:
    one = at(root, *((i, 1, i / 3) for i in range(100_000)))
    writer = ScoreWriter(sink_of(one, root).layout(one.table_write), file_prefix("slow", 0, 0))
    for batch in one.scores.to_batches(max_chunksize=10_000):
        writer.write(batch)
    assert list(root.rglob("*")) == []
    (file,) = writer.finish()
    (found,) = root.rglob("*")
    facts = found.stat()
    assert (found.name, facts.st_size) == (file.path, file.n_bytes)
    writer.abort()
    assert list(root.rglob("*")) == []


def test_what_a_killed_job_left_is_listed_and_removed(root: StorePath) -> None:
    one = at(root, (1, 1, 0.5), (2, 2, 0.5), partition_by=("day",))
    sink = sink_of(one, root)
    write_files(one, sink)
    assert leftovers(root) == []
    before = names(root)
    lost = written_files(at(root, (3, 1, 0.5), (4, 2, 0.5), partition_by=("day",)), sink, "f" * 32)
    probe = root / f"_sparkscore-probe-{'a' * 32}"
    put(probe, b"")
    put(root / "of-somebody-else.parquet", b"mine")
    found = leftovers(root)
    assert {left.path.name for left in found} == {probe.name, *(f.path[6:] for f in lost)}
    assert all(0 <= left.age_s < time.time() for left in found)
    assert write_files(at(root, (9, 1, 0.5), run_key="next"), sink).version == 1
    remove_leftovers(root, found)
    remove_leftovers(root, found)  # What is gone already is no error.
    assert leftovers(root) == []
    assert before | {"of-somebody-else.parquet"} < names(root)
    assert table(root).to_pyarrow_table().num_rows == 3
