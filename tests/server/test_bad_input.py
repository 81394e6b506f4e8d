"""B39 to B46: whatever is asked in whatever form, the worst answer is a 4xx that says why."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkscore.server.tracking_app import tracking_app
from sparkscore.wire.routes import Route, all_routes
from sparkscore.wire.shapes import Kind, Member, Shape
from tests.server.conftest import Client, client_of, served_in

ROUTES = all_routes()
LEAKS = re.compile(r"Traceback|SELECT |sqlite|/work/|/tmp/|\.py\b", re.IGNORECASE)
NASTY_TEXT = [
    "", " ", "0", "x" * 9000, "😀", "\u202eabc", "\u200b", "a\0b", "a\nb", "../../etc/passwd",
    "%2e%2e%2f", "'; DROP TABLE runs; --", '"', "`", "\ud800", "NaN", "latest", "v1", "a" * 256,
    "metrics.m > ", "params.`x` = 'y' AND", "eyJvZmZzZXQiOiAtMX0=", "[" * 500,
]  # fmt: skip
NASTY_NUMBERS = [0, -1, 2**31, 2**63 - 1, 2**63, 2**64, 1.5, "1", "9" * 400, None, True]
ANY = st.sampled_from([*NASTY_TEXT, *NASTY_NUMBERS, [], {}, [[]], [{}], {"key": "a"}])


def prepared(folder: Path) -> Client:
    """A client of a server that has one of each kind of record."""
    client = client_of(tracking_app(served_in(folder)))
    client.done("POST", "registered-models/create", {"name": "net"})
    client.done("POST", "model-versions/create", {"name": "net", "source": "s3://b/m"})
    client.done("POST", "runs/create", {"experiment_id": "0", "run_id": "run1"})
    body = {"experiment_id": "0", "name": "m", "model_id": "m-1"}
    client.done("POST", "logged-models", body)
    return client


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return prepared(tmp_path)


class Fresh:
    """A client whose records are made anew every few requests, since some of these delete them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked = 0
        self._client = prepared(folder)

    def client(self) -> Client:
        self._asked += 1
        if self._asked % 20 == 0:
            self._client = prepared(self._folder)
        return self._client


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    return Fresh(tmp_path)


KNOWN = {
    "run_id": ["run1"], "run_ids": ["run1"], "experiment_id": ["0"], "name": ["net"],
    "experiment_ids": ["0"], "version": ["1"], "model_id": ["m-1"], "key": ["k"],
    "metric_key": ["k"], "alias": ["best"], "path": ["x"], "stage": ["Staging"],
}  # fmt: skip


def values_of(member: Member) -> st.SearchStrategy[object]:
    """Mostly what fits the field, so that a request gets far; and now and then anything."""
    fitting: st.SearchStrategy[object]
    if member.kind is Kind.SHAPE:
        assert member.shape is not None
        fitting = fields_of(member.shape)
    elif member.kind is Kind.TEXT:
        fitting = st.sampled_from([*KNOWN.get(member.name, ["a"]), *NASTY_TEXT])
    elif member.kind is Kind.FLAG:
        fitting = st.booleans()
    elif member.kind is Kind.ENUM:
        fitting = st.sampled_from([*member.numbers, *member.numbers.values()])
    else:
        fitting = st.sampled_from([0, 1, 7, "3", -5, 0.5, 2**53 + 1])
    if member.repeated:
        fitting = st.lists(fitting, max_size=3)
    return st.one_of(fitting, fitting, fitting, ANY)


def fields_of(shape: Shape) -> st.SearchStrategy[object]:
    needed = {member.name: values_of(member) for member in shape.members if member.required}
    others = {member.name: values_of(member) for member in shape.members if not member.required}
    return st.fixed_dictionaries(needed, optional=others)


REQUESTS = st.sampled_from(sorted(ROUTES)).flatmap(
    lambda name: st.tuples(st.just(name), fields_of(ROUTES[name].request))
)


