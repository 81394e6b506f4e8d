from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.errors import StoreSchemaError
from sparkscore.server.calls import Call, Outcome, RefusedError
from sparkscore.server.tracking_app import tracking_app
from sparkscore.testing.faults import Fault, failing
from sparkscore.wire import statuses
from tests.server.conftest import Client, client_of, served_in

STORED = "/api/2.0/mlflow-artifacts/artifacts"


def test_a_store_that_is_away_is_told_as_that_and_heals_without_a_restart(tmp_path: Path) -> None:
    served, fault = served_in(tmp_path), Fault()
    client = client_of(tracking_app(replace(served, runs=failing(served.runs, fault))))
    fault.is_down = True
    answer = client.call("GET", "experiments/get", experiment_id="0")
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert int(answer.headers["retry-after"]) >= 1
    fault.is_down = False
    assert client.call("GET", "experiments/get", experiment_id="0").status_code == 200


def test_files_whose_store_is_away_are_told_as_that(tmp_path: Path) -> None:
    served, fault = served_in(tmp_path), Fault(is_down=True)
    away = failing(served.artifacts, fault)
    client = client_of(tracking_app(replace(served, artifacts=away)))
    assert client.http.put(f"{STORED}/1/x", content=b"x").status_code == 503
    assert client.http.get(f"{STORED}/1/x").status_code == 503
    fault.is_down = False
    assert client.http.put(f"{STORED}/1/x", content=b"x").status_code == 200
    assert client.http.get(f"{STORED}/1/x").content == b"x"


def asked(folder: Path, error: Exception) -> tuple[int, str]:
    served, fault = served_in(folder), Fault(is_down=True, error=error)
    client = client_of(tracking_app(replace(served, runs=failing(served.runs, fault))))
    answer = client.call("GET", "experiments/get", experiment_id="0")
    return answer.status_code, answer.text


def test_a_schema_that_is_too_old_is_told_with_the_command_to_run(tmp_path: Path) -> None:
    status, told = asked(tmp_path, StoreSchemaError("run `sparkscore db upgrade`"))
    assert status == 503
    assert "sparkscore db upgrade" in told


def test_a_bug_is_logged_whole_and_told_without_a_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, told = asked(tmp_path, RuntimeError("SELECT * FROM /home/ann/db"))
    assert status == 500
    assert "SELECT" not in told
    assert "/home" not in told
    assert "SELECT * FROM /home/ann/db" in caplog.text


class Watch:
    """A guard that refuses what it is told to, and remembers what it saw."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.seen: list[tuple[str, str]] = []

    def before(self, call: Call) -> None:
        self.seen.append(("before", call.route.name))
        if call.route.name == self.refused:
            raise RefusedError(
                statuses.Fault("PERMISSION_DENIED", "not you"), [("x-why", "because")]
            )

    def after(self, call: Call, outcome: Outcome) -> None:
        self.seen.append((str(outcome.status), call.route.name))


def test_guards_see_every_call_before_and_after_it(tmp_path: Path) -> None:
    watch = Watch()
    client = Client(client_of(tracking_app(served_in(tmp_path), [watch])).http)
    client.call("GET", "experiments/get", experiment_id="0")
    client.call("GET", "experiments/get", experiment_id="none")
    client.http.put(f"{STORED}/1/x", content=b"x")
    client.http.get(f"{STORED}/1/x")
    client.http.get(f"{STORED}/1/none")
    assert watch.seen == [
        ("before", "get_experiment"),
        ("200", "get_experiment"),
        ("before", "get_experiment"),
        ("404", "get_experiment"),
        ("before", "put_stored_artifact"),
        ("200", "put_stored_artifact"),
        ("before", "get_stored_artifact"),
        ("200", "get_stored_artifact"),
        ("before", "get_stored_artifact"),
        ("404", "get_stored_artifact"),
    ]


@pytest.mark.parametrize("refused", ["create_experiment", "put_stored_artifact"])
def test_what_a_guard_refuses_is_not_done(tmp_path: Path, refused: str) -> None:
    served = served_in(tmp_path)
    client = client_of(tracking_app(served, [Watch(refused)]))
    if refused == "create_experiment":
        answer = client.call("POST", "experiments/create", {"name": "a"})
    else:
        answer = client.http.put(f"{STORED}/1/x", content=b"x")
    assert (answer.status_code, answer.headers["x-why"]) == (403, "because")
    assert answer.json()["error_code"] == "PERMISSION_DENIED"
    assert len(served.runs.list_experiments()) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
