"""Raw HTTP in the habits of MLflow's Java and R clients, which no Python client has."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.server.tracking_app import tracking_app
from tests.server.conftest import Client, client_of, served_in


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return client_of(tracking_app(served_in(tmp_path)))


def test_java_writes_whole_numbers_as_text_and_reads_them_from_queries(client: Client) -> None:
    experiment = client.done("POST", "experiments/create", {"name": "java"})["experiment_id"]
    body = {"experiment_id": experiment, "user_id": "ann", "start_time": "1700000000000"}
    run = client.done("POST", "runs/create", body)["run"]
    run_id = run["info"]["run_id"]
    assert run["info"]["start_time"] == 1700000000000
    metric = {"run_id": run_id, "key": "m", "value": 0.5, "timestamp": "7", "step": "3"}
    client.done("POST", "runs/log-metric", metric)
    point = {"key": "m", "value": "NaN", "timestamp": "8", "step": "4"}
    client.done("POST", "runs/log-batch", {"run_id": run_id, "metrics": [point]})
    client.done("POST", "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": "9"})
    history = client.done(
        "GET", "metrics/get-history", run_id=run_id, metric_key="m", max_results="10"
    )
    assert [(p["step"], p["value"]) for p in history["metrics"]] == [(3, 0.5), (4, "NaN")]
    search = {"experiment_ids": [experiment], "run_view_type": "ACTIVE_ONLY", "max_results": 5}
    assert len(client.done("POST", "runs/search", search)["runs"]) == 1


def test_java_asks_for_latest_versions_by_get_with_a_list(client: Client) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    client.done("POST", "model-versions/create", {"name": "net", "source": "s3://b/m"})
    query = "registered-models/get-latest-versions?name=net&stages=None&stages=Production"
    versions = client.done("GET", query)["model_versions"]
    assert [version["version"] for version in versions] == ["1"]
    found = client.done("GET", "registered-models/get", name="net")["registered_model"]
    assert found["latest_versions"] == versions


def test_r_writes_every_scalar_as_text(client: Client) -> None:
    run = client.done(
        "POST", "runs/create", {"experiment_id": "0", "start_time": "1700000000000", "tags": []}
    )["run"]
    run_id = run["info"]["run_uuid"]
    metric = {
        "run_uuid": run_id, "run_id": run_id, "key": "m", "value": "0.25", "timestamp": "7",
        "step": "0",
    }  # fmt: skip
    client.done("POST", "runs/log-metric", metric)
    search = {"experiment_ids": ["0"], "max_results": "100", "run_view_type": "ALL"}
    runs = client.done("POST", "runs/search", search)["runs"]
    assert runs[0]["data"]["metrics"][0]["value"] == 0.25


def test_r_searches_models_by_post_and_moves_stages(client: Client) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    client.done("POST", "model-versions/create", {"name": "net", "source": "s3://b/m"})
    body = {"max_results": "10", "order_by": ["name DESC"]}
    found = client.done("POST", "registered-models/search", body)["registered_models"]
    assert [model["name"] for model in found] == ["net"]
    move = {"name": "net", "version": "1", "stage": "Staging", "archive_existing_versions": "false"}
    moved = client.done("POST", "model-versions/transition-stage", move)["model_version"]
    assert moved["current_stage"] == "Staging"


def test_a_get_without_a_query_may_ask_by_its_body(client: Client) -> None:
    answer = client.http.request(
        "GET", "/api/2.0/mlflow/experiments/get", json={"experiment_id": "0"}
    )
    assert answer.json()["experiment"]["name"] == "Default"
