from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sparkscore.errors import ConfigError, StoreSchemaError, StoreUnavailableError
from sparkscore.names import AliasName, ExperimentName, ModelName, RunId
from sparkscore.records import LifecycleStage, Metric, Stage
from sparkscore.stores.base import system_clock
from sparkscore.stores.sql import SqlStores, open_sql, schema
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


def _fill(stores: SqlStores) -> None:
    for number in range(100):
        stores.runs.create_experiment(ExperimentName(f"{number:0500}"))


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


def test_a_database_of_the_first_release_is_upgraded_with_all_that_it_holds(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
    _run(
        file,
        "INSERT INTO experiments VALUES (0, 'Default', 'file:///a/0', 'active', 1, 1)",
        "INSERT INTO experiments VALUES (3, 'flights', 'file:///a/3', 'active', 5, 5)",
        "INSERT INTO experiment_tags VALUES (3, 'team', 'delay')",
        "INSERT INTO runs VALUES"
        " ('r', 3, 'nightly', 'ann', 'FINISHED', 5, 9, 'file:///a/3/r', 'active')",
        "INSERT INTO params VALUES ('r', 'mode', 'append')",
        "INSERT INTO run_tags VALUES ('r', 'done', 'yes')",
        "INSERT INTO metrics VALUES ('r', 'rows', 0, 5, 0, 10.0), ('r', 'rows', 1, 6, 1, 0.0)",
        "INSERT INTO latest_metrics VALUES ('r', 'rows', 1, 6, 1, 0.0)",
        "INSERT INTO registered_models VALUES ('delay', 'd', 1, 2, 7)",
        "INSERT INTO model_versions VALUES"
        " ('delay', 7, 1, 2, 'file:///m', 'READY', '', 'abc', 'r', 'd')",
        "INSERT INTO model_version_tags VALUES ('delay', 7, 'k', 'v')",
        "INSERT INTO model_aliases VALUES ('delay', 'champion', 7)",
    )
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    run = stores.runs.get_run(RunId("r"))
    assert (run.params, run.tags, run.end_time_ms) == ({"mode": "append"}, {"done": "yes"}, 9)
    assert math.isnan(run.metrics["rows"].value)
    assert stores.runs.metric_history(RunId("r"), "rows")[0] == Metric("rows", 10.0, 5, 0)
    assert stores.runs.get_experiment("3").tags == {"team": "delay"}
    version = stores.models.get_version_by_alias(ModelName("delay"), AliasName("champion"))
    assert (version.version, version.digest, version.tags) == (7, "abc", {"k": "v"})
    assert (version.stage, version.user_id) == (Stage.NONE, "")
    stores.runs.log_batch(RunId("r"), metrics=[Metric("rows", -0.0, 7, 2)])
    assert repr(stores.runs.get_run(RunId("r")).metrics["rows"].value) == "-0.0"
    stores.runs.delete_experiment("3")
    stores.runs.restore_experiment("3")
    assert stores.runs.get_run(RunId("r")).lifecycle_stage is LifecycleStage.ACTIVE
    assert stores.runs.create_experiment(ExperimentName("new")).experiment_id == "4"
    assert _run(file, "PRAGMA foreign_key_check", "PRAGMA integrity_check") == [("ok",)]


def test_what_was_deleted_before_its_time_was_noted_counts_as_deleted_at_the_upgrade(
    file: Path,
) -> None:
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        schema.upgrade(connection, "0004")
    columns = "run_id, experiment_id, run_name, user_id, status, start_time_ms, artifact_uri"
    _run(
        file,
        "INSERT INTO experiments VALUES (0, 'Default', 'file:///a/0', 'active', 1, 1)",
        f"INSERT INTO runs ({columns}, lifecycle_stage, is_gone_with_experiment) VALUES"
        " ('used', 0, 'n', 'ann', 'FINISHED', 5, 'file:///a/0/u', 'active', 0),"
        " ('gone', 0, 'n', 'ann', 'FINISHED', 5, 'file:///a/0/g', 'deleted', 0)",
    )
    before_ms = system_clock()
    purges = open_sql(f"sqlite:///{file}", "file:///a").purges
    [found] = purges.list_deleted(2**62)
    assert found.record_id == "gone"
    assert before_ms <= found.deletion_time_ms <= system_clock()


def test_an_upgrade_beside_other_connections_of_the_process_loses_nothing_that_they_write(
    file: Path,
) -> None:
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        schema.upgrade(connection, "0004")
    _run(file, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(file)) as beside:
        beside.execute("SELECT count(*) FROM experiments").fetchall()
        _use(file)
        # Who closes a database last removes its log; another process must not take itself for it.
        assert b"flights" not in _names_seen_by_another_process(file)
        values = "(7, 'flights', 'file:///a/7', 'active', 1, 1)"
        beside.execute(f"INSERT INTO experiments VALUES {values}")
        beside.commit()
        assert b"flights" in _names_seen_by_another_process(file)


def _names_seen_by_another_process(file: Path) -> bytes:
    script = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]); "
        "print(connection.execute('SELECT name FROM experiments').fetchall()); connection.close()"
    )
    command = [sys.executable, "-c", script, str(file)]
    return subprocess.run(command, check=True, capture_output=True).stdout


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


def test_a_database_that_was_replaced_is_read_at_once(file: Path) -> None:
    other = file.with_name("other.db")
    for path, name in ((file, "old"), (other, "new")):
        stores = open_sql(f"sqlite:///{path}", "file:///a", ticking_clock())
        stores.runs.create_experiment(ExperimentName(name))
        stores.close()
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    assert stores.runs.find_experiment(ExperimentName("old")) is not None
    other.replace(file)
    assert stores.runs.find_experiment(ExperimentName("new")) is not None


def test_a_read_only_database_is_read_and_heals(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(file)
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    connect = sqlite3.connect

    def read_only(url: str, **options: object) -> sqlite3.Connection:
        # As SQLite does it by itself where the file may not be written.
        return connect(url.replace("mode=rw", "mode=ro"), **options)  # type: ignore[call-overload, no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", read_only)
        assert len(stores.runs.list_experiments()) == 1
        with pytest.raises(StoreUnavailableError, match=r"readonly.*are writable"):
            stores.runs.create_experiment(ExperimentName("flights"))
    assert stores.runs.create_experiment(ExperimentName("flights")).experiment_id == "1"


def test_a_full_database_is_unavailable_and_heals(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    stores.runs.list_experiments()
    stores.close()
    connect = sqlite3.connect

    def small(*args: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(StoreUnavailableError, match="full"):
            _fill(stores)
    n_kept = len(stores.runs.list_experiments())
    stores.runs.create_experiment(ExperimentName("flights"))
    assert len(stores.runs.list_experiments()) == n_kept + 1


def test_a_child_that_was_forked_has_connections_of_its_own(file: Path) -> None:
    stores = open_sql(f"sqlite:///{file}", "file:///a", ticking_clock())
    stores.runs.list_experiments()
    child = os.fork()
    if child == 0:
        # No pytest in the child: it says by its exit code how it went.
        try:
            stores.runs.create_experiment(ExperimentName("of the child"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    stores.runs.create_experiment(ExperimentName("of the parent"))
    assert len(stores.runs.list_experiments()) == 3


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
