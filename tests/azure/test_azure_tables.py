"""Tables in Azure's storage, at a real server of its protocol; see `make test-azure`."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.cli import main
from sparkscore.errors import SparkscoreError, StoreUnavailableError, TargetUnwritableError
from sparkscore.files.azure_store import AzureStore
from sparkscore.files.filesystem import StorePath
from sparkscore.files.leftovers import leftovers, remove_leftovers
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outcome import Commit, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, plan_scoring, score_schema
from sparkscore.spark.delta import files_sink
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.azure_server import AzureServer, running_server
from sparkscore.testing.engine_cases import TRUST, X
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.sink_contract import Attempt, SinkContract, attempt, write_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def azure_server(spark_cache: Path) -> Iterator[AzureServer]:
    with running_server(spark_cache) as server:
        yield server


@pytest.fixture
def container(azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> StorePath:
    """An empty container, to which the variables lead."""
    for name, value in azure_server.environ.items():
        monkeypatch.setenv(name, value)
    return azure_server.new_container()


def at(root: StorePath, *rows: tuple[int, int, float], **asked: object) -> Attempt:
    one = attempt(Path("unused"), *rows, **asked)  # type: ignore[arg-type]  # handed on
    return replace(one, request=replace(one.request, target=str(root)))


def sink_of(one: Attempt, above: StorePath) -> FilesSink:
    return FilesSink(one.request.target, store=above.store)


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


class TestFilesSinkInAzure(SinkContract):
    """Targets are local paths to the contract, and folders of a container to the sink."""

    @pytest.fixture(autouse=True)
    def _bench(self, container: StorePath) -> None:
        self.above = container

    def write(self, attempt: Attempt) -> Commit:
        one = self._in_azure(attempt)
        return write_files(one, sink_of(one, self.above))

    def find(self, attempt: Attempt) -> Commit | None:
        one = self._in_azure(attempt)
        return sink_of(one, self.above).find(one.plan.identity)

    def check(self, attempt: Attempt) -> None:
        one = self._in_azure(attempt)
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

    def _in_azure(self, one: Attempt) -> Attempt:
        if one.request.target.startswith("abfss:"):
            return one
        return replace(
            one, request=replace(one.request, target=f"{self.above}{one.request.target}")
        )

    def _root(self, path: Path) -> StorePath:
        return StorePath(self.above.store, f"{self.above.path}{path}")


def test_racing_writers_of_different_runs_all_land_and_none_is_overwritten(
    container: StorePath,
) -> None:
    root = container / "scores"
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
        if version == 1:
            rival = self.root / "_delta_log" / f"{version:020}.json"
            put(rival, b'{"txn": {"appId": "rival", "version": 1}}\n')
        super()._commit(table, scores, plan, metadata)


def test_commit_that_another_writer_is_faster_with_is_put_on_top_of_it(
    container: StorePath,
) -> None:
    root = container / "scores"
    write_files(at(root, (0, 1, 0.0)), sink_of(at(root), root))
    sink = _RivalledSink(str(root), store=root.store)
    assert write_files(at(root, (1, 1, 0.5), run_key="next"), sink).version == 2
    assert "rival" in (root / "_delta_log" / f"{1:020}.json").read_text()
    assert ids(root) == [0, 1]


def test_store_of_its_own_endpoint_is_asked_and_nothing_stays_of_it(container: StorePath) -> None:
    root = container / "scores"
    one = at(root, (1, 1, 0.5))
    sink_of(one, root).refuse_unfit(one.plan)
    assert list(root.rglob("*")) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from sparkscore.files.azure_settings import azure_store
from sparkscore.files.sink import FilesSink
from sparkscore.files.writing import ScoreWriter, file_prefix
from sparkscore.testing.sink_contract import attempt

one = attempt(Path("unused"), *((i, 1, i / 3) for i in range(50_000)))
sink = FilesSink(sys.argv[1], store=azure_store(sys.argv[1], lambda name: "", os.environ))
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
    container: StorePath,
) -> None:
    root = container / "scores"
    write_files(at(root, (1, 1, 0.5)), sink_of(at(root), root))
    before = names(root)
    done = subprocess.run([sys.executable, "-c", _KILLED, str(root)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert committed(root) == before
    found = leftovers(root)
    assert "part-00000" in {left.path.name[:10] for left in found}
    remove_leftovers(found)
    assert names(root) == before


def test_container_and_key_that_are_wrong_are_named_and_the_key_is_not_shown(
    container: StorePath, azure_server: AzureServer
) -> None:
    missing = StorePath(container.store, "no-such-container/scores")
    with pytest.raises(TargetUnwritableError, match="no container 'no-such-container'; create it"):
        sink_of(at(missing), missing).find(at(missing).plan.identity)
    wrong = replace(azure_server.store, account_key="d3Jvbmcga2V5cw==")
    root = StorePath(wrong, f"{container.path}/scores")
    sink = FilesSink(str(root), store=wrong)
    with pytest.raises(TargetUnwritableError, match="refuses the credentials of AZURE") as caught:
        sink.find(at(root).plan.identity)
    assert "d3Jvbmcga2V5cw==" not in str(caught.value) + repr(sink) + repr(root)


def test_store_that_does_not_answer_is_worth_another_try(
    container: StorePath, azure_server: AzureServer
) -> None:
    down: AzureStore = replace(azure_server.store, endpoint="http://127.0.0.1:9")
    root = StorePath(down, f"{container.path}/scores")
    with pytest.raises(
        StoreUnavailableError, match=r"127\.0\.0\.1:9 gave no good answer"
    ) as caught:
        sink_of(at(root), root).find(at(root).plan.identity)
    assert caught.value.retryable


def test_table_is_scored_into_another_one_and_found_again_under_both_schemes(
    spark: SparkSession,
    container: StorePath,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = container / "source", container / "scores"
    rows = pa.table(
        {
            "id": pa.array(range(12), pa.int64()),
            "x": [i / 4 for i in range(12)],
            "part": ["a b"] * 12,
        }
    )
    deltalake.write_deltalake(
        str(source), rows, partition_by=["part"], storage_options=source.store.delta_options
    )
    model = packaged(Third(), tmp_path / "model", inputs=X)
    engine = FilesEngine(spark, TRUST)
    facts = RunFacts("a" * 32, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    outcomes = []
    for scheme in ("abfss", "abfs"):
        request = ScoringRequest(
            job="azure",
            target=str(target).replace("abfss", scheme),
            run_key="night",
            keys=("id",),
            keep=("part",),
            partition_by=("part",),
        )
        opened = engine.open(SourceSpec(str(source).replace("abfss", scheme), where="id >= 2"))
        plan = plan_scoring(model, opened.table, request)
        outcomes.append(engine.run(plan, opened, files_sink(spark, request.target), facts))
    outcomes[0].check_books()
    assert [outcome.status for outcome in outcomes] == [
        OutcomeStatus.SUCCEEDED,
        OutcomeStatus.ALREADY_SCORED,
    ]
    scores = table(target).to_pyarrow_table().sort_by("id")
    assert scores["prediction"].to_pylist() == [i / 4 / 3 for i in range(2, 12)]
    assert main(["score", "clean", str(target), "--older-than", "0"]) == 0
    assert "part-" not in capsys.readouterr().out
