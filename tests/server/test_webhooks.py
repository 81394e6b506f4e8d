from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from sparkscore.errors import ConfigError, StoreUnavailableError
from sparkscore.records import Webhook
from sparkscore.server.calls import Served
from sparkscore.server.tracking_app import tracking_app
from sparkscore.server.webhook_addresses import is_public
from sparkscore.server.webhook_queue import Schedule
from sparkscore.server.webhook_secrets import WebhookSecrets
from sparkscore.stores.memory import MemoryWebhookStore
from tests.server.conftest import Client, Json, client_of, served_in, serving
from tests.server.webhook_receiver import Receiver, receiving

ALL_EVENTS = [
    {"entity": "REGISTERED_MODEL", "action": "CREATED"},
    {"entity": "MODEL_VERSION", "action": "CREATED"},
    {"entity": "MODEL_VERSION_TAG", "action": "SET"},
    {"entity": "MODEL_VERSION_TAG", "action": "DELETED"},
    {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
    {"entity": "MODEL_VERSION_ALIAS", "action": "DELETED"},
]
SECRET = "a secret of ours"


@pytest.fixture(scope="module")
def shared() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def receiver(shared: Receiver) -> Receiver:
    assert not shared.rest()
    return shared


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """A server that may send to loopback, and tries again at once."""
    found = served_in(tmp_path)
    schedule = Schedule(waits_s=(0, 0))
    return replace(
        found, webhooks=replace(found.webhooks, allowed_hosts=("localhost",), schedule=schedule)
    )


@pytest.fixture
def client(served: Served) -> Client:
    return client_of(tracking_app(served))


def new_webhook(client: Client, url: str, **fields: object) -> Json:
    body = {"name": "hook", "url": url, "events": ALL_EVENTS, **fields}
    found: Json = client.done("POST", "webhooks", body)["webhook"]
    return found


def new_model(client: Client, name: str = "churn") -> None:
    client.done("POST", "registered-models/create", {"name": name})


def refusal(client: Client, **fields: object) -> str:
    body = {"name": "hook", "url": "https://example.org/", "events": ALL_EVENTS, **fields}
    answer = client.call("POST", "webhooks", body)
    assert answer.status_code == 400, answer.text
    assert client.done("GET", "webhooks").get("webhooks", []) == []
    return str(answer.json()["message"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ],
)
def test_an_address_that_is_not_public_is_refused(tmp_path: Path, host: str) -> None:
    client = client_of(tracking_app(served_in(tmp_path)))
    assert "not public" in refusal(client, url=f"http://{host}:8080/hook")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "example.org/hook",
        "https:///hook",
        "https://user:hunter2@example.org/",
        "https://hunter2@127.0.0.1/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org:99999/",
        "https://[::1/",
        "https://example.org/a b",
        "https://example.org/a\r\nX-Injected: 1",
        "https://exämple.org/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_url_is_refused_without_its_password(client: Client, url: str) -> None:
    message = refusal(client, url=url)
    assert "Invalid webhook URL" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_known_as_such(text: str) -> None:
    assert is_public(text)


def with_names(served: Served, *answers: Sequence[str]) -> Client:
    """A server whose resolver gives these answers, one after another."""
    left = list(answers)
    webhooks = replace(served.webhooks, allowed_hosts=(), resolve=lambda _, __: left.pop(0))
    return client_of(tracking_app(replace(served, webhooks=webhooks)))


def test_a_name_with_one_private_address_is_refused(served: Served) -> None:
    for answer in (["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"], []):
        refusal(with_names(served, answer))


def test_a_name_that_comes_to_mean_a_private_address_is_not_connected_to(
    served: Served, receiver: Receiver
) -> None:
    client = with_names(served, ["8.8.8.8"], ["127.0.0.1"], *[["127.0.0.1"]] * 3)
    made = new_webhook(client, f"http://rebinding.example:{receiver.port}/")
    result = client.done("POST", f"webhooks/{made['webhook_id']}/test", {})["result"]
    assert result["success"] is False
    assert "not public" in result["error_message"]
    new_model(client)
    served.webhooks.queue.close(20)
    assert receiver.rest() == []


def test_the_very_address_that_was_checked_is_connected_to(
    served: Served, receiver: Receiver
) -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    webhooks = replace(served.webhooks, allowed_hosts=("hook.example",), resolve=resolve)
    client = client_of(tracking_app(replace(served, webhooks=webhooks)))
    made = new_webhook(client, f"http://HOOK.example:{receiver.port}/a?b=c#d")
    client.done("POST", f"webhooks/{made['webhook_id']}/test", {})
    found = receiver.next()
    assert (found.path, found.headers["Host"]) == ("/a?b=c", f"hook.example:{receiver.port}")
    assert asked == ["hook.example"] * 2


def test_a_redirect_is_not_followed(client: Client, receiver: Receiver) -> None:
    made = new_webhook(client, receiver.url)
    receiver.answers.put(307)
    result = client.done("POST", f"webhooks/{made['webhook_id']}/test", {})["result"]
    assert (result["success"], result["response_status"]) == (False, 307)
    assert [it.path for it in receiver.rest()] == ["/hook"]


def test_each_event_is_told_with_what_it_is_about(
    client: Client, served: Served, receiver: Receiver
) -> None:
    new_webhook(client, receiver.url)
    version = {"name": "churn", "version": "1"}
    tags = [{"key": "a", "value": "b"}]
    source = "s3://bucket/model"
    told = []
    for method, path, body in (
        ("POST", "registered-models/create", {"name": "churn", "tags": tags}),
        ("POST", "model-versions/create", {"name": "churn", "source": source, "tags": tags}),
        ("POST", "model-versions/set-tag", {**version, "key": "k", "value": "v"}),
        ("DELETE", "model-versions/delete-tag", {**version, "key": "k"}),
        ("POST", "registered-models/alias", {**version, "alias": "champion"}),
        ("DELETE", "registered-models/alias", {"name": "churn", "alias": "champion"}),
        ("PATCH", "model-versions/update", {**version, "description": "no event"}),
    ):
        client.done(method, path, body)
    for _ in ALL_EVENTS:
        told.append(receiver.next().told)
    served.webhooks.queue.close(20)
    assert receiver.rest() == []
    found = {(it["entity"], it["action"]): it["data"] for it in told}
    assert found == {
        ("registered_model", "created"): {"name": "churn", "tags": {"a": "b"}, "description": None},
        ("model_version", "created"): {
            **version,
            "source": source,
            "run_id": None,
            "tags": {"a": "b"},
            "description": None,
        },
        ("model_version_tag", "set"): {**version, "key": "k", "value": "v"},
        ("model_version_tag", "deleted"): {**version, "key": "k"},
        ("model_version_alias", "created"): {**version, "alias": "champion"},
        ("model_version_alias", "deleted"): {"name": "churn", "alias": "champion"},
    }
    assert all(datetime.fromisoformat(it["timestamp"]).tzinfo is not None for it in told)


def test_a_pending_version_is_told_of_once_it_is_ready(client: Client, receiver: Receiver) -> None:
    new_webhook(client, receiver.url, events=[ALL_EVENTS[1]])
    new_model(client)
    body = {"name": "churn", "source": "s3://b/m", "status": "PENDING_REGISTRATION"}
    client.done("POST", "model-versions/create", body)
    body = {"name": "churn", "source": "s3://b/other"}
    client.done("POST", "model-versions/create", body)
    assert receiver.next().told["data"]["version"] == "2"
    ended = {"name": "churn", "version": "1", "status": "READY"}
    client.done("PATCH", "model-versions/update", ended)
    assert receiver.next().told["data"]["version"] == "1"


def test_a_refused_call_is_no_event(client: Client, served: Served, receiver: Receiver) -> None:
    new_webhook(client, receiver.url)
    assert client.call("POST", "registered-models/create", {"name": ""}).status_code == 400
    served.webhooks.queue.close(20)
    assert receiver.rest() == []


def test_a_disabled_webhook_and_one_of_other_events_are_not_told(
    client: Client, served: Served, receiver: Receiver
) -> None:
    new_webhook(client, receiver.url, status="DISABLED")
    new_webhook(client, receiver.url, events=[ALL_EVENTS[2]])
    new_model(client)
    served.webhooks.queue.close(20)
    assert receiver.rest() == []


def test_deliveries_are_signed_and_the_secret_is_never_returned(
    client: Client, receiver: Receiver
) -> None:
    made = new_webhook(client, receiver.url, secret=SECRET)
    path = f"webhooks/{made['webhook_id']}"
    answers = [
        client.call("GET", path).text,
        client.call("GET", "webhooks").text,
        client.call("PATCH", path, {"name": "renamed"}).text,
        json.dumps(made),
    ]
    assert not any("secret" in answer for answer in answers)
    new_model(client)
    found = receiver.next()
    assert found.is_signed_by(SECRET)
    assert not found.is_signed_by("another")
    client.done("PATCH", path, {"secret": "another"})
    new_model(client, "second")
    assert receiver.next().is_signed_by("another")
    client.done("PATCH", path, {"secret": ""})
    new_model(client, "third")
    assert "X-MLflow-Signature" not in receiver.next().headers


def test_a_delivery_is_tried_again_under_the_same_id(client: Client, receiver: Receiver) -> None:
    new_webhook(client, receiver.url)
    for status in (503, 429):
        receiver.answers.put(status)
    new_model(client)
    tries = [receiver.next() for _ in range(3)]
    assert len({it.headers["X-MLflow-Delivery-Id"] for it in tries}) == 1
    assert len({it.body for it in tries}) == 1


class AwayOnce(MemoryWebhookStore):
    """A store that is away the first time that it is asked for all webhooks."""

    def __init__(self) -> None:
        super().__init__()
        self.n_asked = 0

    def list_webhooks(self) -> Sequence[Webhook]:
        self.n_asked += 1
        if self.n_asked == 1:
            raise StoreUnavailableError("the database is away")
        return super().list_webhooks()


def test_an_event_waits_for_a_store_that_is_away(served: Served, receiver: Receiver) -> None:
    store = AwayOnce()
    client = client_of(tracking_app(served_with(served, store)))
    store.n_asked = 1
    new_webhook(client, receiver.url)
    store.n_asked = 0
    new_model(client)
    assert receiver.next().told["data"]["name"] == "churn"


def served_with(served: Served, store: MemoryWebhookStore) -> Served:
    return replace(served, webhooks=replace(served.webhooks, store=store))


@pytest.mark.parametrize(("status", "n_tries"), [(500, 3), (400, 1), (302, 1), (410, 1)])
def test_tries_end(
    client: Client, served: Served, receiver: Receiver, status: int, n_tries: int
) -> None:
    new_webhook(client, receiver.url)
    for _ in range(n_tries):
        receiver.answers.put(status)
    new_model(client)
    tries = [receiver.next() for _ in range(n_tries)]
    served.webhooks.queue.close(20)
    assert len(tries + receiver.rest()) == n_tries
    assert receiver.answers.empty()


def test_a_receiver_that_does_not_answer_holds_nobody_up(
    client: Client, receiver: Receiver
) -> None:
    new_webhook(client, receiver.url)
    receiver.may_answer.clear()
    for number in range(6):
        new_model(client, f"model {number}")
    receiver.may_answer.set()
    names = {receiver.next().told["data"]["name"] for _ in range(6)}
    assert names == {f"model {number}" for number in range(6)}


def test_a_webhook_is_changed_field_by_field_and_its_url_checked(
    client: Client, receiver: Receiver
) -> None:
    made = new_webhook(client, receiver.url, description="of ours")
    path = f"webhooks/{made['webhook_id']}"
    changed = client.done("PATCH", path, {"status": 2, "events": ALL_EVENTS[:1]})["webhook"]
    kept = ("webhook_id", "name", "url", "description", "creation_timestamp")
    assert {key: changed[key] for key in kept} == {key: made[key] for key in kept}
    assert (changed["status"], changed["events"]) == ("DISABLED", ALL_EVENTS[:1])
    wrong: list[Json] = [
        {"url": "http://10.0.0.1/"},
        {"name": ""},
        {"events": []},
        {"status": "GONE"},
    ]
    for body in wrong:
        assert client.call("PATCH", path, body).status_code == 400
    assert client.done("GET", path)["webhook"] == changed
    client.done("DELETE", path)
    assert [client.call(how, path).status_code for how in ("GET", "DELETE")] == [404, 404]


def test_what_no_webhook_can_be_is_refused(client: Client) -> None:
    refusal(client, name="")
    refusal(client, events=[])
    refusal(client, events=[{"entity": "MODEL_VERSION"}])
    message = refusal(client, events=[{"entity": "MODEL_VERSION_TAG", "action": "CREATED"}])
    assert "SET" in message
    assert "REGISTERED_MODEL" in refusal(client, events=[{"entity": "PROMPT", "action": "SET"}])


def test_pages_hold_each_webhook_once(client: Client, receiver: Receiver) -> None:
    made = [new_webhook(client, receiver.url, name=f"w{number}") for number in range(3)]
    seen, token = [], None
    while True:
        page = client.done("GET", "webhooks", max_results=1, page_token=token)
        seen += [it["webhook_id"] for it in page["webhooks"]]
        token = page.get("next_page_token")
        if token is None:
            break
    assert sorted(seen) == sorted(it["webhook_id"] for it in made)


def test_a_secret_decrypts_for_its_webhook_and_by_its_key_alone(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    secrets = WebhookSecrets(key_file)
    sealed = secrets.seal(SECRET, "w-1")
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert WebhookSecrets(key_file).unseal(sealed, "w-1") == SECRET
    assert secrets.seal(SECRET, "w-1") != sealed
    for others, webhook_id in ((secrets, "w-2"), (WebhookSecrets(tmp_path / "other"), "w-1")):
        with pytest.raises(ConfigError, match="another key"):
            others.unseal(sealed, webhook_id)
    key_file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        secrets.unseal(sealed, "w-1")
    with pytest.raises(ConfigError, match="cannot be kept"):
        WebhookSecrets(tmp_path / "no folder" / "key").seal(SECRET, "w-1")


def test_a_delivery_outlives_a_killed_server_under_its_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    options = ("--webhook-allowed-hosts", "localhost")
    receiver.answers.put(503)
    with serving(tmp_path, *options) as server:
        with httpx.Client(base_url=server.url) as http:
            new_webhook(Client(http), receiver.url)
            new_model(Client(http))
        first = receiver.next()
        with closing(sqlite3.connect(tmp_path / "sparkscore.db")) as database:
            while database.execute("SELECT n_failed FROM deliveries").fetchall() != [(1,)]:
                threading.Event().wait(0.01)
        server.process.kill()
        server.process.wait()
    assert receiver.rest() == []
    with serving(tmp_path, *options):
        again = receiver.next()
    name = "X-MLflow-Delivery-Id"
    assert (again.headers[name], again.body) == (first.headers[name], first.body)


def test_mlflows_client_makes_webhooks_and_a_stop_loses_none_of_their_deliveries(
    tmp_path: Path, receiver: Receiver
) -> None:
    python = os.environ["SPARKSCORE_MLFLOW_PYTHON"]
    with serving(tmp_path, "--webhook-allowed-hosts", "localhost") as server:
        script = Path(__file__).with_name("mlflow_webhooks.py")
        done = subprocess.run(
            [python, "-W", "ignore", str(script), server.url, receiver.url],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "listed": [["deploy"], ["other"], ""],
            "events": ["registered_model.created", "model_version_alias.created"],
            "got": ["deploy", receiver.url, "of the release", "ACTIVE", None],
            "disabled": "DISABLED",
            "tested": [True, 200, "heard"],
            "left": ["deploy"],
        }
        test, event = receiver.next(), receiver.next()
        assert test.is_signed_by("whsec")
        assert event.is_signed_by("whsec")
        assert event.told["data"] == {"name": "churn", "tags": {"a": "b"}, "description": "d"}
        assert not any(b"whsec" in file.read_bytes() for file in tmp_path.glob("*.db*"))
        key_file = tmp_path / "sparkscore.db.webhook-key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        _stop_while_it_delivers(server.url, server.process, receiver)


def _stop_while_it_delivers(url: str, process: subprocess.Popen[str], receiver: Receiver) -> None:
    """More events than threads that deliver them, to a receiver that answers after the stop."""
    receiver.may_answer.clear()
    names = {f"model {number}" for number in range(6)}
    for name in names:
        answer = httpx.post(f"{url}/api/2.0/mlflow/registered-models/create", json={"name": name})
        assert answer.status_code == 200
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):  # it would be gone within a quarter of that
        process.wait(timeout=1)
    receiver.may_answer.set()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert {it.told["data"]["name"] for it in receiver.rest()} == names
