"""Tables in Azure's storage, at a real server of its protocol; see `make test-azure`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deltalake
import pyarrow as pa
import pytest

from sparkscore.cli import main
from sparkscore.errors import StoreUnavailableError, TargetUnwritableError
from sparkscore.files.azure_store import AzureStore
from sparkscore.files.filesystem import StorePath
from sparkscore.files.sink import FilesSink
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outcome import OutcomeStatus
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.spark.delta import files_sink
from sparkscore.spark.files_engine import FilesEngine
from sparkscore.testing.azure_server import AzureServer, running_server
from sparkscore.testing.engine_cases import TRUST, X
from sparkscore.testing.models import Third, packaged
from sparkscore.testing.store_sink_contract import (
    StoreSinkContract,
    at,
    sink_of,
    table,
)

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


class TestFilesSinkInAzure(StoreSinkContract):
    opening = (
        "from sparkscore.files.azure_settings import azure_store",
        "azure_store(sys.argv[1], lambda name: '', os.environ)",
    )

    @pytest.fixture
    def store_folder(self, container: StorePath) -> StorePath:
        return container


def test_store_of_its_own_endpoint_is_asked_and_nothing_stays_of_it(container: StorePath) -> None:
    root = container / "scores"
    one = at(root, (1, 1, 0.5))
    sink_of(one, root).refuse_unfit(one.table_write)
    assert list(root.rglob("*")) == []


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
