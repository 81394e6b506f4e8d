"""What the files sink does in every store; a store's tests subclass `StoreSinkContract`."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import deltalake
import pyarrow as pa
import pytest

from sparkscore.errors import SparkscoreError, StagedFilesGoneError
from sparkscore.files.filesystem import StorePath
from sparkscore.files.ledger import Ledger, are_there
from sparkscore.files.leftovers import leftovers, remove_leftovers
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.scoring.outcome import Commit
from sparkscore.scoring.table_write import TableWrite
from sparkscore.scoring.target import HistoryEntry
from sparkscore.testing.sink_contract import (
    Attempt,
    SinkContract,
    attempt,
    write_files,
    written_files,
)

_KILLED = """
import os, signal, sys
from pathlib import Path
{imports}
from sparkscore.files.sink import FilesSink
from sparkscore.files.writing import ScoreWriter, file_prefix
from sparkscore.testing.sink_contract import attempt

one = attempt(Path("unused"), *((i, 1, i / 3) for i in range(50_000)))
sink = FilesSink(sys.argv[1], store={store})
for index in range(2):
    writer = ScoreWriter(sink.layout(one.table_write), file_prefix("e" * 32, index, 0))
    for batch in one.scores.to_batches():
        writer.write(batch)
    if index == 0:
        writer.finish()
    else:
        writer._open[()]._flush()  # Rows of a file that is never closed.
os.kill(os.getpid(), signal.SIGKILL)
"""


def at(root: StorePath, *rows: tuple[int, int, float], **asked: object) -> Attempt:
    """An attempt whose target is a folder of a store."""
    one = attempt(Path("unused"), *rows, **asked)  # type: ignore[arg-type]  # handed on
    return replace(one, request=replace(one.request, target=str(root)))


def sink_of(one: Attempt, above: StorePath) -> FilesSink:
    """The sink of an attempt whose target lies in the same store as `above`."""
    return FilesSink(one.request.target, store=above.store)


def names(root: StorePath) -> set[str]:
    """Names of all data files below a folder."""
    return {path.name for path in root.rglob("*.parquet")}


def table(root: StorePath) -> deltalake.DeltaTable:
    """The table in a folder, as another library reads it."""
    return deltalake.DeltaTable(str(root), storage_options=root.store.delta_options)


def committed(root: StorePath) -> set[str]:
    """Names of the data files that are in the table."""
    return {uri.rpartition("/")[2] for uri in table(root).file_uris()}


def ids(root: StorePath) -> list[int]:
    """The keys of the table's rows, sorted."""
    return sorted(table(root).to_pyarrow_table()["id"].to_pylist())


def put(path: StorePath, content: bytes) -> None:
    """Write a file of somebody else's."""
    with path.store.open_output(path.path) as file:
        file.write(content)


class _RivalledSink(FilesSink):
    """Another writer commits between the last look at the log and the first try to commit."""

    def _commit(
        self,
        table: deltalake.DeltaTable | None,
        scores: WrittenScores,
        write: TableWrite,
        metadata: str,
    ) -> None:
        assert isinstance(self.root, StorePath)
        version = 0 if table is None else table.version() + 1
        if version == 1:
            rival = self.root / "_delta_log" / f"{version:020}.json"
            put(rival, b'{"txn": {"appId": "rival", "version": 1}}\n')
        super()._commit(table, scores, write, metadata)


