"""The demo as its user sees it: cut off once, then played to its end, in one folder.

It is played once for all tests of this file; they look at different parts of what it left.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import sparkscore
from sparkscore.spark.launch import LAUNCH_OPTIONS

ROOT = Path(sparkscore.__file__).parents[1]
LIMIT_S = 600
# Two demos that are cut off and one to its end count as the set-up of the first test.
pytestmark = pytest.mark.timeout(2 * LIMIT_S)

ROWS = {"2013-10-01": 965, "2013-10-02": 975, "2013-10-03": 995}


@dataclass(frozen=True)
class Played:
    """What a demo left behind."""

    folder: Path
    exit_code: int
    stdout: str
    stderr: str

    def section(self, title: str) -> str:
        lines = self.stdout.splitlines()
        return lines[lines.index(f"# {title}") + 1]


def environ(cache: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SPARKSCORE_", "MLFLOW_"))}
    return own | {"SPARKSCORE__CACHE__FOLDER": str(cache)}


@contextmanager
def started(folder: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """A running demo; nothing of it is left after the block, however that ends."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "sparkscore.cli", "demo", "--folder", str(folder)],
        cwd=ROOT,
        env=environ(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # A terminal of its own: Ctrl-C reaches all of it, and only it.
    )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.communicate()


def interrupt_when(line: str, demo: subprocess.Popen[str]) -> str:
    """Press Ctrl-C when the demo says `line`; returns what it says after."""
    assert demo.stderr is not None
    assert any(said.startswith(line) for said in demo.stderr), f"the demo never said {line!r}"
    os.killpg(demo.pid, signal.SIGINT)
    stdout, rest = demo.communicate(timeout=60)
    assert stdout == ""
    return rest


def left_of(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes of the demo's session that do not end."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == demo.pid:
                found.append(process)
        except ProcessLookupError:
            continue
    _, alive = psutil.wait_procs(found, timeout=20)
    return list(alive)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def cut_off(folder: Path, spark_cache: Path) -> list[tuple[int, str, list[psutil.Process]]]:
    """Exit code, last words and left processes of two demos that were stopped by Ctrl-C."""
    ended = []
    for line in ("[2/11] train version 1", "Scoring into"):
        with started(folder, spark_cache) as demo:
            rest = interrupt_when(line, demo)
        ended.append((demo.returncode, rest, left_of(demo)))
    return ended


@pytest.fixture(scope="module")
def played(folder: Path, spark_cache: Path, cut_off: object) -> Played:
    assert cut_off
    with started(folder, spark_cache) as demo:
        stdout, stderr = demo.communicate(timeout=LIMIT_S)
    return Played(folder, demo.returncode, stdout, stderr)


def test_ctrl_c_in_a_step_gives_one_line_and_exit_130(
    cut_off: list[tuple[int, str, list[psutil.Process]]],
) -> None:
    for exit_code, rest, left in cut_off:
        assert exit_code == 130
        assert rest == "interrupted; the next demo starts over\n"
        assert left == []


def test_the_demo_ends_well_after_two_that_were_cut_off(played: Played) -> None:
    assert played.exit_code == 0, played.stderr
    assert "Traceback" not in played.stderr


def test_the_last_night_is_answered_from_the_table_the_second_time(played: Played) -> None:
    rows = {line[:32].strip(): line[32:].split() for line in played.stdout.splitlines()[1:12]}
    for night, n_rows in ROWS.items():
        assert rows[f"score {night}"][0] == str(n_rows)
    again = next(line for line in played.stdout.splitlines() if "2013-10-03 again" in line)
    assert again.split()[3] == "0"
    assert again.endswith("already scored at table version 2")


def test_the_score_table_holds_three_nights_once(played: Played) -> None:
    table = DeltaTable(played.folder / "scores")
    assert table.version() == 2
    scores = pa.table(table.to_pyarrow_table())
    assert scores.num_rows == sum(ROWS.values())
    assert len(set(scores["flight_id"].to_pylist())) == scores.num_rows
    counts = scores.group_by("score_date").aggregate([("flight_id", "count")]).to_pylist()
    assert {str(row["score_date"]): row["flight_id_count"] for row in counts} == ROWS
    assert scores["prediction"].null_count == 0
    assert set(scores["model_version"].to_pylist()) <= {1, "1"}


def test_every_night_and_both_trainings_are_on_record(played: Played) -> None:
    with sqlite3.connect(played.folder / "sparkscore.db") as db:
        runs = db.execute("SELECT run_name, status FROM runs").fetchall()
    db.close()
    assert sorted(name.partition("-")[0] for name, _ in runs) == ["flights"] * 3 + ["train"] * 2
    assert {status for _, status in runs} == {"FINISHED"}


def test_everything_it_names_lies_in_its_folder(played: Played) -> None:
    lines = played.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split() == ["what", "where"])
    places = [Path(line.split(maxsplit=1)[1]) for line in lines[first + 1 : first + 7]]
    assert all(place.exists() and place.is_relative_to(played.folder) for place in places)


def test_the_line_for_spark_submit_scores_the_next_night(played: Played) -> None:
    done = subprocess.run(
        ["sh", "-c", played.section("spark-submit")],
        cwd="/",
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(Path.home()),
            LAUNCH_OPTIONS: os.environ[LAUNCH_OPTIONS],
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = DeltaTable(played.folder / "scores").to_pyarrow_table()
    assert scores.num_rows == sum(ROWS.values()) + 995


def test_the_lines_for_cron_and_airflow_run_the_same_job(played: Played) -> None:
    job = played.section("spark-submit").removesuffix("2013-10-04")
    assert played.section("cron") == f'0 5 * * * {job}"$(date +\\%F)"'
    airflow = played.section("Airflow")
    assert airflow.startswith('BashOperator(task_id="flights", bash_command=')
    assert f"{job}{{{{ ds }}}} --skip-code 99" in airflow
