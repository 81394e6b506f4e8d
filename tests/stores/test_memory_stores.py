from __future__ import annotations

import pytest

from sparkscore.stores.memory import (
    MemoryLoggedModelStore,
    MemoryModelStore,
    MemoryPurgeStore,
    MemoryRunStore,
    MemoryStores,
    MemoryWebhookStore,
    open_memory,
)
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.logged_model_store_contract import LoggedModelStoreContract
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.purge_store_contract import PurgeStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract
from sparkscore.testing.webhook_store_contract import WebhookStoreContract


@pytest.fixture
def stores() -> MemoryStores:
    return open_memory("file:///artifacts", ticking_clock())


class TestMemoryRunStore(RunStoreContract):
    implementation = MemoryRunStore

    @pytest.fixture
    def store(self, stores: MemoryStores) -> MemoryRunStore:
        return stores.runs


class TestMemoryModelStore(ModelStoreContract):
    implementation = MemoryModelStore

    @pytest.fixture
    def store(self, stores: MemoryStores) -> MemoryModelStore:
        return stores.models


class TestMemoryWebhookStore(WebhookStoreContract):
    implementation = MemoryWebhookStore

    @pytest.fixture
    def store(self, stores: MemoryStores) -> MemoryWebhookStore:
        return stores.webhooks


class TestMemoryPurgeStore(PurgeStoreContract):
    implementation = MemoryPurgeStore

    @pytest.fixture
    def runs(self, stores: MemoryStores) -> MemoryRunStore:
        return stores.runs

    @pytest.fixture
    def logged_models(self, stores: MemoryStores) -> MemoryLoggedModelStore:
        return stores.logged_models

    @pytest.fixture
    def store(self, stores: MemoryStores) -> MemoryPurgeStore:
        return stores.purges


class TestMemoryLoggedModelStore(LoggedModelStoreContract):
    implementation = MemoryLoggedModelStore

    @pytest.fixture
    def runs(self, stores: MemoryStores) -> MemoryRunStore:
        return stores.runs

    @pytest.fixture
    def store(self, stores: MemoryStores) -> MemoryLoggedModelStore:
        return stores.logged_models
