from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.names import RunId
from sparkscore.records import LifecycleStage
from sparkscore.stores.base import RunStore
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
    def store(self, outbox: OutboxRunStore, inner: MemoryRunStore) -> OutboxRunStore:
        self.inner = inner
        return outbox

    def delete_run(self, store: RunStore, run_id: RunId) -> None:
        run = store.get_run(run_id)
        self.inner._state.runs[run_id] = replace(run, lifecycle_stage=LifecycleStage.DELETED)

    def delete_experiment(self, store: RunStore, experiment_id: str) -> None:
        experiment = store.get_experiment(experiment_id)
        deleted = replace(experiment, lifecycle_stage=LifecycleStage.DELETED)
        self.inner._state.experiments[experiment_id] = deleted


class TestOutboxArtifactStore(ArtifactStoreContract):
    implementation = OutboxArtifactStore

    @pytest.fixture
    def store(self, outbox: OutboxRunStore) -> OutboxArtifactStore:
        run = outbox.create_run("0", run_id=RunId("r"), run_name="n", user_id="", start_time_ms=1)
        return outbox.open_artifacts(run)