def in_url(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def sent(client: Client, route: Route, fields: dict[str, object]) -> httpx.Response:
    """The answer to a request of a route; fields of the path are put there."""

    def filled(found: re.Match[str]) -> str:
        return re.sub(r"[^\w.%-]", "_", str(fields.get(found[1], "x"))[:300]) or "x"

    path = re.sub(r"{(\w+)(?::path)?}", filled, route.url_path)
    if route.method == "GET" or route.is_raw:
        query = {
            key: [in_url(item) for item in value] if isinstance(value, list) else in_url(value)
            for key, value in fields.items()
        }
        return client.http.request(
            route.method,
            path,
            params=query or None,
            content=b"x" if route.is_raw else None,
        )
    headers = {"content-type": "application/json"}
    return client.http.request(
        route.method, path, content=json.dumps(fields).encode(), headers=headers
    )


@settings(
    max_examples=800,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=REQUESTS)
def test_no_request_of_any_route_ends_in_a_failure_of_the_server(
    fresh: Fresh, request: tuple[str, dict[str, object]]
) -> None:
    name, fields = request
    answer = sent(fresh.client(), ROUTES[name], fields)
    status = answer.status_code
    text = answer.text
    assert status < 500 or status == 501, text
    if status >= 400:
        assert answer.json()["error_code"]
        assert len(text) < 4000
        assert not LEAKS.search(text), text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"name": "a", "name": "b"}',
        b'{"name": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"name": "' + b"x" * 1_000_000 + b'"}',
        b'{"name": "' + b"x" * 5_000_000 + b'"}',
        b'{"name": "\\ud800"}',
        b'{"name": 1e999}',
        b'{"name": ' + b"9" * 5000 + b"}",
    ],
    ids=range(12),
)
def test_a_body_of_any_kind_is_refused_with_words(client: Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    url = "/api/2.0/mlflow/experiments/create"
    answer = client.http.post(url, content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.json()["message"]


@pytest.mark.parametrize("n_chars", [249, 250, 251])
def test_a_key_has_250_characters_at_most(client: Client, n_chars: int) -> None:
    body = {"run_id": "run1", "key": "k" * n_chars, "value": 1, "timestamp": 1}
    answer = client.call("POST", "runs/log-metric", body)
    assert answer.status_code == (200 if n_chars <= 250 else 400)


@pytest.mark.parametrize("max_results", [0, -1, 50_001, "x", "1.5"])
def test_a_page_of_a_size_that_cannot_be_is_refused(client: Client, max_results: object) -> None:
    body = {"experiment_ids": ["0"], "max_results": max_results}
    answer = client.call("POST", "runs/search", body)
    assert answer.status_code == 400
    assert "'max_results'" in answer.json()["message"]


@pytest.mark.parametrize("token", ["garbage", "eyJvZmZzZXQiOiAtMX0=", "é", "a" * 10_000])
def test_a_token_that_no_page_gave_is_refused(client: Client, token: str) -> None:
    for path in ("runs/search", "experiments/search"):
        body = {"experiment_ids": ["0"], "page_token": token}
        assert client.call("POST", path, body).status_code == 400


def test_writes_to_what_is_deleted_or_unknown_are_refused_by_name(client: Client) -> None:
    experiment = client.done("POST", "experiments/create", {"name": "gone"})["experiment_id"]
    run = client.done("POST", "runs/create", {"experiment_id": experiment, "run_id": "gone"})
    assert run["run"]
    client.done("POST", "experiments/delete", {"experiment_id": experiment})
    metric = {"run_id": "gone", "key": "m", "value": 1, "timestamp": 1}
    for path, body, status in (
        ("runs/log-metric", metric, 400),
        ("runs/create", {"experiment_id": experiment}, 400),
        ("experiments/update", {"experiment_id": experiment, "new_name": "x"}, 400),
        ("experiments/delete", {"experiment_id": experiment}, 400),
        ("runs/log-metric", {**metric, "run_id": "never"}, 404),
        ("runs/create", {"experiment_id": "777"}, 404),
    ):
        answer = client.call("POST", path, body)
        assert answer.status_code == status, (path, answer.text)


def test_one_of_many_who_create_a_name_at_once_succeeds(tmp_path: Path) -> None:
    client = client_of(tracking_app(served_in(tmp_path)))

    def create(_: int) -> str:
        answer = client.call("POST", "experiments/create", {"name": "raced"})
        code: str = answer.json().get("error_code", "done")
        return code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(create, range(8)))
    assert sorted(codes) == ["RESOURCE_ALREADY_EXISTS"] * 7 + ["done"]
