from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import ServerProcess, serving


def test_it_answers_and_stops_cleanly_when_it_is_told_to(tmp_path: Path) -> None:
    for how, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with serving(tmp_path) as server:
            assert httpx.get(f"{server.url}/health").text == "OK"
            server.process.send_signal(how)
            assert server.process.wait(timeout=20) == code
            assert server.process.stderr is not None
            assert "Traceback" not in server.process.stderr.read()


def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    url = "/api/2.0/mlflow/experiments/create"
    with serving(tmp_path) as server:
        made = [
            httpx.post(server.url + url, json={"name": f"e{n}"}).json()["experiment_id"]
            for n in range(5)
        ]
        server.process.kill()
        server.process.wait(timeout=20)
    with serving(tmp_path) as server:
        for n, experiment_id in enumerate(made):
            found = httpx.get(
                f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id={experiment_id}"
            )
            assert found.json()["experiment"]["name"] == f"e{n}"


def test_several_workers_answer_from_the_same_stores(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        url = f"{server.url}/api/2.0/mlflow/experiments"
        for n in range(4):
            # A connection each, so that both processes get some.
            made = httpx.post(f"{url}/create", json={"name": f"e{n}"}, timeout=60)
            assert made.status_code == 200
            found = httpx.get(f"{url}/get-by-name?experiment_name=e{n}", timeout=60)
            assert found.json()["experiment"]["name"] == f"e{n}"
        server.process.terminate()
        assert server.process.wait(timeout=20) == 143


def test_a_refusal_is_heard_by_a_client_that_is_still_sending(tmp_path: Path) -> None:
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        large = b"x" * 30_000_000
        answer = client.put("/api/2.0/mlflow-artifacts/artifacts/a/..%2f..%2fx", content=large)
        assert answer.status_code == 400
        body = b'{"name": "' + large + b'"}'
        headers = {"content-type": "application/json"}
        url = "/api/2.0/mlflow/experiments/create"
        assert client.post(url, content=body, headers=headers).status_code == 413
        in_chunks = iter([body[:5_000_000]])
        assert client.post(url, content=in_chunks, headers=headers).status_code == 413
        assert client.get("/health").text == "OK"


def refused(folder: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sparkscore.cli", "server", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_port_that_is_taken_is_told_with_one_that_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, told = refused(tmp_path, "--port", str(port))
    assert code == 75
    assert f"port {port} of '127.0.0.1' is in use" in told
    assert "--port" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--host", "0.0.0.0"), "--insecure-no-auth"),
        (("--host", "no.such.host.example"), "--insecure-no-auth"),
        (("--static-prefix", "tracking"), "begin it with '/'"),
        (("--backend-store-uri", "nosql://x"), "tracking.uri"),
        (("--artifacts-destination", "gopher://x"), "artifacts.uri"),
        (("--backend-store-uri", "http://127.0.0.1:5000"), "a server needs a database"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    code, words = refused(tmp_path, "--port", "0", *options)
    assert code == 2
    assert told in words
    assert "Traceback" not in words


def test_files_of_new_experiments_lie_where_the_option_says(tmp_path: Path) -> None:
    with serving(tmp_path, "--default-artifact-root", "s3://bucket/root") as server:
        assert location_of_new_experiment(server) == "s3://bucket/root/1"


def location_of_new_experiment(server: ServerProcess) -> str:
    url = f"{server.url}/api/2.0/mlflow/experiments"
    made = httpx.post(f"{url}/create", json={"name": "new"}).json()["experiment_id"]
    found = httpx.get(f"{url}/get?experiment_id={made}").json()
    location: str = found["experiment"]["artifact_location"]
    return location
