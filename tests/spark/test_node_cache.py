from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from sparkscore.errors import PackageDigestError, UnsignedPackageError, UntrustedCodeError
from sparkscore.flavors.python_model import PythonParts
from sparkscore.package import TrustPolicy, pack, seal
from sparkscore.package.node_folder import node_folder
from sparkscore.scoring.facts import ModelFacts
from sparkscore.spark.node_cache import LoadedModel, NodeLimits, loaded_model
from sparkscore.testing.models import (
    Hungry,
    Mapped,
    SeenAsText,
    Sized,
    Third,
    packaged,
)

PICKLE = TrustPolicy(allow_code=True)

LOAD = """
import json, sys
from pathlib import Path
from sparkscore.package import TrustPolicy
from sparkscore.spark.node_cache import loaded_model

digest, packed = sys.argv[1:]
reads = []

def open_packed():
    reads.append(1)
    return Path(packed).open("rb")

models = [loaded_model(digest, TrustPolicy(allow_code=True), open_packed) for _ in range(3)]
print(json.dumps({"reads": len(reads), "n_loads": models[-1][0].n_loads,
                  "slow": [seconds > 0 for _, seconds in models]}))
"""


LOAD_WITHIN = """
import io, resource, sys
from sparkscore.errors import ModelTooLargeError
from sparkscore.package import TrustPolicy
from sparkscore.spark.node_cache import loaded_model

digest, max_bytes = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(max_bytes),) * 2)
try:
    loaded_model(digest, TrustPolicy(allow_code=True), io.BytesIO)
except ModelTooLargeError as exc:
    print(exc)
"""
HOLD_MAPPED = """
import re, sys
from pathlib import Path
from sparkscore.package import TrustPolicy
from sparkscore.spark.node_cache import loaded_model

digest, packed = sys.argv[1:]
model, _ = loaded_model(digest, TrustPolicy(allow_code=True), lambda: Path(packed).open("rb"))
print("loaded", flush=True)
sys.stdin.readline()
file = re.escape(str(next(model.package.folder.rglob("*.npy"))))
maps = Path("/proc/self/smaps").read_text()
facts = re.search(file + r".*?Rss: +(\\d+).*?Pss: +(\\d+)", maps, re.DOTALL)
print(*facts.groups(), flush=True)
sys.stdin.readline()
"""
FREEZE = """
import gc, sys, weakref
from pathlib import Path
from sparkscore.package import TrustPolicy
from sparkscore.spark.node_cache import NodeLimits, loaded_model
from sparkscore.spark.task_slot import task_slot

def task(folder, limits=NodeLimits()):
    with task_slot():
        digest, packed = folder.name, folder / "packed"
        trust = TrustPolicy(allow_code=True)
        return loaded_model(digest, trust, lambda: packed.open("rb"), limits=limits)[0]

first, second = map(Path, sys.argv[1:])
counts = [gc.get_freeze_count()]
model = task(first)
counts.append(gc.get_freeze_count())
task(first)
counts.append(gc.get_freeze_count())
model.itself = model
told = weakref.ref(model)
del model
task(second, NodeLimits(max_loaded_bytes=1))
print(*counts, told() is None)
"""
MIB = 2**20


