"""Remote stores of a server that knows MLflow's protocol and no more.

Once it was tried by hand: MLflow 3.17.2's own server answers as this one does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sparkscore.errors import InvalidStateError, RecordExistsError, RecordNotFoundError, UsageError
from sparkscore.names import AliasName, ExperimentName, ModelName, RunId
from sparkscore.records import LoggedModelStatus, Metric, RunStatus, VersionStatus
from sparkscore.search import Any, Comparison, Field, FieldKind, Operator, Query, View
from sparkscore.stores.memory import MemoryStores
from sparkscore.stores.outbox import OutboxRunStore
from sparkscore.stores.remote import Access, RemoteStores
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.tracking_server import TrackingServer

RUN = RunId("chosen")
MODEL = ModelName("m")
OURS = {
    "/runs/create": ("run_id",),
    "/logged-models": ("model_id",),
    "/model-versions/create": ("status", "user_id"),
    "/model-versions/update": ("status", "source", "digest", "status_message"),
    "/logged-models/search": ("view_type",),
}


class AsMlflow(httpx.BaseTransport):
    """Our server without what is our own: MLflow's ignores fields that it does not know."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "/sparkscore/" in request.url.path:
            return httpx.Response(404, text="<!doctype html>Not Found")
        own = next((keys for end, keys in OURS.items() if request.url.path.endswith(end)), ())
        if own:
            known = {k: v for k, v in json.loads(request.read()).items() if k not in own}
            headers = {"content-type": "application/json"}
            request = httpx.Request(request.method, request.url, json=known, headers=headers)
        answer = self._inner.handle_request(request)
        if not request.url.path.endswith("/server-info"):
            return answer
        info = json.loads(answer.read())
        del info["sparkscore_version"]
        return httpx.Response(200, json=info)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture(scope="module")
def server() -> Iterator[TrackingServer]:
    with TrackingServer().running() as running:
        yield running


@pytest.fixture
def kept(server: TrackingServer, tmp_path: Path) -> MemoryStores:
    """What the server keeps."""
    return server.new_stores(tmp_path / "served", ticking_clock())


@pytest.fixture
def stores(server: TrackingServer, kept: MemoryStores) -> Iterator[RemoteStores]:
    assert kept.runs.list_experiments()
    opened = stores_of(server)
    yield opened
    opened.server.close()


def stores_of(server: TrackingServer) -> RemoteStores:
    return RemoteStores.of(RemoteServer(server.uri, Access(max_tries=1), transport=AsMlflow()))


def create(stores: RemoteStores, experiment_id: str = "0") -> str:
    made = stores.runs.create_run(
        experiment_id, run_id=RUN, run_name="r", user_id="ann", start_time_ms=1
    )
    return made.run_id


def test_chosen_id_of_a_run_stays_good(server: TrackingServer, stores: RemoteStores) -> None:
    assert not stores.server.is_sparkscore
    made = create(stores)
    assert made != RUN
    assert create(stores) == made
    assert create(stores_of(server)) == made
    # Another process, which knows the chosen id alone.
    stores_of(server).runs.log_batch(RUN, metrics=[Metric("auc", 0.5, 1)])
    assert stores.runs.get_run(RUN).metrics["auc"].value == 0.5
    assert stores.runs.update_run(RUN, RunStatus.FINISHED, 9).end_time_ms == 9
    with pytest.raises(RecordNotFoundError, match="nobody"):
        stores.runs.get_run(RunId("nobody"))
    other = stores.runs.create_experiment(ExperimentName("other")).experiment_id
    continued = stores.runs.create_run(
        "0", run_id=RunId(made), run_name="r", user_id="", start_time_ms=1
    )
    assert continued.run_id == made
    with pytest.raises(RecordExistsError, match="belongs to experiment"):
        stores.runs.create_run(other, run_id=RunId(made), run_name="r", user_id="", start_time_ms=1)


