from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Peer = Callable[..., None]


@pytest.fixture(scope="session")
def mlflow_peer() -> Peer:
    """Runs peer_script.py with the Python that has MLflow; fails if none is named."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    if not python or not Path(python).exists():
        pytest.fail(
            f"SPARKSCORE_MLFLOW_PYTHON is {python!r}: it must name the Python of an environment "
            "with MLflow 3.17; `make test` makes one in .venv-mlflow"
        )
    script = Path(__file__).with_name("peer_script.py")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [python, "-W", "ignore", str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=env,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def written_by_mlflow(mlflow_peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that MLflow saved, with rows and its own answers beside them."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_peer("write", folder)
    return folder
