from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.server.calls import Served
from sparkscore.server.settings import ServerSettings
from sparkscore.server.tracking_app import tracking_app
from tests.server.conftest import Client, client_of, served_in


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return served_in(tmp_path)


@pytest.fixture
def client(served: Served) -> Client:
    client = client_of(tracking_app(served))
    client.done("POST", "registered-models/create", {"name": "net"})
    return client


@pytest.fixture
def owned(client: Client) -> dict[str, str]:
    """A run, another run, and a logged model of the first."""
    ids: dict[str, str] = {}
    for name in ("run", "other"):
        run = client.done("POST", "runs/create", {"experiment_id": "0"})["run"]
        ids[name] = run["info"]["run_id"]
    body = {"experiment_id": "0", "name": "m", "source_run_id": ids["run"]}
    model = client.done("POST", "logged-models", body)["model"]
    ids["model"] = model["info"]["model_id"]
    return ids


def create(client: Client, source: str, **fields: str) -> tuple[int, str]:
    answer = client.call(
        "POST", "model-versions/create", {"name": "net", "source": source, **fields}
    )
    return answer.status_code, answer.json().get("message", "")


@pytest.mark.parametrize(
    "source",
    [
        "runs:/{run}/../x",
        "runs:/{run}/%2e%2e/x",
        "runs:/{run}/%252e%252e/x",
        "mlflow-artifacts:/0/../../etc",
        "s3://bucket/a/../b",
        "http://host/a?p=/../b",
        "http://host/a#/../b",
        "file:///etc/passwd",
        "/etc/passwd",
        "relative/path",
        "file://host/share",
        "unknown://host/x",
        "runs:/",
        "models:/net",
        "models:/net@best",
    ],
)
def test_a_source_that_climbs_or_is_of_no_known_kind_is_refused(
    client: Client, owned: dict[str, str], source: str
) -> None:
    status, told = create(client, source.format(**owned), run_id=owned["run"])
    assert status == 400
    assert told.startswith("Invalid model version source")
    assert client.done("GET", "registered-models/get-latest-versions", name="net") == {}


@pytest.mark.parametrize(
    "source", ["s3://bucket/m", "https://host/m", "gs://b/m", "abfss://c@a/m", "dbfs:/m"]
)
def test_a_source_in_a_store_elsewhere_is_ready_without_a_digest(
    client: Client, source: str
) -> None:
    body = {"name": "net", "source": source}
    made = client.done("POST", "model-versions/create", body)["model_version"]
    assert made["status"] == "READY"
    assert "digest" not in made
    uri = client.done("GET", "model-versions/get-download-uri", name="net", version="1")
    assert uri == {"artifact_uri": source}


@pytest.mark.parametrize(
    ("source", "owner"),
    [
        ("runs:/{run}/m", {"run_id": "run"}),
        ("runs:/{run}/m", {"model_id": "model"}),
        ("models:/{model}", {"model_id": "model"}),
        ("models:/{model}", {"run_id": "run"}),
        ("mlflow-artifacts:/0/{run}/artifacts/m", {"run_id": "run"}),
        ("mlflow-artifacts:/0/models/{model}/artifacts", {"run_id": "run"}),
        ("mlflow-artifacts:/0/models/{model}/artifacts", {"model_id": "model"}),
        ("mlflow-artifacts://localhost:5000/0/{run}/artifacts/m", {"run_id": "run"}),
    ],
)
def test_a_source_of_the_run_or_model_that_is_named_is_taken_and_of_others_not(
    client: Client, owned: dict[str, str], source: str, owner: dict[str, str]
) -> None:
    named = {field: owned[name] for field, name in owner.items()}
    assert create(client, source.format(**owned), **named)[0] == 200
    assert create(client, source.format(**owned))[0] == 400
    assert create(client, source.format(**owned), run_id=owned["other"])[0] == 400


def test_a_source_of_another_run_is_taken_where_that_is_asked_for(
    served: Served, client: Client, owned: dict[str, str]
) -> None:
    lenient = replace(served, settings=ServerSettings(lenient_sources=True))
    client = client_of(tracking_app(lenient))
    assert create(client, f"runs:/{owned['run']}/m")[0] == 200


def test_a_source_must_match_the_pattern_that_the_operator_set(served: Served) -> None:
    strict = replace(served, settings=ServerSettings(source_pattern="^s3://ours/"))
    client = client_of(tracking_app(strict))
    client.done("POST", "registered-models/create", {"name": "net"})
    assert create(client, "s3://ours/m")[0] == 200
    assert create(client, "s3://theirs/m")[0] == 400


def test_a_version_of_a_version_leads_to_the_same_bytes(client: Client) -> None:
    create(client, "s3://bucket/m")
    assert create(client, "models:/net/1")[0] == 200
    uri = client.done("GET", "model-versions/get-download-uri", name="net", version="2")
    assert uri == {"artifact_uri": "s3://bucket/m"}
    assert create(client, "models:/net/9")[0] == 404


def test_the_logged_model_says_which_versions_were_made_of_it(
    served: Served, client: Client, owned: dict[str, str]
) -> None:
    create(client, f"models:/{owned['model']}", model_id=owned["model"])
    create(client, f"models:/{owned['model']}", model_id=owned["model"])
    tags = served.logged_models.get_logged_model(owned["model"]).tags
    assert tags["mlflow.modelVersions"] == (
        '[{"name": "net", "version": 1}, {"name": "net", "version": 2}]'
    )


def test_a_version_of_a_logged_model_is_of_the_run_that_made_it(
    client: Client, owned: dict[str, str]
) -> None:
    body = {"name": "net", "source": f"models:/{owned['model']}", "model_id": owned["model"]}
    made = client.done("POST", "model-versions/create", body)["model_version"]
    assert made["run_id"] == owned["run"]


def test_a_version_of_an_unknown_model_or_run_is_not_found(client: Client) -> None:
    body = {"name": "none", "source": "s3://b/m"}
    assert client.call("POST", "model-versions/create", body).status_code == 404
    assert create(client, "mlflow-artifacts:/0/x", run_id="gone")[0] == 404
