from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparkscore.stores.sql import (
    SqlLoggedModelStore,
    SqlModelStore,
    SqlPurgeStore,
    SqlRunStore,
    SqlStores,
    SqlWebhookStore,
    open_sql,
)
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.logged_model_store_contract import LoggedModelStoreContract
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.purge_store_contract import PurgeStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract
from sparkscore.testing.webhook_store_contract import WebhookStoreContract


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("new") / "records.db"
    stores = _open(file)
    stores.runs.list_experiments()
    stores.close()
    return file


@pytest.fixture
def stores(new_database: Path, tmp_path: Path) -> SqlStores:
    # To copy a file is quicker than to migrate one.
    file = tmp_path / "records.db"
    shutil.copy(new_database, file)
    return _open(file)


def _open(file: Path) -> SqlStores:
    return open_sql(f"sqlite:///{file}", "file:///artifacts", ticking_clock())


class TestSqlRunStore(RunStoreContract):
    implementation = SqlRunStore

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlRunStore:
        return stores.runs


class TestSqlModelStore(ModelStoreContract):
    implementation = SqlModelStore

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlModelStore:
        return stores.models


class TestSqlWebhookStore(WebhookStoreContract):
    implementation = SqlWebhookStore

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlWebhookStore:
        return stores.webhooks


class TestSqlPurgeStore(PurgeStoreContract):
    implementation = SqlPurgeStore

    @pytest.fixture
    def runs(self, stores: SqlStores) -> SqlRunStore:
        return stores.runs

    @pytest.fixture
    def logged_models(self, stores: SqlStores) -> SqlLoggedModelStore:
        return stores.logged_models

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlPurgeStore:
        return stores.purges


class TestSqlLoggedModelStore(LoggedModelStoreContract):
    implementation = SqlLoggedModelStore

    @pytest.fixture
    def runs(self, stores: SqlStores) -> SqlRunStore:
        return stores.runs

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlLoggedModelStore:
        return stores.logged_models
