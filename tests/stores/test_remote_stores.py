from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sparkscore.errors import (
    InvalidNameError,
    RecordNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from sparkscore.names import ArtifactPath, ModelName, RunId
from sparkscore.records import Metric, Run, RunStatus
from sparkscore.search import All, Any, Comparison, Field, FieldKind, Not, Operator
from sparkscore.stores.base import RunStore
from sparkscore.stores.outbox import OutboxRunStore
from sparkscore.stores.remote import Access, RemoteStores, open_remote
from sparkscore.stores.remote.artifacts import RemoteArtifactStore
from sparkscore.stores.remote.filters import filter_text
from sparkscore.stores.remote.logged_models import RemoteLoggedModelStore
from sparkscore.stores.remote.models import RemoteModelStore
from sparkscore.stores.remote.runs import RemoteRunStore
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.testing.artifact_store_contract import ArtifactStoreContract
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.logged_model_store_contract import LoggedModelStoreContract
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract
from sparkscore.testing.search_contract import SearchAgreement, SearchContract, fill
from sparkscore.testing.tracking_server import TrackingServer

RUN = RunId("r1")


@pytest.fixture(scope="module")
def server() -> Iterator[TrackingServer]:
    with TrackingServer().running() as running:
        yield running


@pytest.fixture
def stores(server: TrackingServer, tmp_path: Path) -> Iterator[RemoteStores]:
    server.new_stores(tmp_path / "served", ticking_clock())
    opened = open_remote(server.uri, Access(max_tries=1))
    yield opened
    opened.server.close()


class TestRemoteRunStore(RunStoreContract):
    implementation = RemoteRunStore

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteRunStore:
        return stores.runs


class TestRemoteModelStore(ModelStoreContract):
    implementation = RemoteModelStore

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteModelStore:
        # A server looks for the logged model that a version says it comes from.
        stores.logged_models.create_logged_model("0", model_id="m-1", name="trees")
        return stores.models


class TestRemoteLoggedModelStore(LoggedModelStoreContract):
    implementation = RemoteLoggedModelStore

    @pytest.fixture
    def runs(self, stores: RemoteStores) -> RemoteRunStore:
        return stores.runs

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteLoggedModelStore:
        return stores.logged_models


class TestRemoteSearches(SearchContract, SearchAgreement):
    implementation = RemoteStores

    @pytest.fixture
    def filled(self, server: TrackingServer, tmp_path: Path) -> Iterator[RemoteStores]:
        # Behind the server's back: it would not take the places that these versions come from.
        fill(server.new_stores(tmp_path / "served", ticking_clock(), "file:///artifacts"))
        opened = open_remote(server.uri, Access(max_tries=1))
        yield opened
        opened.server.close()


class TestRemoteArtifactStore(ArtifactStoreContract):
    implementation = RemoteArtifactStore

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteArtifactStore:
        return stores.artifacts_at("mlflow-artifacts:/team a/50%25")


@pytest.fixture
def waits() -> list[float]:
    """Seconds that a client would have waited."""
    return []


@pytest.fixture
def patient(server: TrackingServer, tmp_path: Path, waits: list[float]) -> Iterator[RemoteServer]:
    """A client that tries thrice and waits for nothing."""
    server.new_stores(tmp_path / "served", ticking_clock())
    opened = RemoteServer(server.uri, Access(max_tries=3), waits.append, lambda: 1.0)
    yield opened
    opened.close()


def asked(server: TrackingServer, end: str) -> int:
    return sum(path.endswith(end) for _, path in server.requests)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_batch_is_sent_again_after_an_error_that_may_pass(
    server: TrackingServer, patient: RemoteServer, waits: list[float], status: int
) -> None:
    runs = RemoteRunStore(patient)
    new_run(runs)
    server.statuses += [status, status]
    runs.log_batch(RUN, metrics=[Metric("auc", 0.5, 1)])
    assert asked(server, "/log-batch") == 3
    assert waits == [0.25, 0.5]
    assert runs.get_run(RUN).metrics["auc"].value == 0.5


def test_batch_of_which_the_answer_is_lost_is_kept_once(
    server: TrackingServer, patient: RemoteServer
) -> None:
    runs = RemoteRunStore(patient)
    new_run(runs)
    server.statuses += [0]
    runs.log_batch(RUN, metrics=[Metric("auc", 0.5, 1)], params={"a": "b"})
    assert asked(server, "/log-batch") == 2
    assert list(runs.metric_history(RUN, "auc")) == [Metric("auc", 0.5, 1)]


def test_run_of_which_the_answer_is_lost_is_there_once(
    server: TrackingServer, patient: RemoteServer
) -> None:
    runs = RemoteRunStore(patient)
    assert patient.is_sparkscore
    server.statuses += [0]
    with pytest.raises(StoreUnavailableError):
        new_run(runs)
    assert asked(server, "/runs/create") == 1
    new_run(runs)
    assert [run.run_id for run in runs.list_runs(experiment_ids=["0"])] == [RUN]


def test_version_is_not_made_twice_where_an_answer_is_lost(
    server: TrackingServer, patient: RemoteServer
) -> None:
    models = RemoteModelStore(patient)
    models.create_model(ModelName("m"))
    assert patient.is_sparkscore
    server.statuses += [0]
    with pytest.raises(StoreUnavailableError, match="failed"):
        models.create_version(ModelName("m"), source="s3://b/m")
    assert [version.version for version in models.list_versions(ModelName("m"))] == [1]
    # A server that was too busy has done nothing, and is asked again.
    server.statuses += [503, 429]
    assert models.create_version(ModelName("m"), source="s3://b/m").version == 2


def test_error_that_stays_is_told_at_once(server: TrackingServer, patient: RemoteServer) -> None:
    runs = RemoteRunStore(patient)
    with pytest.raises(RecordNotFoundError, match="nobody"):
        runs.get_run(RunId("nobody"))
    assert asked(server, "/runs/get") == 1
    server.statuses += [401]
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_TOKEN"):
        runs.get_run(RunId("nobody"))
    server.statuses += [302]
    with pytest.raises(UsageError, match="redirect"):
        runs.get_run(RunId("nobody"))


def test_server_that_is_away_is_unavailable_and_named_without_secrets(
    waits: list[float],
) -> None:
    access = Access(username="ann", password="p4ss", max_tries=3)
    away = RemoteServer("http://ann:p4ss@127.0.0.1:9/x", access, waits.append, lambda: 1.0)
    with pytest.raises(StoreUnavailableError, match=r"http://127\.0\.0\.1:9/x did not") as caught:
        RemoteRunStore(away).get_run(RUN)
    assert len(waits) == 2
    assert "p4ss" not in str(caught.value) + repr(access)


@pytest.mark.parametrize("uri", ["http://h:port", "http://", "ftp://h", "http://h/?a=b", "h:1"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="no address"):
        RemoteServer(uri, Access())


def test_forked_child_asks_by_connections_of_its_own(patient: RemoteServer) -> None:
    runs = RemoteRunStore(patient)
    assert runs.get_experiment("0").name == "Default"
    child = os.fork()
    if child == 0:
        os._exit(0 if runs.get_experiment("0").name == "Default" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runs.get_experiment("0").name == "Default"


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "torn.pem").write_text("no certificate")
    for file in ("none.pem", "torn.pem"):
        access = Access(ca_file=tmp_path / file)
        with pytest.raises(UsageError, match=r"client\.ca_file"):
            RemoteRunStore(RemoteServer("https://127.0.0.1:9", access)).get_run(RUN)


def test_another_kind_of_server_is_told_from_a_tracking_server() -> None:
    def page(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>log in</html>")

    other = with_answers(page)
    with pytest.raises(StoreUnavailableError, match="no tracking server says"):
        RemoteRunStore(other).get_run(RUN)


def test_outbox_takes_over_and_replays_once(
    server: TrackingServer, patient: RemoteServer, tmp_path: Path
) -> None:
    stores = RemoteStores.of(patient)
    outbox = OutboxRunStore(stores.runs, tmp_path / "outbox", stores.artifacts_at, ticking_clock())
    run = new_run(outbox)
    files = outbox.open_artifacts(run)
    (tmp_path / "file").write_text("mine")
    server.statuses += [503] * 3
    outbox.log_batch(RUN, metrics=[Metric("auc", 0.5, 1)])
    files.put(tmp_path / "file", ArtifactPath("file"))
    outbox.update_run(RUN, RunStatus.FINISHED, 9)
    assert stores.runs.get_run(RUN).status is RunStatus.RUNNING
    server.statuses += [0]  # the first delivery is done, and its answer lost
    assert list(outbox.replay().delivered) == [RUN]
    kept = stores.runs.get_run(RUN)
    assert (kept.status, kept.end_time_ms) == (RunStatus.FINISHED, 9)
    assert list(stores.runs.metric_history(RUN, "auc")) == [Metric("auc", 0.5, 1)]
    place = stores.artifacts_at(kept.artifact_uri)
    assert place.get(ArtifactPath("file"), tmp_path / "back").read_text() == "mine"


@pytest.mark.parametrize(
    ("access", "uri", "sent"),
    [
        (Access(username="ann", password="p4ss"), "http://h", "Basic YW5uOnA0c3M="),
        (Access(), "http://ann:p4ss@h", "Basic YW5uOnA0c3M="),
        (Access(username="ann", token="t0ken"), "http://h", "Bearer t0ken"),
        (Access(), "http://h", None),
    ],
)
def test_client_says_who_it_is(access: Access, uri: str, sent: str | None) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    with_answers(answer, uri, access).ask("get_server_info")
    assert seen == [sent]


def test_search_is_said_in_the_words_of_the_grammar() -> None:
    tag = Comparison(Field(FieldKind.TAG, "a.b c"), Operator.EQUAL, "it's")
    auc = Comparison(Field(FieldKind.METRIC, "auc"), Operator.GREATER, 0.5)
    ids = Comparison(Field(FieldKind.ATTRIBUTE, "run_id"), Operator.IN, ("x", "y"))
    none = Comparison(Field(FieldKind.PARAM, "p"), Operator.IS_NULL, None)
    assert filter_text(All((tag, auc, ids, none)), is_mlflow=True) == (
        "tags.`a.b c` = \"it's\" AND metrics.`auc` > 0.5 AND run_id IN ('x', 'y') "
        "AND params.`p` IS NULL"
    )
    assert filter_text(Any((auc, Not(All((tag, none)))))) == (
        '(metrics.`auc` > 0.5) OR (NOT ((tags.`a.b c` = "it\'s") AND (params.`p` IS NULL)))'
    )
    with pytest.raises(UsageError, match="AND alone"):
        filter_text(Any((auc, tag)), is_mlflow=True)
    with pytest.raises(UsageError, match="both"):
        filter_text(replace(tag, value='"it\'s"'))


def with_answers(
    answer: Callable[[httpx.Request], httpx.Response],
    uri: str = "http://h",
    access: Access | None = None,
) -> RemoteServer:
    """A client whose requests are answered by a function, in the place of a network."""
    return RemoteServer(uri, access or Access(max_tries=1), transport=httpx.MockTransport(answer))


def new_run(runs: RunStore) -> Run:
    return runs.create_run("0", run_id=RUN, run_name="r", user_id="ann", start_time_ms=1)
