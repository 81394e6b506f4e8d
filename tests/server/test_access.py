from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from sparkscore.accounts import (
    Grant,
    Resource,
    Role,
    Token,
    hash_password,
    new_token,
    parse_role,
    password_fits,
)
from sparkscore.cli import main
from sparkscore.errors import RecordNotFoundError, UsageError
from sparkscore.names import ExperimentName, ModelName, RunId
from sparkscore.records import VersionStatus
from sparkscore.server.calls import Served
from sparkscore.server.decisions import DECISIONS
from sparkscore.server.guarded_app import guarded_app
from sparkscore.server.webhook_secrets import WebhookSecrets
from sparkscore.server.webhooks import Webhooks
from sparkscore.stores.audit_chain import all_entries, broken_at
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.sql import SqlAccountStore, open_sql
from sparkscore.testing.clock import ticking_clock
from sparkscore.wire.routes import Route, all_routes
from sparkscore.wire.shapes import Kind, Member, Shape
from tests.server.conftest import InProcess

PASSWORD = "correct horse battery"
PASSWORD_HASH = hash_password(PASSWORD)
OURS = ((Resource.EXPERIMENT, "1"), (Resource.MODEL, "model"))
THEIRS = ((Resource.EXPERIMENT, "2"), (Resource.MODEL, "secret"))
NOW = 1_700_000_000_000
# What a route asks for, once more and by itself: the least role, and for what.
NEEDED = {
    "anybody": """create_experiment create_registered_model get_server_info search_experiments
        search_registered_models search_versions""",
    "experiment read": """get_experiment get_experiment_by_name search_runs search_datasets
        search_logged_models get_run get_metric_history get_metric_history_bulk
        get_metric_history_bulk_interval list_artifacts get_run_artifact list_stored_artifacts
        get_stored_artifact get_presigned_url get_presigned_download_url get_logged_model
        list_logged_model_artifacts get_logged_model_artifact""",
    "experiment log": """create_run create_logged_model update_run delete_run restore_run log_param
        set_tag delete_tag log_model log_inputs log_outputs upload_run_artifact log_metric
        log_batch finish_logged_model delete_logged_model set_logged_model_tags
        delete_logged_model_tag log_logged_model_params get_presigned_upload_url
        put_stored_artifact put_artifact_part delete_stored_artifact start_multipart_upload
        complete_multipart_upload abort_multipart_upload""",
    "experiment admin": """delete_experiment restore_experiment update_experiment
        set_experiment_tag delete_experiment_tag purge_experiment purge_run
        purge_logged_model""",
    "model read": """get_registered_model get_latest_versions get_version get_version_by_alias
        get_download_uri get_version_artifact""",
    "model register": """create_version update_registered_model set_registered_model_tag
        delete_registered_model_tag update_version set_version_tag delete_version_tag""",
    "model promote": "set_alias delete_alias move_version",
    "model admin": "rename_registered_model delete_registered_model delete_version",
    "administrators": """create_webhook list_webhooks get_webhook update_webhook delete_webhook
        test_webhook""",
}
NEEDED_BY_ROUTE = {name: need for need, names in NEEDED.items() for name in names.split()}
KNOWN = {
    "experiment_id": "1",
    "experiment_ids": ["1"],
    "experiment_name": "ours",
    "run_id": "run",
    "run_ids": ["run"],
    "model_id": "m-1",
    "name": "model",
    "version": "1",
    "source": "s3://elsewhere/model",
    "path": "1/run/artifacts/file",
    "folder": "1/run/artifacts",
}


@dataclass
class House:
    served: Served
    accounts: SqlAccountStore
    folder: Path
    now: int = NOW

    def client(self, auth: httpx.Auth | tuple[str, str] | None = None) -> httpx.Client:
        app = guarded_app(replace(self.served, clock=lambda: self.now), self.accounts)
        return httpx.Client(transport=InProcess(app), base_url="http://localhost", auth=auth)

    def user(self, name: str, *grants: Grant) -> None:
        self.accounts.create_user(name, PASSWORD_HASH)
        for grant in grants:
            self.accounts.set_grant(name, grant)

    def token(self, user: str, role: Role = Role.ADMIN, expires_ms: int = NOW + 1) -> str:
        text, token_id, digest = new_token()
        self.accounts.add_token(Token(token_id, user, digest, role, NOW, expires_ms))
        return text


class Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["authorization"] = f"Bearer {self._token}"
        yield request


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two of everything, and users with each role for the first of them."""
    file = tmp_path_factory.mktemp("template") / "records.db"
    stores = open_sql(f"sqlite:///{file}", "mlflow-artifacts:", ticking_clock())
    for name in ("ours", "theirs"):
        stores.runs.create_experiment(ExperimentName(name))
    for experiment_id, run_id, model_id in (("1", "run", "m-1"), ("2", "other", "m-2")):
        stores.runs.create_run(
            experiment_id, run_id=RunId(run_id), run_name="r", user_id="", start_time_ms=1
        )
        stores.logged_models.create_logged_model(experiment_id, model_id=model_id, name="m")
    for name in ("model", "secret"):
        stores.models.create_model(ModelName(name))
        stores.models.create_version(ModelName(name), source="s3://elsewhere/model")
        stores.models.finish_version(ModelName(name), 1, VersionStatus.READY, digest="a" * 64)
    for user in ("nobody", "stranger", "root", *map(str, Role)):
        stores.accounts.create_user(user, PASSWORD_HASH, is_admin=user == "root")
    for role in Role:
        for kind, name in OURS:
            stores.accounts.set_grant(str(role), Grant(kind, name, role))
    for kind, name in THEIRS:
        stores.accounts.set_grant("stranger", Grant(kind, name, Role.ADMIN))
    stores.close()
    return file


@pytest.fixture
def house(template: Path, tmp_path: Path) -> House:
    file = shutil.copy(template, tmp_path / "records.db")
    stores = open_sql(f"sqlite:///{file}", "mlflow-artifacts:", ticking_clock())
    served = Served(
        stores.runs,
        stores.models,
        stores.logged_models,
        LocalArtifactStore(tmp_path / "files"),
        Webhooks(stores.webhooks, WebhookSecrets(tmp_path / "webhook-key")),
    )
    return House(served, stores.accounts, tmp_path)


def _value(member: Member) -> object:
    if member.name in KNOWN:
        found = KNOWN[member.name]
        return [found] if member.repeated and not isinstance(found, list) else found
    if member.kind is Kind.SHAPE:
        assert member.shape is not None
        value: object = _object(member.shape)
    elif member.kind is Kind.ENUM:
        value = next(iter(member.numbers))
    else:
        value = {Kind.INT64: 1, Kind.REAL: 0.5, Kind.FLAG: True}.get(member.kind, "x1")
    return [value] if member.repeated else value


def _object(shape: Shape) -> dict[str, object]:
    return {it.name: _value(it) for it in shape.members if it.required or it.name in KNOWN}


def _ask(client: httpx.Client, route: Route) -> httpx.Response:
    fields = _object(route.request)
    path = route.url_path
    for name in list(fields):
        for form in (f"{{{name}}}", f"{{{name}:path}}"):
            if form in path:
                path = path.replace(form, str(fields.pop(name)))
    if route.method == "GET" or route.is_raw:
        content = b"x" if route.method != "GET" else None
        return client.request(route.method, path, params=fields, content=content)  # type: ignore[arg-type]
    return client.request(route.method, path, json=fields)


ROUTES = pytest.mark.parametrize("route", list(all_routes().values()), ids=lambda it: it.name)


def test_every_route_has_a_decision_and_nothing_else_has() -> None:
    assert set(DECISIONS) == set(all_routes()) == set(NEEDED_BY_ROUTE)


@ROUTES
def test_a_route_lets_in_those_who_have_its_role_and_nobody_else(
    house: House, route: Route
) -> None:
    need = NEEDED_BY_ROUTE[route.name]
    assert _ask(house.client(), route).status_code == 401
    for user in ("nobody", "stranger", *map(str, Role), "root"):
        status = _ask(house.client(Bearer(house.token(user))), route).status_code
        assert status not in (401, 500)
        assert (status != 403) is _is_let_in(user, need), (user, status)


def _is_let_in(user: str, need: str) -> bool:
    if user == "root" or need == "anybody":
        return True
    if need == "administrators" or user in ("nobody", "stranger"):
        return False
    return parse_role(user) >= parse_role(need.split()[1])


@ROUTES
def test_a_token_does_no_more_than_it_was_made_for(house: House, route: Route) -> None:
    status = _ask(house.client(Bearer(house.token("root", Role.READ))), route).status_code
    need = NEEDED_BY_ROUTE[route.name]
    is_read = need.endswith("read") or (need == "anybody" and not route.name.startswith("create"))
    assert (status != 403) is is_read


@pytest.mark.parametrize("path", ["/", "/experiments/1", "/runs/run", "/models/model", "/docs"])
def test_pages_are_for_those_who_may_read_everything(house: House, path: str) -> None:
    house.user("some", *(Grant(kind, name, Role.ADMIN) for kind, name in OURS))
    house.user("all", *(Grant(kind, "*", Role.READ) for kind in Resource))
    assert house.client().get(path).status_code == 401
    assert house.client(("all", PASSWORD)).get(path).status_code == 200
    assert house.client(("some", PASSWORD)).get(path).status_code == (
        200 if path == "/docs" else 403
    )
    assert house.client().get("/health").status_code == 200


def test_lists_leave_out_what_may_not_be_read(house: House) -> None:
    house.user("some", *(Grant(kind, name, Role.READ) for kind, name in OURS))
    client = house.client(("some", PASSWORD))
    base = "/api/2.0/mlflow"
    found = client.post(f"{base}/experiments/search", json={}).json()["experiments"]
    assert [it["name"] for it in found] == ["ours"]
    found = client.get(f"{base}/registered-models/search").json()["registered_models"]
    assert [it["name"] for it in found] == ["model"]
    found = client.get(f"{base}/model-versions/search").json()["model_versions"]
    assert [it["name"] for it in found] == ["model"]


def test_files_of_other_experiments_and_of_none_are_closed(house: House) -> None:
    house.user("some", *(Grant(kind, name, Role.LOG) for kind, name in OURS))
    client = house.client(("some", PASSWORD))
    base = "/api/2.0/mlflow-artifacts/artifacts"
    assert client.put(f"{base}/1/run/artifacts/a", content=b"1").status_code == 200
    for path in ("2/other/artifacts/a", "models/model/1/MLmodel", "1%2f..%2f2/a"):
        assert client.put(f"{base}/{path}", content=b"1").status_code in (400, 403), path
    assert client.get(base, params={"path": ""}).status_code == 403
    source = {"name": "model", "source": "mlflow-artifacts:/2/other/artifacts/m"}
    house.accounts.set_grant("some", Grant(Resource.MODEL, "model", Role.ADMIN))
    url = "/api/2.0/mlflow/model-versions/create"
    assert client.post(url, json=source).status_code == 403


@pytest.mark.parametrize("made_by", [{"run_id": "other"}, {"model_id": "m-2"}])
def test_versions_are_not_made_of_what_may_not_be_read(
    house: House, made_by: dict[str, str]
) -> None:
    house.user("some", *(Grant(kind, name, Role.ADMIN) for kind, name in OURS))
    asked = {"name": "model", "source": "s3://elsewhere/model", **made_by}
    client = house.client(("some", PASSWORD))
    assert client.post("/api/2.0/mlflow/model-versions/create", json=asked).status_code == 403


def test_whoever_makes_something_administers_it_and_grants_follow(house: House) -> None:
    house.user("ann")
    client = house.client(("ann", PASSWORD))
    base = "/api/2.0/mlflow"
    made = client.post(f"{base}/experiments/create", json={"name": "hers"}).json()
    experiment = Grant(Resource.EXPERIMENT, made["experiment_id"], Role.ADMIN)
    client.post(f"{base}/registered-models/create", json={"name": "a"})
    names = {"name": "a", "new_name": "b"}
    assert client.post(f"{base}/registered-models/rename", json=names).status_code == 200
    model = Grant(Resource.MODEL, "b", Role.ADMIN)
    assert list(house.accounts.grants_of("ann")) == [experiment, model]
    client.request("DELETE", f"{base}/registered-models/delete", json={"name": "b"})
    assert list(house.accounts.grants_of("ann")) == [experiment]


def test_wrong_credentials_are_refused_and_many_of_them_have_to_wait(house: House) -> None:
    house.user("ann")
    url = "/api/2.0/mlflow/experiments/get?experiment_id=1"
    client = house.client()
    for given in (
        "",
        "Basic",
        "Basic !",
        "Basic /////w==",
        "Bearer x",
        "Bearer sst_a_b",
        "Digest x",
    ):
        answer = client.get(url, headers={"authorization": given})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert answer.json()["error_code"] == "UNAUTHENTICATED"
    for _ in range(10):
        assert client.get(url, auth=("ann", "wrong")).status_code == 401
    answer = client.get(url, auth=("ann", PASSWORD))
    assert (answer.status_code, int(answer.headers["retry-after"]) <= 60) == (429, True)
    assert client.get(url, auth=("eve", "wrong")).status_code == 401


def test_expired_tokens_changed_passwords_and_removed_users_are_out_at_once(house: House) -> None:
    house.user("ann", Grant(Resource.EXPERIMENT, "1", Role.READ))
    url = "/api/2.0/mlflow/experiments/get?experiment_id=1"
    token = house.token("ann", expires_ms=NOW + 10)
    client = house.client()

    def status(auth: httpx.Auth | tuple[str, str]) -> int:
        return client.get(url, auth=auth).status_code

    assert (status(Bearer(token)), status(("ann", PASSWORD))) == (200, 200)
    house.now += 10
    client = house.client()
    assert status(Bearer(token)) == 401
    assert status(("ann", PASSWORD)) == 200
    house.accounts.change_user("ann", password_hash=hash_password("another long password"))
    assert status(("ann", PASSWORD)) == 401
    fresh = house.token("ann", expires_ms=NOW + 100)
    assert status(Bearer(fresh)) == 200
    house.accounts.delete_user("ann")
    assert status(Bearer(fresh)) == 401


def test_the_trail_tells_what_was_changed_and_refused_and_cannot_be_rewritten(
    house: House,
) -> None:
    house.user("eve")
    base = "/api/2.0/mlflow"
    client = house.client(("root", PASSWORD))
    alias = {"name": "model", "alias": "champion", "version": "1"}
    assert client.post(f"{base}/registered-models/alias", json=alias).status_code == 200
    metric = {"run_id": "run", "key": "m", "value": 1, "timestamp": 1}
    assert client.post(f"{base}/runs/log-metric", json=metric).status_code == 200
    refused = house.client(("eve", PASSWORD)).post(
        f"{base}/experiments/delete", json={"experiment_id": "1"}
    )
    assert refused.status_code == 403
    assert "users grant eve" in refused.json()["message"]
    trail = list(all_entries(house.accounts))
    assert [(it.actor, it.action, it.status) for it in trail] == [
        ("root", "set_alias", 200),
        ("eve", "delete_experiment", 403),
    ]
    assert '"alias": "champion"' in trail[0].subject
    assert broken_at(trail) is None
    assert broken_at(trail[1:]) == 1
    assert broken_at([replace(trail[0], actor="eve"), trail[1]]) == 1
    assert broken_at([trail[0], replace(trail[1], status=200)]) == 2
    with closing(sqlite3.connect(house.folder / "records.db")) as connection:
        for statement in ("UPDATE audit SET actor = 'eve'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
                connection.execute(statement)


def test_passwords_are_kept_as_digests_and_must_be_long() -> None:
    assert PASSWORD not in PASSWORD_HASH
    assert password_fits(PASSWORD, PASSWORD_HASH)
    assert not password_fits(PASSWORD + "x", PASSWORD_HASH)
    assert hash_password(PASSWORD) != PASSWORD_HASH
    for bad in ("short", "x" * 2000):
        with pytest.raises(UsageError, match="password"):
            hash_password(bad)


def test_the_commands_make_users_tokens_and_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARKSCORE__TRACKING__URI", f"sqlite:///{tmp_path}/r.db")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    assert main(["server", "--host", "0.0.0.0"]) == 2
    assert "users create NAME --admin" in capsys.readouterr().err
    assert main(["users", "create", "ann", "--password-file", "password"]) == 0
    assert main(["users", "create", "ann", "--password-file", "password"]) == 2
    assert main(["users", "grant", "ann", "log", "--experiment", "0"]) == 0
    assert main(["users", "grant", "ann", "boss", "--experiment", "*"]) == 2
    assert main(["users", "grant", "ann", "read", "--experiment", "7"]) == 2
    assert main(["users", "grant", "ann", "read"]) == 2
    capsys.readouterr()
    assert main(["users", "show", "ann", "-o", "json"]) == 0
    assert '"log on experiment 0"' in capsys.readouterr().out
    assert main(["tokens", "create", "ann", "--role", "read", "--days", "1"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["tokens", "list", "ann", "-o", "json"]) == 0
    told = capsys.readouterr().out
    assert token.split("_")[1] in told
    assert token.split("_", 2)[2] not in told
    assert main(["tokens", "delete", token.split("_")[1]]) == 0
    assert main(["users", "revoke", "ann", "--experiment", "0"]) == 0
    assert main(["users", "password", "ann", "--password-file", "password"]) == 0
    assert main(["users", "delete", "ann"]) == 0
    assert main(["users", "show", "ann"]) == RecordNotFoundError.exit_code
    capsys.readouterr()
    assert main(["audit", "verify"]) == 0
    assert len(capsys.readouterr().out.strip()) == 64
    assert main(["audit", "list", "-o", "json"]) == 0
    assert "users password" in capsys.readouterr().out
