from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sparkscore.spark.threads import THREAD_VARIABLES, limited_threads, task_cores

LATE = """
import json
from sparkscore.spark.threads import limited_threads

with limited_threads({n_cores}) as threads:
    import numba, sklearn.ensemble
    from threadpoolctl import threadpool_info
    found = [pool["num_threads"] for pool in threadpool_info()] + [numba.get_num_threads()]
    before = threads.n_in_force
    threads.limit()
print(json.dumps([found, before, threads.n_in_force]))
"""


def n_threads() -> set[int]:
    """How many threads each native library of this process would use."""
    return {pool["num_threads"] for pool in threadpool_info()} | {pa.cpu_count()}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "7"))


@pytest.mark.parametrize("n_cores", [1, 2])
def test_libraries_that_are_loaded_are_held_to_the_cores_and_let_go_after(n_cores: int) -> None:
    with threadpool_limits(limits=3):
        before = n_threads()
        with limited_threads(n_cores) as threads:
            assert n_threads() == {n_cores}
            assert threads.n_in_force == n_cores
        assert n_threads() == before


@pytest.mark.parametrize("n_cores", [1, 2])
def test_libraries_that_come_later_read_the_variables(n_cores: int) -> None:
    command = [sys.executable, "-W", "error", "-c", LATE.format(n_cores=n_cores)]
    environ = {
        **{name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES},
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    found, before, after = json.loads(done.stdout)
    assert set(found) == {n_cores}
    assert before == after == n_cores


def test_variables_say_the_cores_of_the_task() -> None:
    with limited_threads(2):
        assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}


class Torch(ModuleType):
    """As much of torch as is told how many threads to use."""

    n_threads = 3

    def set_num_threads(self, n_threads: int) -> None:
        self.n_threads = n_threads

    def get_num_threads(self) -> int:
        return self.n_threads


def test_torch_is_told_too_and_let_go_after(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    with limited_threads(1) as threads:
        assert torch.get_num_threads() == threads.n_in_force == 1
    assert torch.get_num_threads() == 3


def test_outside_of_a_task_there_is_one_core() -> None:
    assert task_cores() == 1