def test_outbox_delivers_a_run_once(
    server: TrackingServer, stores: RemoteStores, tmp_path: Path
) -> None:
    assert not stores.server.is_sparkscore
    outbox = OutboxRunStore(stores.runs, tmp_path / "outbox", stores.artifacts_at, ticking_clock())
    server.statuses += [503]
    create_queued = outbox.create_run("0", run_id=RUN, run_name="r", user_id="ann", start_time_ms=1)
    assert create_queued.run_id == RUN
    outbox.log_batch(RUN, metrics=[Metric("auc", 0.5, 1)])
    assert list(outbox.replay().delivered) == [RUN]
    outbox.update_run(RUN, RunStatus.FINISHED, 9)
    (run,) = stores.runs.list_runs(experiment_ids=["0"])
    assert (run.status, run.metrics["auc"].value) == (RunStatus.FINISHED, 0.5)


def test_version_is_pending_and_ready_by_its_tags(stores: RemoteStores, kept: MemoryStores) -> None:
    models = stores.models
    models.create_model(MODEL)
    pending = models.create_version(MODEL, source="s3://b/m")
    assert pending.status is VersionStatus.PENDING_REGISTRATION
    assert kept.models.get_version(MODEL, 1).status is VersionStatus.READY
    with pytest.raises(InvalidStateError, match="READY versions only"):
        models.set_alias(MODEL, AliasName("champion"), 1)
    with pytest.raises(UsageError, match="cannot be told"):
        models.finish_version(MODEL, 1, VersionStatus.READY, source="s3://b/other", digest="d")
    ready = models.finish_version(MODEL, 1, VersionStatus.READY, digest="d" * 64)
    assert (ready.status, ready.digest) == (VersionStatus.READY, "d" * 64)
    with pytest.raises(InvalidStateError, match="never changes again"):
        models.finish_version(MODEL, 1, VersionStatus.READY, digest="e" * 64)
    models.set_alias(MODEL, AliasName("champion"), 1)
    assert models.get_version_by_alias(MODEL, AliasName("champion")).digest == "d" * 64
    models.create_version(MODEL, source="s3://b/m")
    models.finish_version(MODEL, 2, VersionStatus.FAILED_REGISTRATION, message="torn")
    failed = models.list_versions(MODEL)[0]
    assert (failed.status, failed.status_message) == (VersionStatus.FAILED_REGISTRATION, "torn")


def test_what_it_cannot_do_is_refused_by_name(stores: RemoteStores) -> None:
    create(stores)
    stores.runs.delete_run(RUN)
    with pytest.raises(UsageError, match="mlflow gc"):
        stores.runs.purge_run(RUN)
    with pytest.raises(UsageError, match="mlflow gc"):
        stores.runs.purge_experiment("0")
    with pytest.raises(UsageError, match="mlflow gc"):
        stores.logged_models.purge_logged_model("m-1")
    auc = Comparison(Field(FieldKind.METRIC, "auc"), Operator.GREATER, 0.5)
    with pytest.raises(UsageError, match="AND alone"):
        stores.runs.search_runs(["0"], Query(where=Any((auc, auc))))
    with pytest.raises(UsageError, match="no deleted models"):
        stores.logged_models.search_logged_models(["0"], Query(view=View.ALL))


def test_logged_model_has_the_servers_id(stores: RemoteStores) -> None:
    made = stores.logged_models.create_logged_model("0", model_id="m-mine", name="n")
    assert made.model_id != "m-mine"
    ready = stores.logged_models.finish_logged_model(made.model_id, LoggedModelStatus.READY)
    assert ready.status is LoggedModelStatus.READY
    assert [m.model_id for m in stores.logged_models.search_logged_models(["0"], Query()).items]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Changing param values is not allowed.", InvalidStateError),
        ("The run x must be in the 'active' state. Current state is deleted.", InvalidStateError),
        ("Invalid parameter.", UsageError),
    ],
)
def test_sayings_of_mlflow_are_understood(said: str, error: type[Exception]) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        body = {"error_code": "INVALID_PARAMETER_VALUE", "message": said}
        return httpx.Response(400, json=body)

    server = RemoteServer("http://h", Access(), transport=httpx.MockTransport(answer))
    with pytest.raises(error, match=said.partition(" ")[0]) as caught:
        server.ask("log_batch", {"run_id": "r"})
    assert type(caught.value) is error
