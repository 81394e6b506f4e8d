from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sparkscore.errors import ConfigError, StoreSchemaError, StoreUnavailableError
from sparkscore.names import ExperimentName
from sparkscore.stores.sql import open_sql, schema
from sparkscore.stores.sql.tables import metadata
from sparkscore.testing.clock import ticking_clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def _use(file: Path, busy_timeout_s: float = 15.0) -> None:
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock(), busy_timeout_s)
    stores.runs.list_experiments()


def _run(file: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection, connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def test_to_open_a_store_touches_nothing(file: Path) -> None:
    open_sql(f"sqlite:///{file}", "file:///a")
    assert list(file.parent.iterdir()) == []


def test_a_new_database_is_its_owners_and_write_ahead(file: Path) -> None:
    _use(file)
    assert oct(file.stat().st_mode)[-3:] == "600"
    assert _run(file, "PRAGMA journal_mode") == [("wal",)]


def test_the_migrations_make_the_tables_that_the_queries_use(file: Path) -> None:
    _use(file)
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.connect() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == schema.HEAD


def test_the_newest_revision_is_the_one_that_the_stores_expect() -> None:
    script = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert script.get_heads() == [schema.HEAD]


def test_records_are_there_when_the_database_is_opened_again(file: Path) -> None:
    open_sql(f"sqlite:///{file}", "file:///a").runs.create_experiment(ExperimentName("flights"))
    again = open_sql(f"sqlite:///{file}", "file:///a").runs
    assert again.find_experiment(ExperimentName("flights")) is not None


def test_an_empty_file_becomes_a_database(file: Path) -> None:
    file.touch()
    _use(file)
    assert _run(file, "SELECT name FROM experiments") == [("Default",)]


def test_a_database_of_another_product_is_refused_unchanged(file: Path) -> None:
    _run(file, "CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE runs (a TEXT)")
    before = file.read_bytes()
    with pytest.raises(StoreSchemaError, match=r"'alembic_version', 'runs'.*nothing was changed"):
        _use(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if "lock" not in path.name] == [file.name]


@pytest.mark.parametrize("revision", ["9999", "' OR 1=1"])
def test_a_newer_database_is_refused_unchanged(file: Path, revision: str) -> None:
    _use(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", (revision,))
    with pytest.raises(StoreSchemaError, match=r"pip install --upgrade sparkscore"):
        _use(file)
    assert _run(file, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [(revision,)]


def test_a_file_that_is_no_database_is_refused_unchanged(file: Path) -> None:
    file.write_text("this is a letter, not a database, and it is long enough to be read as one")
    before = file.read_bytes()
    with pytest.raises(StoreSchemaError, match="not an SQLite database"):
        _use(file)
    assert file.read_bytes() == before


def test_a_missing_folder_is_unavailable_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist: create or mount it"):
        _use(tmp_path / "gone" / "records.db")
    assert not (tmp_path / "gone").exists()


def test_a_folder_in_the_files_place_is_unavailable(file: Path) -> None:
    file.mkdir()
    with pytest.raises(StoreUnavailableError, match=r"records\.db"):
        _use(file)


def test_a_locked_database_is_unavailable_to_writers_only(file: Path) -> None:
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock(), busy_timeout_s=0.01)
    stores.runs.list_experiments()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            stores.runs.create_experiment(ExperimentName("flights"))
        assert stores.runs.find_experiment(ExperimentName("flights")) is None
        other.execute("ROLLBACK")
    assert stores.runs.create_experiment(ExperimentName("flights")).experiment_id == "1"


def test_a_database_that_was_moved_is_unavailable_and_heals(file: Path) -> None:
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    stores.runs.list_experiments()
    file.rename(file.with_suffix(".moved"))
    with pytest.raises(StoreUnavailableError, match=r"records\.db"):
        stores.runs.list_experiments()
    assert not file.exists()
    file.with_suffix(".moved").rename(file)
    assert len(stores.runs.list_experiments()) == 1


def test_a_damaged_page_is_unavailable(file: Path) -> None:
    _use(file)
    _run(file, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(StoreUnavailableError, match="malformed"):
        _use(file)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:secret@h/db",
        "postgresql://u:secret@h",
        "records.db",
        "",
    ],
)
def test_a_url_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///FILE") as caught:
        open_sql(url, "file:///a")
    assert "secret" not in str(caught.value)


def test_a_file_name_with_odd_characters_is_opened(tmp_path: Path) -> None:
    _use(tmp_path / "a b#ü.db")
    assert (tmp_path / "a b#ü.db").exists()
