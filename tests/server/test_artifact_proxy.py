from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from sparkscore.names import ExperimentName, ModelName, RunId
from sparkscore.package.manifest import compute_seal
from sparkscore.records import VersionStatus
from sparkscore.server.calls import Served
from sparkscore.server.settings import ServerSettings
from sparkscore.server.tracking_app import tracking_app
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import open_memory
from sparkscore.stores.object_files import ObjectArtifactStore
from tests.server.conftest import Client, Json, client_of, served_in

STORED = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return served_in(tmp_path / "kept")


@pytest.fixture
def client(served: Served) -> Client:
    return client_of(tracking_app(served))


def put(client: Client, path: str, content: bytes = b"bytes") -> httpx.Response:
    return client.http.put(f"{STORED}/{path}", content=content)


def test_a_file_is_put_listed_read_and_deleted(client: Client) -> None:
    assert put(client, "1/a%20b/x.bin", b"\0" * 3_000_000).status_code == 200
    files = client.done("GET", STORED, path="1/a b")["files"]
    assert files == [{"path": "x.bin", "is_dir": False, "file_size": 3_000_000}]
    assert client.done("GET", STORED)["files"] == [{"path": "1", "is_dir": True}]
    assert client.http.get(f"{STORED}/1/a%20b/x.bin").content == b"\0" * 3_000_000
    assert client.call("DELETE", f"{STORED}/1/a%20b").status_code == 200
    gone = client.http.get(f"{STORED}/1/a%20b/x.bin")
    assert gone.status_code == 404
    assert gone.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_an_empty_file_comes_back_empty(client: Client) -> None:
    put(client, "1/empty", b"")
    assert client.http.get(f"{STORED}/1/empty").content == b""


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/x", "a/%2e%2e/%2e%2e/x", "a/%252e%252e/x", "a%00b", "a/..%2fx", "a%5c..%5cx", "a//b"],
)
def test_a_path_that_climbs_is_refused_and_touches_nothing(
    client: Client, path: str, tmp_path: Path
) -> None:
    for answer in (
        put(client, path),
        client.http.get(f"{STORED}/{path}"),
        client.call("DELETE", f"{STORED}/{path}"),
    ):
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("Invalid")
    assert list(tmp_path.rglob("*")) == []


def test_the_root_is_neither_written_nor_deleted(client: Client) -> None:
    put(client, "1/x")
    assert client.call("DELETE", f"{STORED}/").status_code == 400
    assert client.http.get(f"{STORED}/1/x").status_code == 200


@pytest.mark.parametrize("name", ["page.html", "image.svg", "doc.xml", "s.js", "a.pdf", "x.xhtml"])
def test_nothing_that_is_stored_can_run_in_a_browser(client: Client, name: str) -> None:
    put(client, f"1/{name}", b"<script>alert(1)</script>")
    headers = client.http.get(f"{STORED}/1/{name}").headers
    assert headers["content-type"].startswith("text/plain")
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")


def test_a_name_of_any_letters_is_offered_as_it_is(client: Client) -> None:
    for name, told in (
        ("a%20b.txt", 'filename="a b.txt"'),
        ("%C3%A9%22", "filename*=UTF-8''%C3%A9%22"),
    ):
        put(client, f"1/{name}")
        headers = client.http.get(f"{STORED}/1/{name}").headers
        assert headers["content-disposition"] == f"attachment; {told}"


def test_a_file_that_is_cut_on_its_way_is_never_seen(served: Served, tmp_path: Path) -> None:
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"x" * 2_000_000, "more_body": True},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"{STORED}/1/x",
        "query_string": b"",
        "headers": [],
    }

    async def asked() -> None:
        await tracking_app(served)(scope, receive, send)

    asyncio.run(asked())
    assert sent == []
    assert [path for path in (tmp_path / "kept").rglob("*") if path.is_file()] == []


def test_a_file_over_the_limit_is_refused_and_not_kept(tmp_path: Path) -> None:
    served = served_in(tmp_path, ServerSettings(max_upload_bytes=10))
    client = client_of(tracking_app(served))
    assert put(client, "1/x", b"x" * 10).status_code == 200
    assert put(client, "1/y", b"x" * 11).status_code == 413
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x"]


