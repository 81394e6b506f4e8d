"""Done when 1 and 2 of issue 6: MLflow's own client and command, unmodified, over this server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.server.conftest import ServerProcess, serving

Life = dict[str, dict[str, object]]
_PYTHONS = {
    "3.17": "SPARKSCORE_MLFLOW_PYTHON",
    "3.12": "SPARKSCORE_MLFLOW312_PYTHON",
    "2.22": "SPARKSCORE_MLFLOW2_PYTHON",
}
# The first must be there; others are asked where they are.
RELEASES = [
    release for release, name in _PYTHONS.items() if release == "3.17" or name in os.environ
]


@pytest.fixture(scope="module", params=RELEASES)
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """What a client of one release found while it led a full life on a server of its own."""
    variable = _PYTHONS[request.param]
    python = os.environ.get(variable)
    if not python or not Path(python).exists():
        pytest.fail(
            f"{variable} is {python!r}: it must name the Python of an environment with MLflow "
            f"{request.param}; `make test` makes one"
        )
    folder = tmp_path_factory.mktemp(f"mlflow-{request.param}")
    with serving(tmp_path_factory.mktemp("server")) as server:
        found = _led(python, server, folder)
    assert str(found["release"]).startswith(request.param)
    return found


def _led(python: str, server: ServerProcess, folder: Path) -> Life:
    script = Path(__file__).with_name("mlflow_life.py")
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW"))
    }
    env |= {
        "MLFLOW_TRACKING_URI": server.url,
        # A failure of the server shall be seen, and not be tried again for minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        # It would load each logged model in a process of its own, to see which libraries it needs.
        "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
    }
    done = subprocess.run(
        [python, "-W", "ignore", str(script), server.url, str(folder)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: Life = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_runs_are_nested_batched_and_hold_their_files(life: Life) -> None:
    assert life["runs"] == {
        "status": "FINISHED",
        "params": {"depth": "3"},
        "loss": 0.5,
        "nan_kept": "nan",
        "parent_of_child": True,
        "n_points": 1000,
        "last_point": [999, 499.5],
        "files": ["bulk", "conf.json", "notes"],
        "text": "hello",
        "same_bytes": True,
    }


def test_a_model_is_logged_registered_aliased_staged_loaded_and_asked(life: Life) -> None:
    assert life["model"] == {
        "version_status": "READY",
        "run_link": True,
        "alias_version": "1",
        "stage": "Production",
        "description": "the first",
        "tags": {"checked": "yes"},
        "predictions": [0, 1],
        "second_version": "2",
        "latest": ["1", "2"],
        "by_run": [0],
    }


def test_a_training_is_recorded_by_itself(life: Life) -> None:
    found = life["autolog"]
    assert found["n_params"] == 14
    assert "training_accuracy_score" in found["metrics"]  # type: ignore[operator]
    assert found["n_inputs"] == 1
    assert found["model_logged"] is True


def test_searches_come_in_pages_by_filter_and_order(life: Life) -> None:
    assert life["search"] == {
        "paged": ["r6", "r5", "r4", "r3", "r2", "r1", "r0"],
        "filtered": ["r4", "r6"],
        "experiments": ["Default", "life", "paged"],
        "models": ["Life"],
        "versions": ["1", "2"],
        "as_frame": 7,
    }


def test_the_command_line_of_mlflow_works_against_it(life: Life) -> None:
    assert life["commands"] == {
        "made": True,
        "experiments": True,
        "runs": True,
        "described": True,
        "files": True,
        "downloaded": "noted",
        "scores": [0, 1],
    }


def test_what_is_deleted_is_gone_and_may_come_back(life: Life) -> None:
    assert life["delete"] == {
        "deleted": "deleted",
        "status": "FAILED",
        "renamed": "gone again",
        "unknown": True,
    }