@pytest.fixture
def model(tmp_path: Path) -> ModelFacts:
    return packaged(Third(), tmp_path / "package")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node of its own, whose cache is empty."""
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


def start_load(model: ModelFacts, tmp_path: Path) -> subprocess.Popen[str]:
    """A process that loads the model three times and prints what that took."""
    packed = tmp_path / "packed.tar"
    if not packed.exists():
        packed.write_bytes(pack(model.folder))
    command = [sys.executable, "-W", "error", "-c", LOAD, model.digest, str(packed)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def answer_of(process: subprocess.Popen[str]) -> dict[str, object]:
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    answer: dict[str, object] = json.loads(stdout)
    return answer


def test_worker_refuses_what_nobody_has_signed_where_a_signature_is_demanded(
    tmp_path: Path,
) -> None:
    model = packaged(Third(), tmp_path / "model")
    strict = TrustPolicy(allow_code=True, require_signature=True, signing_keys=("ab" * 32,))
    with pytest.raises(UnsignedPackageError, match="signed by nobody"):
        loaded_model(model.digest, strict, lambda: BytesIO(pack(model.folder)))
    forged = replace(strict, signatures=(("ab" * 32, "cd" * 64),))
    with pytest.raises(UnsignedPackageError, match="none that is right"):
        loaded_model(model.digest, forged, lambda: BytesIO(pack(model.folder)))


def test_processes_that_start_together_unpack_once_and_load_once_each(
    model: ModelFacts, node: Path, tmp_path: Path
) -> None:
    processes = [start_load(model, tmp_path) for _ in range(4)]
    answers = [answer_of(process) for process in processes]
    assert sorted(answer["reads"] for answer in answers) == [0, 0, 0, 1]  # type: ignore[type-var]
    assert [answer["n_loads"] for answer in answers] == [1] * 4
    assert {p.name for p in node.iterdir()} == {model.digest, f"{model.digest}.lock"}


def test_model_is_kept_by_its_process(model: ModelFacts, node: Path, tmp_path: Path) -> None:
    assert answer_of(start_load(model, tmp_path))["slow"] == [True, False, False]
    assert (node / model.digest / "MLmodel").is_file()


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "emptied"])
def test_damaged_folder_is_replaced(
    damage: str, model: ModelFacts, node: Path, tmp_path: Path
) -> None:
    answer_of(start_load(model, tmp_path))
    pickle = node / model.digest / "python_model.pkl"
    if damage == "changed":
        pickle.write_bytes(bytes([pickle.read_bytes()[0] ^ 1]) + pickle.read_bytes()[1:])
    elif damage == "missing":
        pickle.unlink()
    elif damage == "extra":
        (pickle.parent / "more.py").write_text("print()")
    else:
        (pickle.parent / "sparkscore.manifest.json").write_text("")
    assert answer_of(start_load(model, tmp_path))["reads"] == 1
    assert pickle.read_bytes() == (model.folder / "python_model.pkl").read_bytes()
    assert not (pickle.parent / "more.py").exists()


def test_file_in_the_place_of_the_folder_is_replaced(
    model: ModelFacts, node: Path, tmp_path: Path
) -> None:
    node.mkdir()
    (node / model.digest).write_text("no folder")
    assert answer_of(start_load(model, tmp_path))["reads"] == 1


def test_bytes_of_another_package_are_refused(
    model: ModelFacts, node: Path, tmp_path: Path
) -> None:
    other = packaged(SeenAsText(), tmp_path / "other")
    with pytest.raises(PackageDigestError, match=model.digest):
        loaded_model(model.digest, PICKLE, lambda: BytesIO(pack(other.folder)))
    assert node.is_dir()


def test_bytes_that_are_no_package_are_refused_as_not_the_pinned_ones(
    model: ModelFacts, node: Path
) -> None:
    with pytest.raises(PackageDigestError, match=model.digest):
        loaded_model(model.digest, PICKLE, lambda: BytesIO(b"no tar"))
    assert not (node / model.digest).exists()


@pytest.mark.usefixtures("node")
def test_model_loaded_under_one_policy_is_not_lent_to_another(model: ModelFacts) -> None:
    loaded_model(model.digest, PICKLE, lambda: BytesIO(pack(model.folder)))
    with pytest.raises(UntrustedCodeError):
        loaded_model(model.digest, TrustPolicy(), lambda: BytesIO(pack(model.folder)))


def packed_again(model: ModelFacts) -> BytesIO:
    return BytesIO(pack(model.folder))


def load(model: ModelFacts, max_loaded_bytes: int) -> LoadedModel:
    """The model in a process that keeps so many bytes of models."""
    limits = NodeLimits(max_loaded_bytes=max_loaded_bytes)
    loaded, _ = loaded_model(model.digest, PICKLE, partial(packed_again, model), limits=limits)
    return loaded


@pytest.mark.usefixtures("node")
def test_models_that_were_not_used_for_longest_are_let_go_of(tmp_path: Path) -> None:
    models = [packaged(Sized(40 * MIB, i), tmp_path / f"model-{i}") for i in range(3)]
    loads = [load(models[i], 100 * MIB).n_loads for i in (0, 1, 0, 2, 0, 1)]
    assert loads == [1, 1, 1, 1, 1, 2]


def test_collector_passes_by_what_was_loaded_until_it_is_let_go_of(
    node: Path, tmp_path: Path
) -> None:
    places = []
    for seed in range(2):
        model = packaged(Sized(10, seed), tmp_path / str(seed))
        places.append(tmp_path / model.digest)
        places[-1].mkdir()
        (places[-1] / "packed").write_bytes(pack(model.folder))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FREEZE, *map(str, places)]
    printed = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    before, loaded, asked, told = printed.stdout.split()
    assert before == "0"
    assert int(loaded) > 10_000
    assert asked == loaded
    assert told == "True"
    assert len(list(node.glob("*.lock"))) == 2


@pytest.mark.usefixtures("node")
def test_model_counts_as_what_the_process_grew_by(tmp_path: Path) -> None:
    grown = load(packaged(Hungry(200 * MIB), tmp_path / "model"), 1000 * MIB)
    assert grown.package.n_bytes < MIB
    assert grown.n_bytes >= 190 * MIB


@pytest.mark.usefixtures("node")
def test_model_above_the_limit_is_kept_while_it_is_the_only_one(tmp_path: Path) -> None:
    model = packaged(Sized(40 * MIB), tmp_path / "model")
    assert [load(model, MIB).n_loads for _ in range(2)] == [1, 1]


@pytest.mark.usefixtures("node")
def test_files_of_a_model_that_was_let_go_of_may_be_removed(tmp_path: Path) -> None:
    first, second, third = (packaged(Sized(4 * MIB, i), tmp_path / f"model-{i}") for i in range(3))
    limits = NodeLimits(max_loaded_bytes=6 * MIB, max_unpacked_bytes=6 * MIB)
    for model in (first, second, third):
        loaded_model(model.digest, PICKLE, partial(packed_again, model), limits=limits)
    assert not (node_folder() / first.digest).exists()
    assert (node_folder() / third.digest).is_dir()


def loaded_within(max_bytes: int, folder: Path, node: Path) -> str:
    """What a process of so much memory says of the package in `folder`; nothing: it is loaded."""
    digest = seal(folder).digest
    node.mkdir()
    folder.rename(node / digest)
    command = [sys.executable, "-W", "error", "-c", LOAD_WITHIN, digest, str(max_bytes)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_lack_of_memory_while_loading_is_said_in_one_message(node: Path, tmp_path: Path) -> None:
    model = packaged(Hungry(1001 * MIB), tmp_path / "model")
    said = loaded_within(1000 * MIB, model.folder, node)
    assert said.startswith(f"the model of package {model.digest} does not fit into the ")
    assert f"the {1000 * MIB} bytes of memory" in said
    assert "Unable to allocate 1001. MiB" in said


@pytest.mark.parametrize(
    ("path", "says"), [("weights.bin", "its files have "), ("artifacts/weights.npy", "")]
)
def test_package_larger_than_all_memory_is_refused_but_for_what_a_model_may_map(
    path: str, says: str, node: Path, tmp_path: Path
) -> None:
    folder = packaged(Third(), tmp_path / "package").folder
    (folder / path).parent.mkdir(exist_ok=True)
    with (folder / path).open("wb") as file:
        file.truncate(1001 * MIB)
    said = loaded_within(1000 * MIB, folder, node)
    assert says in said
    assert bool(said) == bool(says)


@pytest.mark.usefixtures("node")
def test_array_that_a_model_maps_is_in_memory_once_for_all_workers(tmp_path: Path) -> None:
    n_kib = 32 * 1024
    np.save(tmp_path / "weights.npy", np.ones(n_kib * 1024 // 8))
    with_weights = PythonParts(Mapped(), {"weights": tmp_path / "weights.npy"})
    model = packaged(with_weights, tmp_path / "package")
    (tmp_path / "packed.tar").write_bytes(pack(model.folder))
    command = [sys.executable, "-W", "error", "-c", HOLD_MAPPED, model.digest]
    workers = [
        subprocess.Popen(
            [*command, str(tmp_path / "packed.tar")],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [said_by(worker) for worker in workers] == ["loaded", "loaded"]
    for worker in workers:
        resident, proportional = map(int, told_to_go_on(worker).split())
        assert resident >= n_kib
        assert proportional <= resident * 0.6
    for worker in workers:
        worker.communicate("\n", timeout=60)


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def told_to_go_on(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said_by(process)


def test_folder_is_of_this_user_alone(node: Path) -> None:
    assert node_folder() == node
    assert node.stat().st_mode & 0o777 == 0o700
