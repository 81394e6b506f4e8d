from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from sparkscore.stores.sql import (
    SqlLoggedModelStore,
    SqlModelStore,
    SqlPurgeStore,
    SqlRunStore,
    SqlStores,
    SqlWebhookStore,
    open_sql,
)
from sparkscore.stores.sql.experiments import default_experiment
from sparkscore.stores.sql.tables import audit, metadata
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.logged_model_store_contract import LoggedModelStoreContract
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.postgres_server import PostgresServer
from sparkscore.testing.purge_store_contract import PurgeStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract
from sparkscore.testing.webhook_store_contract import WebhookStoreContract

_ROOT = "file:///artifacts"


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> Iterator[SqlStores]:
    stores = open_sql(postgres.new_database("contracts"), _ROOT, ticking_clock())
    yield stores
    stores.close()


@pytest.fixture
def stores(shared: SqlStores) -> SqlStores:
    # As new: to empty tables is ten times quicker than to make a database.
    shared.runs.list_experiments()
    shared.runs._database.write(_empty)
    return shared


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


def _empty(connection: Connection) -> None:
    for table in reversed(metadata.sorted_tables):
        if table is not audit:  # the database refuses to empty it, and no contract is about it
            connection.execute(table.delete())
    connection.execute(text("ALTER SEQUENCE experiments_experiment_id_seq RESTART"))
    default_experiment(_ROOT, ticking_clock())(connection)
