"""The tracking server beside MLflow's: how many points a second, how fast pages, how much memory.

Both as they come, on SQLite and a folder, in turn on the same machine; the requests are the same,
raw HTTP over connections that stay open. The many runs of the searches are copies of one that was
logged by REST, written into each database by SQL. The table on stdout is Markdown.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.parse import urlencode

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
N_CLIENTS = (1, 8, 32)
N_PER_PAGE = 50
N_PAGES = 20
ENOUGH_S = 10
SEARCHES: Mapping[str, Mapping[str, object]] = {
    "newest first": {},
    "by a metric": {"order_by": ["metrics.m3 DESC"]},
    "filtered": {"filter": "metrics.m5 > 0.5 AND params.p1 != '7'"},
}
START_WITHIN_S = 180
MIB = 2**20


@dataclass(frozen=True)
class Contender:
    """A server, by what starts it; its folder is the working directory."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """How much is measured: seconds a throughput and of memory, requests a page, MiB of a file."""

    seconds: float
    watch_s: float
    n_reads: int
    upload_mib: int
    sizes: tuple[int, ...]


class Client:
    """One connection that stays open; closed, the next request opens it again."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer as JSON.

        Raises:
            HTTPException: It is not 200.
        """
        data = None if body is None else json.dumps(body).encode()
        return self.send(method, path, data)

    def send(self, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        """The same with a body of bytes."""
        try:
            self._connection.request(method, path, data, {"Content-Type": "application/json"})
            return self._answer()
        except TimeoutError:
            self.close()
            raise

    def upload(self, path: str, n_mib: int) -> None:
        """Put a file of that many MiB, a block at a time."""
        block = random.Random(1).randbytes(MIB)
        headers = {
            "Content-Length": str(n_mib * MIB),
            "Content-Type": "application/octet-stream",
        }
        self._connection.request("PUT", path, (block for _ in range(n_mib)), headers)
        self._answer()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(self) -> dict[str, Any]:
        response = self._connection.getresponse()
        text = response.read()
        if response.status != HTTPStatus.OK:
            raise HTTPException(f"{response.status}: {text[:500]!r}")
        return json.loads(text) if text[:1] == b"{" else {}


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        start_s: From the start of its process to its first answer.
    """

    port: int
    process: subprocess.Popen[bytes]
    start_s: float

    def memory_mib(self) -> float:
        """What all of its processes hold, pages that they share counted once."""
        kib = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                session = int(stat.read_text().rpartition(")")[2].split()[3])
                if session != self.process.pid:
                    continue
                rollup = stat.with_name("smaps_rollup").read_text()
            except OSError:
                continue  # It ended meanwhile.
            kib += int(rollup.split("Pss:")[1].split()[0])
        return kib / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers-python", type=Path, required=True, help="With all of mlflow: skinny cannot serve."
    )
    parser.add_argument("--rounds", type=int, default=3, help="Turns of each server.")
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000], help="Or 100000.")
    parser.add_argument("--seconds", type=float, default=5, help="Of each throughput.")
    parser.add_argument("--watch-s", type=float, default=300, help="Of mixed load, for memory.")
    parser.add_argument("--reads", type=int, default=50, help="Requests of each page.")
    parser.add_argument("--upload-mib", type=int, default=1024, help="Size of the file.")
    parser.add_argument("--quick", action="store_true", help="One short round, and 128 MiB.")
    parser.add_argument("--folder", type=Path, help="Where all is written; default: /tmp.")
    args = parser.parse_args()
    sizes = tuple(args.runs)
    scope = Scope(args.seconds, args.watch_s, args.reads, args.upload_mib, sizes)
    if args.quick:
        scope = Scope(1, 5, 10, 128, sizes)
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-", dir=args.folder))
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    contenders = (_sparkscore(), _mlflow(args.peers_python.absolute()))
    try:
        experiments = {each.name: _prepare(each, folder / each.name, sizes) for each in contenders}
        for number in range(1 if args.quick else args.rounds):
            for each in contenders:
                note(f"round {number + 1}: {each.name}")
                with running(each, folder / each.name) as server:
                    for measure, value in _measures(server, scope, experiments[each.name]):
                        found[measure, each.name].append(value)
    finally:
        shutil.rmtree(folder)
    print(table(found, [each.name for each in contenders]))