def test_links_are_declined_and_the_way_is_told(client: Client) -> None:
    link = client.call("GET", "/api/2.0/mlflow-artifacts/presigned/1/x")
    assert link.status_code == 501
    assert "ask it for the file itself" in link.json()["message"]


def new_run(client: Client, location: str | None = None) -> str:
    body = {"name": f"e-{location}"} | ({"artifact_location": location} if location else {})
    experiment = client.done("POST", "experiments/create", body)["experiment_id"]
    run = client.done("POST", "runs/create", {"experiment_id": experiment})["run"]
    run_id: str = run["info"]["run_id"]
    return run_id


def test_files_of_a_run_are_listed_and_read_by_its_id(served: Served, client: Client) -> None:
    run_id = new_run(client)
    upload = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path=d/x.txt"
    assert client.http.post(upload, content=b"text").json() == {}
    listed = client.done("GET", "artifacts/list", run_id=run_id, path="d")
    assert listed["files"] == [{"path": "d/x.txt", "is_dir": False, "file_size": 4}]
    assert listed["root_uri"] == served.runs.get_run(RunId(run_id)).artifact_uri
    assert client.done("GET", "artifacts/list", run_id=run_id, path="d/x.txt").get("files") is None
    assert client.call("GET", "/get-artifact", run_id=run_id, path="d/x.txt").content == b"text"


def test_a_location_elsewhere_is_never_opened_by_the_server(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    run_id = new_run(client, (tmp_path / "secret").as_uri())
    for path, query in (("artifacts/list", {}), ("/get-artifact", {"path": "x"})):
        answer = client.call("GET", path, run_id=run_id, **query)
        assert answer.status_code == 400
        assert "not kept by this server" in answer.json()["message"]


def test_a_link_out_of_the_store_is_not_followed(client: Client, tmp_path: Path) -> None:
    put(client, "1/x")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "kept" / "1" / "link").symlink_to(tmp_path / "secret")
    assert client.http.get(f"{STORED}/1/link").status_code == 400


@pytest.fixture
def ready_version(client: Client) -> str:
    """A run's folder `model` that a READY version holds; the path of the folder in the store."""
    run_id = new_run(client)
    folder = f"1/{run_id}/artifacts/model"
    put(client, f"{folder}/MLmodel", b"flavors: {}\n")
    put(client, f"{folder}/weights.bin", b"w")
    put(client, f"{folder}/data/more.bin", b"m")
    client.done("POST", "registered-models/create", {"name": "net"})
    body = {"name": "net", "source": f"runs:/{run_id}/model", "run_id": run_id}
    made = client.done("POST", "model-versions/create", body)["model_version"]
    assert made["status"] == "READY"
    assert len(made["digest"]) == 64
    return folder


def test_the_digest_of_a_version_is_that_of_its_package(
    client: Client, ready_version: str, tmp_path: Path
) -> None:
    made = client.done("GET", "model-versions/get", name="net", version="1")["model_version"]
    assert made["digest"] == compute_seal(tmp_path / "kept" / ready_version).digest


def test_files_of_a_ready_version_never_change(client: Client, ready_version: str) -> None:
    for answer in (
        put(client, f"{ready_version}/weights.bin", b"other"),
        put(client, f"{ready_version}/new.bin"),
        client.call("DELETE", f"{STORED}/{ready_version}/weights.bin"),
        client.call("DELETE", f"{STORED}/{ready_version}"),
        client.call("DELETE", f"{STORED}/1"),
    ):
        assert answer.status_code == 400
        assert "READY and never changes" in answer.json()["message"]
    assert client.http.get(f"{STORED}/{ready_version}/weights.bin").content == b"w"
    assert put(client, f"{ready_version}-other/weights.bin").status_code == 200


def test_files_are_free_again_once_the_version_is_deleted(
    client: Client, served: Served, ready_version: str
) -> None:
    served.models.delete_version(ModelName("net"), 1)
    assert put(client, f"{ready_version}/weights.bin", b"other").status_code == 200
    assert client.call("DELETE", f"{STORED}/1").status_code == 200