class StoreSinkContract(SinkContract):
    """Subclass with a fixture `store_folder`: an empty folder, to which the environment leads.

    Targets are local paths to SinkContract, and folders of the store to the sink.

    Attributes:
        opening: An import and an expression by which another process opens the store of the URI
            `sys.argv[1]`, with `os.environ` at hand.
    """

    opening: ClassVar[tuple[str, str]]

    @pytest.fixture(autouse=True)
    def _bench(self, store_folder: StorePath) -> None:
        self.above = store_folder

    def write(self, attempt: Attempt) -> Commit:
        one = self._in_store(attempt)
        return write_files(one, sink_of(one, self.above))

    def find(self, attempt: Attempt) -> Commit | None:
        one = self._in_store(attempt)
        return sink_of(one, self.above).find(one.plan.identity)

    def history(self, attempt: Attempt) -> list[HistoryEntry]:
        return list(sink_of(self._in_store(attempt), self.above).history())

    def check(self, attempt: Attempt) -> None:
        one = self._in_store(attempt)
        sink_of(one, self.above).check(one.table_write)

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

    def test_commit_that_another_writer_is_faster_with_is_put_on_top_of_it(
        self, store_folder: StorePath
    ) -> None:
        root = store_folder / "scores"
        write_files(at(root, (0, 1, 0.0)), sink_of(at(root), root))
        sink = _RivalledSink(str(root), store=root.store)
        assert write_files(at(root, (1, 1, 0.5), run_key="next"), sink).version == 2
        assert "rival" in (root / "_delta_log" / f"{1:020}.json").read_text()
        assert ids(root) == [0, 1]

    def test_racing_writers_of_different_runs_all_land_and_none_is_overwritten(
        self, store_folder: StorePath
    ) -> None:
        root = store_folder / "scores"
        write_files(at(root, (0, 1, 0.5)), sink_of(at(root), root))
        runs = [at(root, (i, 1, i / 2), run_key=f"run {i}", run_id=f"id {i}") for i in range(1, 5)]
        barrier = threading.Barrier(len(runs))
        ended: list[Commit | SparkscoreError] = []

        def act(one: Attempt) -> None:
            barrier.wait(timeout=60)
            try:
                ended.append(write_files(one, sink_of(one, root)))
            except SparkscoreError as exc:
                ended.append(exc)

        threads = [threading.Thread(target=act, args=(one,)) for one in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(c.version for c in ended if isinstance(c, Commit)) == [1, 2, 3, 4], ended
        assert ids(root) == [0, 1, 2, 3, 4]
        assert names(root) == committed(root)

    def test_chunks_of_a_killed_attempt_are_found_by_the_next_and_go_after_the_commit(
        self, store_folder: StorePath
    ) -> None:
        root = store_folder / "scores"
        one = at(root, (1, 1, 0.5))
        sink, identity = sink_of(one, root), one.plan.identity
        first = Ledger(root, identity.app_id, "1" * 32, "first", "inputs")
        assert first.claim(2).records == ()
        (file,) = written_files(one, sink, first.attempt)
        for _ in range(2):  # As a task and its speculative twin do.
            first.record("c" * 32, "result")
        second = replace(first, attempt="2" * 32, run_id="second")
        earlier = second.claim(2)
        assert [record.result for record in earlier.records] == ["result", "result"]
        assert are_there(root, [file])
        assert not are_there(root, [replace(file, n_bytes=1)])
        assert not first.discard()
        assert {left.run for left in leftovers(root)} == {identity.app_id}
        second.check_claim()
        sink.write(WrittenScores((file,), second.attempt), one.table_write, one.facts)
        sink.clean(identity, {second.attempt, *earlier.attempts})
        second.remove(earlier.attempts)
        assert leftovers(root) == []
        assert ids(root) == [1]
        with pytest.raises(StagedFilesGoneError):
            first.check_claim()

    def test_writer_that_is_killed_leaves_nothing_in_the_table_and_is_cleaned_up(
        self, store_folder: StorePath
    ) -> None:
        root = store_folder / "scores"
        write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
        before = names(root)
        imports, store = self.opening
        script = _KILLED.format(imports=imports, store=store)
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-c", script, str(root)], check=False, timeout=120
        )
        assert done.returncode == -signal.SIGKILL
        assert committed(root) == before
        found = leftovers(root)
        assert "part-00000" in {left.path.name[:10] for left in found}
        assert ids(root) == [1]
        remove_leftovers(root, found)
        remove_leftovers(root, found)  # What is gone already is no error.
        assert names(root) == before

    def _in_store(self, one: Attempt) -> Attempt:
        if not one.request.target.startswith("/"):
            return one
        target = f"{self.above}{one.request.target}"
        return replace(one, request=replace(one.request, target=target))

    def _root(self, path: Path) -> StorePath:
        return StorePath(self.above.store, f"{self.above.path}{path}")
