from __future__ import annotations

import shutil
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
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("filled") / "records.db"
    _fill(f"sqlite:///{file}")
    return file


class TestSqliteSearches(SearchContract, SearchAgreement):
    implementation = SqlStores

    @pytest.fixture
    def filled(self, filled_file: Path, tmp_path: Path) -> SqlStores:
        # To copy is quicker than to fill, here and below.
        return _opened(f"sqlite:///{shutil.copy(filled_file, tmp_path)}")


@pytest.fixture(scope="module")
def filled_database(postgres: PostgresServer) -> str:
    _fill(postgres.new_database("searched"))
    return "searched"


class TestPostgresSearches(SearchContract, SearchAgreement):
    implementation = SqlStores

    @pytest.fixture
    def filled(self, postgres: PostgresServer, filled_database: str) -> Iterator[SqlStores]:
        copy = f"{filled_database}_{uuid.uuid4().hex}"
        stores = _opened(postgres.new_database(copy, filled_database))
        yield stores
        stores.close()


def _opened(url: str) -> SqlStores:
    return open_sql(url, "file:///artifacts", ticking_clock())


def _fill(url: str) -> None:
    stores = _opened(url)
    fill(stores)
    stores.close()