@pytest.mark.usefixtures("ready_version")
def test_a_file_of_a_version_is_read_by_its_number(client: Client) -> None:
    answer = client.call(
        "GET", "/model-versions/get-artifact", name="net", version="1", path="weights.bin"
    )
    assert answer.content == b"w"


def test_a_store_that_has_no_files_of_its_own_is_served_too(tmp_path: Path) -> None:
    objects = ObjectArtifactStore.at("memory://served")
    served = served_in(tmp_path)
    client = client_of(tracking_app(replace(served, artifacts=objects)))
    assert put(client, "1/x.bin", b"abc" * 1_000_000).status_code == 200
    assert client.http.get(f"{STORED}/1/x.bin").content == b"abc" * 1_000_000
    assert client.http.get(f"{STORED}/1").status_code == 404


def test_files_of_a_database_from_before_the_server_are_told_at_the_server(tmp_path: Path) -> None:
    stores = open_memory(f"{LocalArtifactStore(tmp_path).root_uri}/runs")
    served = replace(served_in(tmp_path), runs=stores.runs)
    stores.runs.create_run("0", run_id=RunId("r"), run_name="r", user_id="", start_time_ms=1)
    (tmp_path / "runs/0/r/artifacts").mkdir(parents=True)
    (tmp_path / "runs/0/r/artifacts/a.txt").write_text("a")
    client = client_of(tracking_app(served))
    root = "mlflow-artifacts:/runs/0/r/artifacts"
    found = client.done("GET", "runs/get", run_id="r")["run"]["info"]
    assert found["artifact_uri"] == root
    assert client.done("GET", "artifacts/list", run_id="r") == {
        "root_uri": root,
        "files": [{"path": "a.txt", "is_dir": False, "file_size": 1}],
    }
    experiment = client.done("GET", "experiments/get", experiment_id="0")["experiment"]
    assert experiment["artifact_location"] == "mlflow-artifacts:/runs/0"
    found = client.done("POST", "runs/search", {"experiment_ids": ["0"]})["runs"][0]["info"]
    assert found["artifact_uri"] == root
    path = "/api/2.0/mlflow-artifacts/artifacts/runs/0/r/artifacts/a.txt"
    assert client.http.get(path).text == "a"
    elsewhere = replace(served, settings=ServerSettings(serves_artifacts=False))
    found = client_of(tracking_app(elsewhere)).done("GET", "runs/get", run_id="r")["run"]["info"]
    assert found["artifact_uri"].startswith("file:")


PARTS = "/api/2.0/mlflow-artifacts/mpu"


def begun(client: Client, n_parts: int, folder: str = "1/a%20b") -> Json:
    """An upload as clients of MLflow begin it, naming their own file."""
    body = {"path": "/home/ann/big.bin", "num_parts": n_parts}
    return client.done("POST", f"{PARTS}/create/{folder}", body)


def sent_parts(client: Client, upload: Json, contents: Sequence[bytes]) -> list[Json]:
    parts = []
    for credential, content in zip(upload["credentials"], contents, strict=True):
        answer = client.http.put(credential["url"], content=content, headers=credential["headers"])
        assert answer.status_code == 200, answer.text
        number = credential["part_number"]
        parts.append({"part_number": number, "etag": answer.headers["ETag"], "url": None})
    return parts


def completed(client: Client, upload: Json, parts: Sequence[Json]) -> httpx.Response:
    body = {"path": "/home/ann/big.bin", "upload_id": upload["upload_id"], "parts": parts}
    return client.call("POST", f"{PARTS}/complete/1/a%20b", body)


@pytest.mark.parametrize("kind", ["folder", "objects"])
def test_parts_become_one_file_that_is_seen_when_it_is_whole(
    served: Served, tmp_path: Path, kind: str
) -> None:
    if kind == "objects":
        served = replace(served, artifacts=ObjectArtifactStore.at(f"memory://{tmp_path.name}/x"))
    client = client_of(tracking_app(served))
    contents = [b"a" * 1_500_000, b"b" * 1_500_000, b"c"]
    upload = begun(client, 3)
    parts = sent_parts(client, upload, contents)
    assert client.done("GET", STORED, path="1/a b") == {}
    assert completed(client, upload, parts[::-1]).status_code == 200
    assert client.http.get(f"{STORED}/1/a%20b/big.bin").content == b"".join(contents)
    assert completed(client, upload, parts).status_code == 404
    assert [it.name for it in (tmp_path / "kept").glob(".*")] == []


