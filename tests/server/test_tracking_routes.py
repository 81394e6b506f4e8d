from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkscore.server.artifact_bytes import PLACES
from sparkscore.server.settings import ServerSettings
from sparkscore.server.tracking_app import all_verbs, tracking_app
from sparkscore.wire.routes import all_routes
from tests.server.conftest import Client, Json, client_of, served_in


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return client_of(tracking_app(served_in(tmp_path)))


def new_run(client: Client, **fields: object) -> str:
    run = client.done("POST", "runs/create", {"experiment_id": "0", **fields})["run"]
    run_id: str = run["info"]["run_id"]
    return run_id


def run_of(client: Client, run_id: str) -> Json:
    found: Json = client.done("GET", "runs/get", run_id=run_id)["run"]
    return found


def tags_of(client: Client, run_id: str) -> dict[str, str]:
    tags: list[dict[str, str]] = run_of(client, run_id)["data"].get("tags", [])
    return {tag["key"]: tag["value"] for tag in tags}


def test_every_route_is_bound_to_what_it_does() -> None:
    raw = {name for name, route in all_routes().items() if route.is_raw}
    assert raw == set(PLACES)
    assert set(all_routes()) - raw == set(all_verbs())


def test_a_run_without_a_name_gets_one_and_its_tag(client: Client) -> None:
    run_id = new_run(client)
    name = run_of(client, run_id)["info"]["run_name"]
    assert name
    assert tags_of(client, run_id)["mlflow.runName"] == name


def test_a_name_and_another_name_in_the_tag_are_refused(client: Client) -> None:
    tag = {"key": "mlflow.runName", "value": "two"}
    answer = client.call("POST", "runs/create", {"run_name": "one", "tags": [tag]})
    assert answer.status_code == 400


def test_renaming_a_run_rewrites_its_tag_and_the_tag_renames_the_run(client: Client) -> None:
    run_id = new_run(client, run_name="one")
    client.done("POST", "runs/update", {"run_id": run_id, "run_name": "two"})
    assert tags_of(client, run_id)["mlflow.runName"] == "two"
    tag = {"run_id": run_id, "key": "mlflow.runName", "value": "three"}
    client.done("POST", "runs/set-tag", tag)
    assert run_of(client, run_id)["info"]["run_name"] == "three"


def test_an_update_leaves_what_it_does_not_name(client: Client) -> None:
    run_id = new_run(client)
    client.done("POST", "runs/update", {"run_id": run_id, "status": "FAILED", "end_time": "7"})
    client.done("POST", "runs/update", {"run_id": run_id, "run_name": "x"})
    info = run_of(client, run_id)["info"]
    assert (info["status"], info["end_time"]) == ("FAILED", 7)


def test_a_param_twice_in_one_batch_with_two_values_is_refused(client: Client) -> None:
    params = [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]
    answer = client.call("POST", "runs/log-batch", {"run_id": new_run(client), "params": params})
    assert answer.status_code == 400
    assert "Changing param values is not allowed" in answer.json()["message"]


@pytest.mark.parametrize(("n_metrics", "status"), [(1000, 200), (1001, 400)])
def test_a_batch_has_a_thousand_metrics_at_most(
    client: Client, n_metrics: int, status: int
) -> None:
    points = [{"key": "m", "value": n, "timestamp": n} for n in range(n_metrics)]
    answer = client.call("POST", "runs/log-batch", {"run_id": new_run(client), "metrics": points})
    assert answer.status_code == status


def test_a_batch_over_a_megabyte_is_refused_before_it_is_read(client: Client) -> None:
    tags = [{"key": f"k{n}", "value": "x" * 8000} for n in range(100)]
    more = [{"key": f"p{n}", "value": "x" * 6000} for n in range(100)]
    body = {"run_id": new_run(client), "tags": tags, "params": more}
    answer = client.call("POST", "runs/log-batch", body)
    assert answer.status_code == 413
    assert answer.json()["error_code"] == "REQUEST_TOO_LARGE"


