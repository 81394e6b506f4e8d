from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Peer = Callable[[str, Path], None]

PEERS = {
    "3.17": ("SPARKSCORE_MLFLOW_PYTHON", ".venv-mlflow"),
    "2.22": ("SPARKSCORE_MLFLOW2_PYTHON", ".venv-mlflow2"),
}
"""For each release of MLflow: the variable that names its Python, and where `make test` has it."""


@contextmanager
def _peer(release: str, log: Path) -> Iterator[Peer]:
    """Hands commands of peer_script.py to one process of MLflow's, which imports it once."""
    variable, made = PEERS[release]
    python = os.environ.get(variable)
    if not python or not Path(python).exists():
        pytest.fail(
            f"{variable} is {python!r}: it must name the Python of an environment with MLflow "
            f"{release}; `make test` makes one in {made}"
        )
    script = Path(__file__).with_name("peer_script.py")
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [str(Path(python).absolute()), "-W", "ignore", str(script)],
            cwd=log.parent,  # MLflow makes a folder mlruns where it stands.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        )
    orders, answers = process.stdin, process.stdout
    assert orders is not None
    assert answers is not None

    def run(command: str, folder: Path) -> None:
        orders.write(json.dumps([command, str(folder)]) + "\n")
        orders.flush()
        answer = answers.readline()
        assert answer, f"MLflow's process is gone:\n{log.read_text('utf-8')[-5000:]}"
        wrong = json.loads(answer)
        assert wrong is None, wrong

    with process:
        yield run
        orders.close()


@pytest.fixture(scope="session")
def mlflow_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Runs a command of peer_script.py in MLflow 3.17; fails if none is named."""
    with _peer("3.17", tmp_path_factory.mktemp("peer") / "stderr.txt") as run:
        yield run


@pytest.fixture(scope="session")
def mlflow2_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Runs a command of peer_script.py in MLflow 2.22; fails if none is named."""
    with _peer("2.22", tmp_path_factory.mktemp("peer") / "stderr.txt") as run:
        yield run


@pytest.fixture(scope="session", params=PEERS)
def each_peer(request: pytest.FixtureRequest) -> tuple[str, Peer]:
    """Each release of MLflow in turn, and what runs commands in it."""
    fixture = "mlflow_peer" if request.param == "3.17" else "mlflow2_peer"
    return request.param, request.getfixturevalue(fixture)