def test_a_part_that_is_sent_again_counts_once_and_one_that_is_missing_is_named(
    client: Client,
) -> None:
    upload = begun(client, 2)
    first, second = sent_parts(client, upload, [b"x", b"y"])
    again, _ = sent_parts(client, upload, [b"z", b"y"])
    refused = completed(client, upload, [first, second])
    assert refused.status_code == 400
    assert "part 1 with etag" in refused.json()["message"]
    assert completed(client, upload, []).status_code == 400
    assert completed(client, upload, [again, second]).status_code == 200
    assert client.http.get(f"{STORED}/1/a%20b/big.bin").content == b"zy"


def test_an_upload_that_is_ended_or_of_another_path_is_unknown(
    client: Client, tmp_path: Path
) -> None:
    upload = begun(client, 1)
    url = upload["credentials"][0]["url"]
    parts = sent_parts(client, upload, [b"x"])
    body = {"path": "big.bin", "upload_id": upload["upload_id"], "parts": parts}
    assert client.call("POST", f"{PARTS}/complete/2", body).status_code == 404
    assert client.http.put(url.replace("big.bin", "other"), content=b"x").status_code == 404
    for upload_id in ("0" * 32, "../../kept", ""):
        other = {**body, "upload_id": upload_id}
        assert client.call("POST", f"{PARTS}/complete/1/a%20b", other).status_code in (400, 404)
    assert client.call("POST", f"{PARTS}/abort/1/a%20b", body).status_code == 200
    assert client.http.put(url, content=b"x").status_code == 404
    assert completed(client, upload, parts).status_code == 404
    assert [it for it in (tmp_path / "kept").rglob("*") if it.is_file()] == []


def test_parts_may_climb_nowhere_and_are_no_way_around_a_ready_version(
    client: Client, served: Served
) -> None:
    for path in ("..", "a/..", "", "a/"):
        body = {"path": path, "num_parts": 1}
        assert client.call("POST", f"{PARTS}/create/1", body).status_code == 400
    served.models.create_model(ModelName("net"))
    place = "mlflow-artifacts:/1/a b"
    version = served.models.create_version(ModelName("net"), source=place).version
    upload = begun(client, 1)
    parts = sent_parts(client, upload, [b"x"])
    served.models.finish_version(ModelName("net"), version, VersionStatus.READY)
    assert "READY" in completed(client, upload, parts).json()["message"]
    body = {"path": "big.bin", "num_parts": 1}
    assert client.call("POST", f"{PARTS}/create/1/a%20b", body).status_code == 400


def test_a_part_is_sent_with_the_credentials_of_who_began(served: Served) -> None:
    served = replace(served, settings=ServerSettings(static_prefix="/under"))
    client = client_of(tracking_app(served))
    client.http.headers["Authorization"] = "Bearer abc"
    body = {"path": "big.bin", "num_parts": 2}
    answer = client.done("POST", f"/under{PARTS}/create/1", body)
    for credential in answer["credentials"]:
        assert credential["headers"] == {"Authorization": "Bearer abc"}
        assert credential["url"].startswith(f"{client.http.base_url}/under{PARTS}/part/1/big.bin?")


def test_a_server_for_files_alone_refuses_records_and_says_so(served: Served) -> None:
    client = client_of(tracking_app(replace(served, settings=ServerSettings(artifacts_only=True))))
    assert put(client, "1/x").status_code == 200
    assert client.http.get(f"{STORED}/1/x").content == b"bytes"
    parts = sent_parts(client, upload := begun(client, 1), [b"y"])
    assert completed(client, upload, parts).status_code == 200
    assert client.http.get("/health").status_code == 200
    for answer in (
        client.call("POST", "experiments/create", {"name": "flights"}),
        client.call("GET", "/get-artifact", path="x", run_id="r"),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
        assert "--artifacts-only" in answer.json()["message"]
    pages = ("/", "/runs/r", "/docs")
    assert [client.http.get(page).status_code for page in pages] == [404, 404, 200]
    assert served.runs.find_experiment(ExperimentName("flights")) is None
