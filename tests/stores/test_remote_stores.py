from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkscore.names import RunId
from sparkscore.stores.base import RunStore
from sparkscore.stores.remote import Access, RemoteStores, open_remote
from sparkscore.stores.remote.artifacts import RemoteArtifactStore
from sparkscore.stores.remote.models import RemoteModelStore
from sparkscore.stores.remote.runs import RemoteRunStore
from sparkscore.testing.artifact_store_contract import ArtifactStoreContract
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract
from sparkscore.testing.tracking_server import TrackingServer


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

    def delete_run(self, store: RunStore, run_id: RunId) -> None:
        store.delete_run(run_id)

    def delete_experiment(self, store: RunStore, experiment_id: str) -> None:
        store.delete_experiment(experiment_id)


class TestRemoteModelStore(ModelStoreContract):
    implementation = RemoteModelStore

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteModelStore:
        return stores.models


class TestRemoteArtifactStore(ArtifactStoreContract):
    implementation = RemoteArtifactStore

    @pytest.fixture
    def store(self, stores: RemoteStores) -> RemoteArtifactStore:
        return stores.artifacts_at("mlflow-artifacts:/team a/50%25")
