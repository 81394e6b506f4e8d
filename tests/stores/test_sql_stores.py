from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sparkscore.names import RunId
from sparkscore.stores.base import RunStore
from sparkscore.stores.sql import SqlModelStore, SqlRunStore, SqlStores, open_sql
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.model_store_contract import ModelStoreContract
from sparkscore.testing.run_store_contract import RunStoreContract


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@pytest.fixture
def stores(file: Path) -> SqlStores:
    return open_sql(f"sqlite:///{file}", "file:///artifacts", ticking_clock())


class TestSqlRunStore(RunStoreContract):
    implementation = SqlRunStore

    @pytest.fixture
    def store(self, stores: SqlStores, file: Path) -> SqlRunStore:
        self.file = file
        return stores.runs

    def delete_run(self, store: RunStore, run_id: RunId) -> None:  # noqa: ARG002 - back door
        self._execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_id = ?", run_id)

    def delete_experiment(self, store: RunStore, experiment_id: str) -> None:  # noqa: ARG002
        self._execute(
            "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = ?",
            int(experiment_id),
        )

    def _execute(self, statement: str, value: object) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            assert connection.execute(statement, (value,)).rowcount == 1


class TestSqlModelStore(ModelStoreContract):
    implementation = SqlModelStore

    @pytest.fixture
    def store(self, stores: SqlStores) -> SqlModelStore:
        return stores.models
