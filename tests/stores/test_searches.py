from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.stores.memory import MemoryStores, open_memory
from sparkscore.stores.sql import SqlStores, open_sql
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.search_contract import SearchAgreement, SearchContract


class TestMemorySearches(SearchContract):
    implementation = MemoryStores

    @pytest.fixture
    def stores(self) -> MemoryStores:
        return open_memory("file:///artifacts", ticking_clock())


class TestSqliteSearches(SearchContract, SearchAgreement):
    implementation = SqlStores

    @pytest.fixture
    def stores(self, tmp_path: Path) -> SqlStores:
        return open_sql(f"sqlite:///{tmp_path}/records.db", "file:///artifacts", ticking_clock())
