from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sparkscore.cli import main
from tests.server.conftest import ServerProcess, serving


def test_it_answers_and_stops_cleanly_when_it_is_told_to(tmp_path: Path) -> None:
    for how, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with serving(tmp_path) as server:
            assert httpx.get(f"{server.url}/health").text == "OK"
            server.process.send_signal(how)
            assert server.process.wait(timeout=20) == code
            assert server.process.stderr is not None
            assert "Traceback" not in server.process.stderr.read()


def test_nothing_that_was_answered_is_lost_by_a_kill_and_nothing_is_torn(tmp_path: Path) -> None:
    url = "/api/2.0/mlflow/runs"
    n_writers, n_points = 8, 10
    with serving(tmp_path) as server:
        body = {"experiment_id": "0"}
        runs = [
            httpx.post(f"{server.url}{url}/create", json=body).json()["run"]["info"]["run_id"]
            for _ in range(n_writers)
        ]
        answered = dict.fromkeys(runs, 0)
        enough = threading.Event()

        def write(run_id: str) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                for step in range(10_000):
                    points = [
                        {"key": f"m{n}", "value": step, "timestamp": step, "step": step}
                        for n in range(n_points)
                    ]
                    body = {"run_id": run_id, "metrics": points}
                    try:
                        answer = client.post(f"{url}/log-batch", json=body)
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200, answer.text
                    answered[run_id] = step + 1
                    if min(answered.values()) >= 5:
                        enough.set()

        with ThreadPoolExecutor(n_writers) as pool:
            writing = [pool.submit(write, run_id) for run_id in runs]
            assert enough.wait(60)
            server.process.kill()
            for one in writing:
                one.result()
        server.process.wait(timeout=20)
    with serving(tmp_path) as server:
        for run_id, n_answered in answered.items():
            counts = {len(history_of(server, run_id, f"m{n}")) for n in range(n_points)}
            # All points of a request or none; the last request may have been done unanswered.
            assert counts in ({n_answered}, {n_answered + 1})


def history_of(server: ServerProcess, run_id: str, key: str) -> list[object]:
    ask = {"run_id": run_id, "metric_key": key}
    answer = httpx.get(f"{server.url}/api/2.0/mlflow/metrics/get-history", params=ask)
    points: list[object] = answer.json()["metrics"]
    return points


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


def test_workers_end_when_the_process_that_made_them_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert client.get("/health").text == "OK"
        server.process.kill()
        server.process.wait(timeout=20)
        # Each worker closes the socket that they share; a last connection may wait in its queue.
        assert any(is_refused(server.url) for _ in range(1000))


def is_refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", timeout=0.05)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


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


def test_callers_are_asked_who_they_are_by_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("correct horse battery\n")
    assert main(["users", "create", "ann", "--admin", "--password-file", "password"]) == 0
    known, path = ("ann", "correct horse battery"), "/api/2.0/mlflow/experiments/get"
    with serving(tmp_path, "--auth", "--workers", "2") as server:
        for auth, status in ((None, 401), (("ann", "wrong"), 401), (known, 200)):
            for _ in range(4):
                asked = httpx.get(f"{server.url}{path}?experiment_id=0", auth=auth, timeout=60)
                assert asked.status_code == status
        found = httpx.get(f"{server.url}{path}?experiment_id=0", auth=known).json()["experiment"]
        # The database was made by the command, before it had a server.
        assert found["artifact_location"] == "mlflow-artifacts:/0"
        assert httpx.get(f"{server.url}/health").text == "OK"


def test_a_port_that_is_taken_is_told_with_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["server", "--port", str(port)]) == 75
    told = capsys.readouterr().err
    assert f"port {port} of '127.0.0.1' is in use" in told
    assert "--port" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--host", "0.0.0.0"), "users create NAME --admin"),
        (("--host", "no.such.host.example"), "users create NAME --admin"),
        (("--static-prefix", "tracking"), "begin it with '/'"),
        (("--backend-store-uri", "nosql://x"), "tracking.uri"),
        (("--artifacts-destination", "gopher://x"), "artifacts.uri"),
        (("--backend-store-uri", "http://127.0.0.1:5000"), "a server needs a database"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ui", "--port", "0", *options]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_files_of_new_experiments_lie_where_the_option_says(tmp_path: Path) -> None:
    with serving(tmp_path, "--default-artifact-root", "s3://bucket/root") as server:
        assert location_of_new_experiment(server) == "s3://bucket/root/1"


def location_of_new_experiment(server: ServerProcess) -> str:
    url = f"{server.url}/api/2.0/mlflow/experiments"
    made = httpx.post(f"{url}/create", json={"name": "new"}).json()["experiment_id"]
    found = httpx.get(f"{url}/get?experiment_id={made}").json()
    location: str = found["experiment"]["artifact_location"]
    return location