def test_values_that_are_too_long_are_cut_and_named_in_a_tag(client: Client) -> None:
    run_id = new_run(client)
    body = {"run_id": run_id, "params": [{"key": "long", "value": "x" * 6001}]}
    client.done("POST", "runs/log-batch", body)
    assert run_of(client, run_id)["data"]["params"] == [{"key": "long", "value": "x" * 6000}]
    assert tags_of(client, run_id)["sparkscore.cut"] == "long"


def test_values_that_are_too_long_are_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    client = client_of(tracking_app(served_in(tmp_path, ServerSettings(cut_long_values=False))))
    body = {"run_id": new_run(client), "key": "long", "value": "x" * 6001}
    assert client.call("POST", "runs/log-parameter", body).status_code == 400


def test_descriptions_of_models_gather_in_the_tag_and_the_oldest_give_way(client: Client) -> None:
    run_id = new_run(client)
    model = {"flavors": {"a": "x" * 3000}, "utc_time_created": "now", "run_id": run_id}
    for name in ("one", "two", "three"):
        body = {"run_id": run_id, "model_json": json.dumps({**model, "artifact_path": name})}
        client.done("POST", "runs/log-model", body)
    held = json.loads(tags_of(client, run_id)["mlflow.log-model.history"])
    assert [item["artifact_path"] for item in held] == ["two", "three"]


def test_a_description_without_its_fields_is_refused(client: Client) -> None:
    body = {"run_id": new_run(client), "model_json": "{}"}
    answer = client.call("POST", "runs/log-model", body)
    assert answer.status_code == 400
    assert "artifact_path" in answer.json()["message"]


def log_points(client: Client, run_id: str, steps: range) -> None:
    points = [{"key": "m", "value": n, "timestamp": n, "step": n} for n in steps]
    client.done("POST", "runs/log-batch", {"run_id": run_id, "metrics": points})


def test_a_history_comes_whole_or_in_pages(client: Client) -> None:
    run_id = new_run(client)
    log_points(client, run_id, range(5))
    ask = {"run_id": run_id, "metric_key": "m"}
    whole = client.done("GET", "metrics/get-history", **ask)
    paged: list[Json] = []
    token = None
    while token != "":
        page = client.done("GET", "metrics/get-history", max_results=2, page_token=token, **ask)
        paged += page["metrics"]
        token = page.get("next_page_token", "")
    assert paged == whole["metrics"]
    assert len(paged) == 5
    assert client.done("GET", "metrics/get-history", run_id=run_id, metric_key="none") == {}


def test_histories_of_several_runs_come_run_by_run(client: Client) -> None:
    runs = sorted([new_run(client), new_run(client)])
    for run_id in runs:
        log_points(client, run_id, range(3))
    query = f"run_id={runs[1]}&run_id={runs[0]}&run_id=gone&metric_key=m&max_results=5"
    answer = client.done("GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{query}")
    found = [(point["run_id"], point["step"]) for point in answer["metrics"]]
    assert found == [(runs[0], 0), (runs[0], 1), (runs[0], 2), (runs[1], 0), (runs[1], 1)]


def test_a_sample_of_an_interval_keeps_first_and_last_steps(client: Client) -> None:
    run_id = new_run(client)
    log_points(client, run_id, range(100))
    query = f"run_ids={run_id}&metric_key=m&start_step=10&end_step=89&max_results=8"
    answer = client.done("GET", f"metrics/get-history-bulk-interval?{query}")
    steps = [point["step"] for point in answer["metrics"]]
    assert steps == [10, 20, 30, 40, 50, 60, 70, 80, 89]


def test_half_an_interval_is_refused(client: Client) -> None:
    query = f"run_ids={new_run(client)}&metric_key=m&start_step=10"
    assert client.call("GET", f"metrics/get-history-bulk-interval?{query}").status_code == 400


def test_the_older_name_of_a_run_serves_as_well(client: Client) -> None:
    run_id = new_run(client)
    found = client.done("GET", "runs/get", run_uuid=run_id)["run"]
    assert found["info"]["run_uuid"] == run_id


