from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparkscore.names import AliasName, ModelName, RunId
from sparkscore.records import Metric
from sparkscore.stores.sql import open_sql

N_PROCESSES = 8
N_VERSIONS = 10

# Each writer also opens the new database, so that creation and migration are raced for too.
WRITER = f"""
import sys
from contextlib import suppress
from sparkscore.errors import RecordExistsError
from sparkscore.names import AliasName, ModelName
from sparkscore.records import VersionStatus
from sparkscore.stores.sql import open_sql

models = open_sql(sys.argv[1], "file:///a", busy_timeout_s=120).models
name = ModelName("flight-delay")
with suppress(RecordExistsError):
    models.create_model(name)
for _ in range({N_VERSIONS}):
    version = models.create_version(name, source="s").version
    models.finish_version(name, version, VersionStatus.READY, digest="d")
    models.set_alias(name, AliasName("champion"), version)
    print(version)
    assert models.get_version_by_alias(name, AliasName("champion")).version >= 1
"""


def test_versions_of_many_processes_have_neither_gap_nor_twin(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    command = [sys.executable, "-W", "error", "-c", WRITER, url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(N_PROCESSES)
    ]
    numbers = [int(line) for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0] * N_PROCESSES
    assert sorted(numbers) == list(range(1, N_PROCESSES * N_VERSIONS + 1))
    models = open_sql(url, "file:///a").models
    champion = models.get_version_by_alias(ModelName("flight-delay"), AliasName("champion"))
    assert champion.version in numbers
    assert len(models.list_versions(ModelName("flight-delay"))) == len(numbers)


N_WRITERS = 32
N_POINTS = 20


def test_many_threads_write_to_one_file_without_an_error(tmp_path: Path) -> None:
    runs = open_sql(f"sqlite:///{tmp_path / 'records.db'}", "file:///a").runs

    def write(number: int) -> None:
        run_id = RunId(f"run-{number % 4}")
        runs.create_run("0", run_id=run_id, run_name="", user_id="", start_time_ms=1)
        for step in range(N_POINTS):
            runs.log_batch(run_id, metrics=[Metric(f"m{number}", float(step), step, step)])

    with ThreadPoolExecutor(N_WRITERS) as pool:
        list(pool.map(write, range(N_WRITERS)))
    for number in range(N_WRITERS):
        assert len(runs.metric_history(RunId(f"run-{number % 4}"), f"m{number}")) == N_POINTS


# Each line is printed after its point was acknowledged.
LOGGER = """
import os, sys, threading
from sparkscore.names import RunId
from sparkscore.records import Metric
from sparkscore.stores.sql import open_sql

runs = open_sql(sys.argv[1], "file:///a").runs
runs.create_run("0", run_id=RunId("r"), run_name="", user_id="", start_time_ms=1)

def log(key):
    step = 0
    while True:
        runs.log_batch(RunId("r"), metrics=[Metric(key, 1.0, 1, step)], tags={key: str(step)})
        os.write(1, f"{key} {step}\\n".encode())
        step += 1

for number in range(4):
    threading.Thread(target=log, args=(f"m{number}",)).start()
"""


def test_a_killed_process_loses_no_acknowledged_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    logger = subprocess.Popen(
        [sys.executable, "-c", LOGGER, url], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert logger.stdout is not None
    lines = [logger.stdout.readline() for _ in range(200)]
    logger.send_signal(signal.SIGKILL)
    lines += logger.communicate()[0].splitlines()
    runs = open_sql(url, "file:///a").runs
    run = runs.get_run(RunId("r"))
    for number in range(4):
        key = f"m{number}"
        acknowledged = {int(line.split()[1]) for line in lines if line.startswith(key)}
        kept = {point.step for point in runs.metric_history(RunId("r"), key)}
        assert acknowledged <= kept
        # A batch is there as a whole or not at all.
        assert int(run.tags[key]) == max(kept)
