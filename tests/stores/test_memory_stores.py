from __future__ import annotations

from dataclasses import replace

import pytest

from sparkscore.names import RunId
from sparkscore.records import LifecycleStage
from sparkscore.stores.base import RunStore
from sparkscore.stores.memory import MemoryModelStore, MemoryRunStore
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract


class TestMemoryRunStore(RunStoreContract):
    implementation = MemoryRunStore

    @pytest.fixture
    def store(self) -> MemoryRunStore:
        return MemoryRunStore("file:///artifacts", ticking_clock())

    def delete_run(self, store: RunStore, run_id: RunId) -> None:
        assert isinstance(store, MemoryRunStore)
        deleted = replace(store.get_run(run_id), lifecycle_stage=LifecycleStage.DELETED)
        store._state.runs[run_id] = deleted

    def delete_experiment(self, store: RunStore, experiment_id: str) -> None:
        assert isinstance(store, MemoryRunStore)
        experiment = store.get_experiment(experiment_id)
        deleted = replace(experiment, lifecycle_stage=LifecycleStage.DELETED)
        store._state.experiments[experiment_id] = deleted


class TestMemoryModelStore(ModelStoreContract):
    implementation = MemoryModelStore

    @pytest.fixture
    def store(self) -> MemoryModelStore:
        return MemoryModelStore(ticking_clock())