def test_an_unknown_alias_is_a_wrong_value_and_an_unknown_model_is_not_found(
    client: Client,
) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    alias = client.call("GET", "registered-models/alias", name="net", alias="best")
    model = client.call("GET", "registered-models/alias", name="other", alias="best")
    assert (alias.status_code, model.status_code) == (400, 404)


@pytest.mark.parametrize("alias", ["latest", "v1", "V22", "", "a" * 256, "a b"])
def test_an_alias_that_means_a_version_is_refused(client: Client, alias: str) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    body = {"name": "net", "alias": alias, "version": "1"}
    assert client.call("POST", "registered-models/alias", body).status_code == 400


def test_versions_move_between_stages_by_any_case_of_their_name(client: Client) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    for _ in range(2):
        client.done("POST", "model-versions/create", {"name": "net", "source": "s3://b/m"})
    for version in ("1", "2"):
        body = {"name": "net", "version": version, "stage": "pRoduction"}
        body |= {"archive_existing_versions": "true"}
        client.done("POST", "model-versions/transition-stage", body)
    latest = client.done("GET", "registered-models/get-latest-versions", name="net")
    stages = [(v["current_stage"], v["version"]) for v in latest["model_versions"]]
    assert stages == [("Production", "2"), ("Archived", "1")]


def test_a_version_that_is_no_number_is_refused(client: Client) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    answer = client.call("GET", "model-versions/get", name="net", version="one")
    assert answer.status_code == 400


def test_refusals_hold_the_words_that_scripts_for_mlflow_look_for(client: Client) -> None:
    run_id = new_run(client)
    param = {"run_id": run_id, "key": "a", "value": "1"}
    client.done("POST", "runs/log-parameter", param)
    changed = client.call("POST", "runs/log-parameter", {**param, "value": "2"})
    assert "Changing param values is not allowed" in changed.json()["message"]
    no_tag = client.call("POST", "runs/delete-tag", {"run_id": run_id, "key": "none"})
    assert (no_tag.status_code, "No tag with name" in no_tag.text) == (404, True)
    client.done("POST", "runs/delete", {"run_id": run_id})
    deleted = client.call("POST", "runs/log-parameter", {**param, "key": "b"})
    assert (deleted.status_code, "must be in the 'active' state" in deleted.text) == (400, True)


def test_models_that_are_no_prompts_are_found_by_the_filter_that_clients_add(
    client: Client,
) -> None:
    client.done("POST", "registered-models/create", {"name": "net"})
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    client.done("POST", "registered-models/create", {"name": "words", "tags": prompt})
    where = "name LIKE '%' AND tag.`mlflow.prompt.is_prompt` != 'true'"
    found = client.done("GET", "registered-models/search", filter=where)["registered_models"]
    assert [model["name"] for model in found] == ["net"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json_is_refused(
    client: Client, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    url = "/api/2.0/mlflow/experiments/create"
    answer = client.http.post(url, content=b'{"name": "a"}', headers=headers)
    assert answer.status_code == 400
    assert "Content-Type" in answer.json()["message"]


def test_a_charset_beside_the_content_type_is_taken(client: Client) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    url = "/ajax-api/2.0/mlflow/experiments/create"
    assert client.http.post(url, content=b'{"name": "a"}', headers=headers).status_code == 200


def test_unknown_paths_and_methods_are_told_apart(client: Client) -> None:
    assert client.call("GET", "no/such").status_code == 404
    answer = client.call("DELETE", "experiments/create")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_the_server_says_who_it_is(client: Client) -> None:
    assert client.http.get("/health").text == "OK"
    assert client.http.get("/version").text == "3.17.2"
    info = client.done("GET", "/api/3.0/mlflow/server-info")
    assert info["multipart_uploads_enabled"] is False


def test_the_openapi_document_names_every_route(client: Client) -> None:
    document = client.http.get("/openapi.json").json()
    named = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    }
    assert set(all_routes()) <= named
    refs = set(_refs(document))
    assert refs <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _refs(value)
    elif isinstance(node, list):
        for item in node:
            yield from _refs(item)
