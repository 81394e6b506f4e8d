from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparkscore.errors import RecordExistsError, StoreSchemaError, StoreUnavailableError
from sparkscore.names import ExperimentName, ModelName, RunId
from sparkscore.records import Metric
from sparkscore.stores.sql import SqlStores, open_sql, schema
from sparkscore.testing.postgres_server import PostgresServer

Open = Callable[[str], SqlStores]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens the stores of a URL, and closes them after the test."""
    made: list[SqlStores] = []

    def open_stores(url: str) -> SqlStores:
        made.append(open_sql(url, "file:///a", busy_timeout_s=5.0))
        return made[-1]

    yield open_stores
    for stores in made:
        stores.close()


def test_a_server_that_crashed_and_came_back_is_used_again(
    postgres: PostgresServer, opened: Open
) -> None:
    stores = opened(postgres.new_database("crash"))
    stores.runs.create_experiment(ExperimentName("before"))
    postgres.stop(signal.SIGQUIT)
    try:
        with pytest.raises(StoreUnavailableError, match="Check that the server runs"):
            stores.runs.list_experiments()
        with pytest.raises(StoreUnavailableError):
            stores.runs.create_experiment(ExperimentName("meanwhile"))
    finally:
        postgres.start()
    stores.runs.create_experiment(ExperimentName("after"))
    names = {experiment.name for experiment in stores.runs.list_experiments()}
    assert names == {"Default", "before", "after"}


def test_sessions_that_were_ended_cost_no_call(postgres: PostgresServer, opened: Open) -> None:
    stores = opened(postgres.new_database("ended"))
    stores.runs.list_experiments()
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ended'")
    assert len(stores.runs.list_experiments()) == 1


def test_a_database_that_is_not_there_or_refuses_is_unavailable_without_the_password(
    postgres: PostgresServer, opened: Open
) -> None:
    absent = postgres.url("absent").replace("postgres@", "postgres:secret@")
    with pytest.raises(StoreUnavailableError, match="absent") as caught:
        opened(absent).runs.list_experiments()
    assert "secret" not in str(caught.value)
    postgres.run("CREATE ROLE stranger LOGIN")
    postgres.new_database("closed")
    postgres.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "closed")
    with pytest.raises(StoreUnavailableError, match=r"refused.*Check the user"):
        opened(postgres.url("closed", "stranger")).runs.list_experiments()


def test_tables_of_another_product_or_release_are_refused_unchanged(
    postgres: PostgresServer, opened: Open
) -> None:
    url = postgres.new_database("foreign_tables")
    postgres.run("CREATE TABLE runs (a TEXT)", "foreign_tables")
    with pytest.raises(StoreSchemaError, match=r"'runs'.*nothing was changed"):
        opened(url).runs.list_experiments()
    newer = postgres.new_database("newer")
    opened(newer).runs.list_experiments()
    postgres.run(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'", "newer")
    with pytest.raises(StoreSchemaError, match=r"pip install --upgrade sparkscore"):
        opened(newer).runs.list_experiments()


def test_many_processes_may_open_a_new_database_at_once(
    postgres: PostgresServer, opened: Open
) -> None:
    url = postgres.new_database("raced")
    # Stores of their own, as processes have them.
    stores = [opened(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        listed = list(pool.map(lambda it: it.runs.list_experiments(), stores))
    assert [[experiment.name for experiment in one] for one in listed] == [["Default"]] * 4


def test_of_many_that_make_one_name_one_does_and_the_others_are_told(
    postgres: PostgresServer, opened: Open
) -> None:
    stores = opened(postgres.new_database("names"))
    stores.runs.list_experiments()

    def create(number: int) -> bool:
        try:
            stores.runs.create_experiment(ExperimentName(f"e{number % 3}"))
            stores.models.create_model(ModelName(f"m{number % 3}"))
        except RecordExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(24))) == 3


def test_writers_of_one_run_and_one_model_lose_nothing(
    postgres: PostgresServer, opened: Open
) -> None:
    stores = opened(postgres.new_database("writers"))
    run_id = RunId("r")
    stores.models.create_model(ModelName("m"))

    def write(number: int) -> int:
        stores.runs.create_run("0", run_id=run_id, run_name="", user_id="", start_time_ms=1)
        for step in range(10):
            stores.runs.log_batch(
                run_id, metrics=[Metric("loss", float(number), step, step)], params={"p": "1"}
            )
        return stores.models.create_version(ModelName("m"), source="s").version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(16))) == list(range(1, 17))
    assert len(stores.runs.metric_history(run_id, "loss")) == 160
    assert stores.runs.get_run(run_id).metrics["loss"].value == 15.0
