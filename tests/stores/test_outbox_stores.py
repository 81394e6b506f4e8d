from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.names import RunId
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryRunStore
from sparkscore.stores.outbox import OutboxArtifactStore, OutboxRunStore
from sparkscore.testing.artifact_store_contract import ArtifactStoreContract
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.run_store_contract import RunStoreContract


@pytest.fixture
def inner(tmp_path: Path) -> MemoryRunStore:
    return MemoryRunStore((tmp_path / "artifacts").as_uri(), ticking_clock())


@pytest.fixture
def outbox(inner: MemoryRunStore, tmp_path: Path) -> OutboxRunStore:
    return OutboxRunStore(inner, tmp_path / "outbox", LocalArtifactStore.at, ticking_clock())


class TestOutboxRunStore(RunStoreContract):
    implementation = OutboxRunStore

    @pytest.fixture
    def store(self, outbox: OutboxRunStore) -> OutboxRunStore:
        return outbox


class TestOutboxArtifactStore(ArtifactStoreContract):
    implementation = OutboxArtifactStore

    @pytest.fixture
    def store(self, outbox: OutboxRunStore) -> OutboxArtifactStore:
        run = outbox.create_run("0", run_id=RunId("r"), run_name="n", user_id="", start_time_ms=1)
        return outbox.open_artifacts(run)
