from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparkscore.errors import UsageError
from sparkscore.server.serve import Listen, serve
from sparkscore.server.settings import ServerSettings
from sparkscore.server.tracking_app import tracking_app
from tests.server.conftest import Client, client_of, served_in

URL = "/api/2.0/mlflow/experiments/create"
EVIL = "<script>alert('x')</script>\"'&"


def client_with(folder: Path, settings: ServerSettings | None = None) -> Client:
    return client_of(tracking_app(served_in(folder, settings)))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("10.1.2.3:5000", 200),
        ("mlflow.corp.example", 200),
        ("a.team.example:443", 200),
        ("evil.example", 403),
        ("mlflow.corp.example.evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_only_known_hosts_and_addresses_are_answered(
    tmp_path: Path, host: str, status: int
) -> None:
    client = client_with(
        tmp_path, ServerSettings(allowed_hosts=("mlflow.corp.example", "*.team.example"))
    )
    answer = client.http.get(
        "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"host": host}
    )
    assert answer.status_code == status
    assert client.http.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_origins_do_not_write(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    client = client_with(tmp_path)
    answer = client.http.post(URL, json={"name": "a"}, headers=headers)
    assert answer.status_code == status


def test_a_page_of_an_allowed_origin_writes_and_its_browser_is_told_so(tmp_path: Path) -> None:
    client = client_with(tmp_path, ServerSettings(allowed_origins=("https://ui.example",)))
    headers = {"origin": "https://ui.example"}
    asked = client.http.options(URL, headers=headers)
    assert asked.status_code == 204
    answer = client.http.post(URL, json={"name": "a"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://ui.example"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com"])
def test_an_address_that_others_reach_is_refused_without_authentication(host: str) -> None:
    with pytest.raises(UsageError, match="--insecure-no-auth"):
        serve(lambda: pytest.fail("opened"), Listen(host, 0), lambda _: None)


def test_everything_stands_below_the_prefix(tmp_path: Path) -> None:
    client = client_with(tmp_path, ServerSettings(static_prefix="/tracking"))
    assert client.http.post(f"/tracking{URL}", json={"name": "a"}).status_code == 200
    assert client.http.post(URL, json={"name": "b"}).status_code == 404
    assert client.http.get("/tracking/health").text == "OK"
    assert client.http.get("/health").text == "OK"
    assert 'href="/tracking/experiments/1"' in client.http.get("/tracking/").text
    assert client.http.get("/trackingother/").status_code == 404


class Tags(HTMLParser):
    """Collects the names of elements and of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"@{name}" for name, _ in attrs)}


def test_pages_show_what_is_on_record_and_run_nothing_of_it(tmp_path: Path) -> None:
    client = client_with(tmp_path)
    experiment = client.done("POST", "experiments/create", {"name": f"e {EVIL}"})["experiment_id"]
    tags = [{"key": "t", "value": EVIL}]
    body = {"experiment_id": experiment, "run_name": f"r {EVIL}", "user_id": EVIL, "tags": tags}
    run = client.done("POST", "runs/create", body)["run"]
    run_id = run["info"]["run_id"]
    client.done(
        "POST", "runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1}
    )
    name = "n<b>'"
    client.done("POST", "registered-models/create", {"name": name, "description": EVIL})
    client.done("POST", "model-versions/create", {"name": name, "source": "s3://b/m"})
    for path, shown in (
        ("/", "e &lt;script&gt;"),
        (f"/experiments/{experiment}", "r &lt;script&gt;"),
        (f"/runs/{run_id}", "&lt;script&gt;"),
        ("/models/n%3Cb%3E'", "n&lt;b&gt;"),
        ("/docs", "log-batch"),
    ):
        answer = client.http.get(path)
        assert answer.status_code == 200, path
        assert shown in answer.text
        tags_found = Tags()
        tags_found.feed(answer.text)
        assert tags_found.found.isdisjoint({"b", "iframe", "@onerror", "@onclick"})
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"script-src 'sha256-{digest}';" in policy
        assert "http:" not in answer.text.replace("http://b", "")


def test_links_that_clients_print_are_followed_below_the_prefix(tmp_path: Path) -> None:
    client = client_with(tmp_path, ServerSettings(static_prefix="/tracking"))
    page = client.http.get("/tracking/").text
    assert 'location.replace("/tracking/" + ' in page
    # As the browser would: the pattern of the script, on what a client prints.
    found = re.search(r"match\(/(.*)/\);", page)
    assert found
    asked = re.match(found[1].replace("\\/", "/"), "#/experiments/12/runs/ab-1")
    assert asked
    assert asked.groups() == ("experiments/12", "ab-1")


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    client = client_with(tmp_path)
    for path in ("/experiments/77", "/runs/gone", "/models/none"):
        answer = client.http.get(path)
        assert answer.status_code == 404
        assert "there is no" in answer.text


def test_counts_are_told_only_where_that_is_asked_for(tmp_path: Path) -> None:
    assert client_with(tmp_path).http.get("/metrics").status_code == 404
    client = client_with(tmp_path, ServerSettings(expose_metrics=True))
    client.done("GET", "experiments/get", experiment_id="0")
    client.call("GET", "experiments/get", experiment_id="none")
    client.http.get("/evil/path")
    text = client.http.get("/metrics").text
    assert 'route="get_experiment",method="GET",status="200"} 1' in text
    assert 'route="get_experiment",method="GET",status="404"} 1' in text
    assert "evil" not in text
