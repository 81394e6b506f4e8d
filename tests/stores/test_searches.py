from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkscore.stores.memory import MemoryStores, open_memory
from sparkscore.stores.sql import SqlStores, open_sql
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.postgres_server import PostgresServer
from sparkscore.testing.search_contract import SearchAgreement, SearchContract, fill


class TestMemorySearches(SearchContract):
    implementation = MemoryStores

    @pytest.fixture
    def stores(self) -> MemoryStores:
        return open_memory("file:///artifacts", ticking_clock())


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> SqlStores:
    return _filled(f"sqlite:///{tmp_path_factory.mktemp('filled')}/records.db")


class TestSqliteSearches(SearchContract, SearchAgreement):
    implementation = SqlStores

    @pytest.fixture
    def filled(self, sqlite: SqlStores) -> SqlStores:
        return sqlite

    @pytest.fixture
    def writable(self, tmp_path: Path) -> SqlStores:
        return _filled(f"sqlite:///{tmp_path}/records.db")


@pytest.fixture(scope="module")
def postgresql(postgres: PostgresServer) -> Iterator[SqlStores]:
    stores = _filled(postgres.new_database("searched"))
    yield stores
    stores.close()


class TestPostgresSearches(SearchContract, SearchAgreement):
    implementation = SqlStores

    @pytest.fixture
    def filled(self, postgresql: SqlStores) -> SqlStores:
        return postgresql

    @pytest.fixture
    def writable(self, postgres: PostgresServer) -> Iterator[SqlStores]:
        stores = _filled(postgres.new_database(f"searched_{uuid.uuid4().hex}"))
        yield stores
        stores.close()


def _filled(url: str) -> SqlStores:
    stores = open_sql(url, "file:///artifacts", ticking_clock())
    fill(stores)
    return stores