def _sparkscore() -> Contender:
    command = (sys.executable, "-m", "sparkscore.cli", "server")
    return Contender("sparkscore", (*command, "--registry-store-uri", "sqlite:///records.db"))


def _mlflow(python: Path) -> Contender:
    return Contender("mlflow", (str(python), "-m", "mlflow", "server"))


@contextmanager
def running(contender: Contender, folder: Path) -> Iterator[Running]:
    """Serve the folder until the block ends."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    stores = ("--backend-store-uri", "sqlite:///records.db", "--artifacts-destination", "files")
    command = [*contender.command, *stores, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "server.log").open("ab") as log:
        started = perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not _is_healthy(port):
            if process.poll() is not None or perf_counter() - started > START_WITHIN_S:
                written = (folder / "server.log").read_text()[-2000:]
                raise RuntimeError(f"{contender.name} does not answer: {written}")
            sleep(0.02)
        yield Running(port, process, perf_counter() - started)
    finally:
        # Its workers too, which a server may leave behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_healthy(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False


def _prepare(contender: Contender, folder: Path, sizes: Sequence[int]) -> dict[int, str]:
    """A model with an alias, and an experiment for each number of runs, whose ids are returned."""
    note(f"fills {contender.name}")
    experiments = {}
    with running(contender, folder) as server, closing(Client(server.port)) as client:
        for n_runs in sizes:
            body = {"name": f"{n_runs} runs"}
            experiment_id = client.call("POST", f"{API}/experiments/create", body)["experiment_id"]
            experiments[n_runs] = experiment_id
            template = _new_run(client, experiment_id)
            log = {
                "run_id": template,
                "params": [{"key": f"p{i}", "value": "0"} for i in range(20)],
                "metrics": [_point(f"m{i}", 1) for i in range(20)],
            }
            client.call("POST", f"{API}/runs/log-batch", log)
            update = {"run_id": template, "status": "FINISHED", "end_time": 1_700_000_000_000}
            client.call("POST", f"{API}/runs/update", update)
            with closing(sqlite3.connect(folder / "records.db", timeout=60)) as database:
                _copy(database, template, n_runs - 1)
            client.close()  # The server has ended a connection that was idle for so long.
        _register(client, experiments[sizes[0]])
    return experiments


def _copy(database: sqlite3.Connection, template: str, n_copies: int) -> None:
    """Write copies of a run with values of their own, whatever the tables are called."""
    rng = random.Random(1)
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    for name in sorted(tables, key=lambda name: name != "runs"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
        owner = next((column for column in ("run_uuid", "run_id") if column in columns), None)
        if owner is None:
            continue
        query = f"SELECT * FROM {name} WHERE {owner} = ?"
        rows = [
            dict(zip(columns, row, strict=True)) for row in database.execute(query, (template,))
        ]
        ids = random.Random(template)  # the same in each table
        for i in range(n_copies):
            run_id = f"{ids.getrandbits(128):032x}"
            for row in rows:
                copy = {**row, owner: run_id}
                for column in {"start_time", "start_time_ms"} & row.keys():
                    copy[column] = 1_700_000_000_000 + i
                if isinstance(row.get("value"), float):
                    copy["value"] = rng.random()
                elif name == "params":
                    copy["value"] = str(rng.randrange(100))
                signs = ", ".join("?" * len(columns))
                database.execute(f"INSERT INTO {name} VALUES ({signs})", tuple(copy.values()))
    database.commit()


def _new_run(client: Client, experiment_id: str) -> str:
    body = {"experiment_id": experiment_id, "start_time": 1_700_000_000_000}
    run_id: str = client.call("POST", f"{API}/runs/create", body)["run"]["info"]["run_id"]
    return run_id


def _register(client: Client, experiment_id: str) -> None:
    run_id = _new_run(client, experiment_id)
    path = f"{experiment_id}/{run_id}/artifacts/model"
    client.send("PUT", f"{FILES}/{path}/MLmodel", b"flavors: {}\n")
    client.call("POST", f"{API}/registered-models/create", {"name": "bench"})
    version = {"name": "bench", "source": f"mlflow-artifacts:/{path}", "run_id": run_id}
    client.call("POST", f"{API}/model-versions/create", version)
    alias = {"name": "bench", "alias": "champion", "version": "1"}
    client.call("POST", f"{API}/registered-models/alias", alias)


def _measures(
    server: Running, scope: Scope, experiments: Mapping[int, str]
) -> Iterator[tuple[str, float]]:
    """What is measured of one server, by name."""
    yield "start until /health, s", server.start_s
    yield "memory then, MiB", server.memory_mib()
    experiment_id = next(iter(experiments.values()))
    n_errors = 0
    for what, n_points in (("log-batch of 100 points", 100), ("log-metric", 1)):
        for n_clients in N_CLIENTS:
            per_second, errors = _throughput(server, scope, experiment_id, n_points, n_clients)
            n_errors += errors
            yield f"{what}, {n_clients} clients, requests/s", per_second
    yield "errors among these requests", n_errors
    with closing(Client(server.port)) as client:
        query = urlencode({"name": "bench", "alias": "champion"})
        path = f"{API}/registered-models/alias?{query}"
        times = _timed(lambda: client.call("GET", path), scope.n_reads * 5)
        yield "alias, p50 ms", _at(times, 0.5)
        yield "alias, p99 ms", _at(times, 0.99)
        seconds, grown_mib = _upload(server, client, experiment_id, scope.upload_mib)
        yield f"upload of {scope.upload_mib} MiB, MiB/s", scope.upload_mib / seconds
        yield f"upload of {scope.upload_mib} MiB, memory more than before, MiB", grown_mib
    yield from _memory_over_time(server, scope, experiment_id)
    # Last, since some take minutes.
    for n_runs, id_ in experiments.items():
        for name, search in SEARCHES.items():
            body = {"experiment_ids": [id_], "max_results": N_PER_PAGE, **search}
            for page, times in _pages(server, body, scope.n_reads):
                yield f"search of {n_runs:,} runs, {name}, {page}, p50 ms", _at(times, 0.5)
                yield f"search of {n_runs:,} runs, {name}, {page}, p99 ms", _at(times, 0.99)


def _memory_over_time(
    server: Running, scope: Scope, experiment_id: str
) -> Iterator[tuple[str, float]]:
    """Memory before, in the middle and after a while of logging, searches and alias reads."""
    what = f"memory in {scope.watch_s:.0f} s of mixed load"
    search = {"experiment_ids": [experiment_id], "max_results": N_PER_PAGE}
    alias = f"{API}/registered-models/alias?{urlencode({'name': 'bench', 'alias': 'champion'})}"
    yield f"{what}, at its start, MiB", server.memory_mib()
    with closing(Client(server.port)) as client:
        run_id = _new_run(client, experiment_id)
        for moment in ("half-way", "at its end"):
            until, step = perf_counter() + scope.watch_s / 2, 0
            while perf_counter() < until:
                step += 1
                points = [_point(f"w{k}", step) for k in range(100)]
                client.call("POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": points})
                client.call("POST", f"{API}/runs/search", search)
                client.call("GET", alias)
            yield f"{what}, {moment}, MiB", server.memory_mib()


def _throughput(
    server: Running, scope: Scope, experiment_id: str, n_points: int, n_clients: int
) -> tuple[float, int]:
    """Requests a second that were done, and how many were not; each client logs to its own run."""
    done, failed = [0] * n_clients, [0] * n_clients
    ready = threading.Barrier(n_clients + 1)
    stop = threading.Event()
    path = "log-batch" if n_points > 1 else "log-metric"

    def log(i: int) -> None:
        with closing(Client(server.port)) as client:
            run_id = _new_run(client, experiment_id)
            client.close()  # Others may take longer than a server keeps an idle connection.
            ready.wait()
            step = 0
            while not stop.is_set():
                step += 1
                points = [_point(f"n{k}", step) for k in range(n_points)]
                body = {"metrics": points} if n_points > 1 else points[0]
                try:
                    client.call("POST", f"{API}/runs/{path}", {"run_id": run_id, **body})
                    done[i] += 1
                except (OSError, HTTPException):
                    failed[i] += 1
                    client.close()

    threads = [threading.Thread(target=log, args=(i,), daemon=True) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    started = perf_counter()
    sleep(scope.seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(done) / (perf_counter() - started), sum(failed)


def _point(key: str, step: int) -> dict[str, object]:
    value = random.random()
    return {"key": key, "value": value, "timestamp": 1_700_000_000_000 + step, "step": step}


def _pages(
    server: Running, body: Mapping[str, object], n_reads: int
) -> Iterator[tuple[str, list[float]]]:
    """Seconds of the first page and of the 20th, or of the last one where there are fewer.

    What does not come within two minutes counts as these.
    """
    path = f"{API}/runs/search"
    with closing(Client(server.port)) as client:
        yield "page 1", _timed(lambda: client.call("POST", path, body), n_reads)
    with closing(Client(server.port)) as client:
        deep = dict(body)
        with suppress(TimeoutError):
            deep = _deep(client, path, body)
        yield f"page {N_PAGES} or last", _timed(lambda: client.call("POST", path, deep), n_reads)


def _deep(client: Client, path: str, body: Mapping[str, object]) -> dict[str, object]:
    """The request for the 20th page, or for the last one."""
    deep = dict(body)
    for _ in range(N_PAGES - 1):
        token = client.call("POST", path, deep).get("next_page_token")
        if not token:
            break
        jump = _offset_token(token, N_PER_PAGE * (N_PAGES - 1))
        deep = {**body, "page_token": jump or token}
        if jump:
            break
    return deep


def _offset_token(token: str, offset: int) -> str | None:
    """The token of a later page, where a token says no more than an offset, as MLflow's do."""
    try:
        told = json.loads(base64.b64decode(token))
    except ValueError:
        return None
    if not isinstance(told, dict) or set(told) != {"offset"}:
        return None
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def _timed(call: Callable[[], object], n_times: int) -> list[float]:
    """Seconds of each call; fewer calls where they are slow."""
    times: list[float] = []
    while len(times) < n_times and sum(times) < ENOUGH_S:
        started = perf_counter()
        with suppress(TimeoutError):
            call()
        times.append(perf_counter() - started)
    return times


def _at(times: Sequence[float], part: float) -> float:
    """Milliseconds that this part of the times stays within."""
    return sorted(times)[min(len(times) - 1, int(part * len(times)))] * 1000


def _upload(server: Running, client: Client, experiment_id: str, n_mib: int) -> tuple[float, float]:
    """Seconds of a file through the server, and the most memory beyond that of before."""
    run_id = _new_run(client, experiment_id)
    before = server.memory_mib()
    most = before
    is_done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_done.wait(0.05):
            most = max(most, server.memory_mib())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = perf_counter()
    try:
        client.upload(f"{FILES}/{experiment_id}/{run_id}/artifacts/{uuid.uuid4().hex}", n_mib)
        return perf_counter() - started, most - before
    finally:
        is_done.set()
        watcher.join()


def table(found: Mapping[tuple[str, str], Sequence[float]], names: Sequence[str]) -> str:
    """Medians with the range of the rounds, a line for each measure."""
    lines = [f"| measure | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for measure in dict.fromkeys(measure for measure, _ in found):
        cells = (_cell(found.get((measure, name), ())) for name in names)
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):,.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.1f}-{max(values):,.1f})"


def note(text: str) -> None:
    """Say how far it is, beside the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
