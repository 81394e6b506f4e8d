"""PyTorch's modules, and their exchange with MLflow; `make test-flavors` runs this."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import sparkscore
from sparkscore.errors import (
    PackageFormatError,
    PredictionError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.tensors import example_batch
from sparkscore.package import Package, TrustPolicy, open_package, seal
from sparkscore.testing.flavor_contract import FlavorContract, assert_same
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# torch's own warnings, of TorchScript among them, which it still reads.
pytestmark = pytest.mark.filterwarnings("ignore")

CODE = TrustPolicy(allow_code=True)
RNG = np.random.default_rng(5)
ROWS = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, 40),
        "income": RNG.normal(size=40),
        "rate": RNG.normal(size=40).astype(np.float32),
    }
)
NUMBERS = ROWS.to_numpy(np.float32)

# What a user writes beside a job.
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, answers="tensor"):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.answers = answers

    def forward(self, rows):
        both = self.layer(rows)
        if self.answers == "dict":
            return {"low": both[:, 0], "high": both[:, 1]}
        return (both, both) if self.answers == "tuple" else both
"""
_PEER = """
import sys
import mlflow, numpy as np, pandas as pd
package, rows, answers = sys.argv[1:]
given = np.load(rows) if rows.endswith(".npy") else pd.read_parquet(rows)
np.save(answers, mlflow.pyfunc.load_model(package).predict(given))
"""
_PEER_WRITES = """
import sys
import mlflow, numpy as np, pandas as pd, torch
from mlflow.models import infer_signature
rows, form, package = sys.argv[1:]
given = pd.read_parquet(rows)
array = given.to_numpy(np.float32)
torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
if form == "torchscript":
    model = torch.jit.script(model)
answer = model(torch.from_numpy(array)).detach().numpy()
if form == "pt2":
    mlflow.pytorch.save_model(model, package, input_example=array)
else:
    signature = infer_signature(given, pd.DataFrame(answer))
    mlflow.pytorch.save_model(
        model, package, signature=signature, serialization_format="pickle"
    )
"""

_PEER_WRITES_OF_TWO = """
import sys
import mlflow, numpy as np, torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
rows, package, answers = sys.argv[1:]
given = dict(np.load(rows))
model = torch.nn.Bilinear(2, 3, 4)
inputs = [TensorSpec(v.dtype, (-1, *v.shape[1:]), name) for name, v in given.items()]
outputs = Schema([TensorSpec(np.dtype("float32"), (-1, 4))])
signature = ModelSignature(Schema(inputs), outputs)
mlflow.pytorch.save_model(model, package, input_example=[*given.values()], signature=signature)
program = mlflow.pytorch.load_model(package)
with torch.no_grad():
    np.save(answers, program(*map(torch.tensor, given.values())).numpy())
"""


@cache
def network() -> torch.nn.Sequential:
    """So narrow that its sums are added up in one order, whatever the size of a batch."""
    torch.manual_seed(7)
    layers = [torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Dropout()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 2))


def exported() -> torch.export.ExportedProgram:
    rows = {0: torch.export.Dim("rows")}
    given = (torch.from_numpy(NUMBERS),)
    return torch.export.export(network().eval(), given, dynamic_shapes=(rows,))


class TestModule(FlavorContract):
    flavor = "pytorch"

    def model(self) -> object:
        return network().train()  # Which MLflow, too, leaves for answering.

    def example(self) -> pd.DataFrame:
        return ROWS

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        return asked(network(), example.to_numpy(np.float32))


class TestExportedProgram(TestModule):
    trust = CODE

    def model(self) -> object:
        return exported()


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_layers_of_torch_need_no_trust(tmp_path: Path, name: str) -> None:
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, activation=name, batch_first=True).eval()
    rows = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    package = save_model(layer, tmp_path / "p", input_example=rows)
    got = load_predictor(package, TrustPolicy()).predict(batch_of(package, rows))
    assert_same(np.asarray(got), asked(layer, rows))


def test_tensors_are_given_in_the_order_of_the_signature(tmp_path: Path) -> None:
    model = torch.nn.Bilinear(2, 3, 4)
    given = {
        "second": RNG.normal(size=(5, 2)).astype(np.float32),
        "first": RNG.normal(size=(5, 3)).astype(np.float32),
    }
    package = save_model(model, tmp_path / "p", input_example=given)
    got = load_predictor(package, TrustPolicy()).predict(batch_of(package, given))
    assert_same(np.asarray(got), asked(model, given["second"], given["first"]))


def test_null_becomes_nan_where_a_column_may_have_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [1.0, None, 3.0]})
    package = save_model(torch.nn.ReLU(), tmp_path / "p", input_example=rows)
    got = load_predictor(package, TrustPolicy()).predict(batch_of(package, rows))
    assert_same(np.asarray(got), np.array([[1.0], [np.nan], [3.0]], np.float32))


def test_floats_of_two_bytes_become_those_of_four(tmp_path: Path) -> None:
    class Half(torch.nn.Module):  # type: ignore[misc]  # torch is not there
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows.bfloat16()

    package = save_model(Half(), tmp_path / "p", input_example=ROWS[["age"]])
    got = load_predictor(package, CODE).predict(batch_of(package, ROWS))
    assert_same(np.asarray(got), ROWS[["age"]].to_numpy(np.float32))


def test_task_has_its_threads_and_leaves_those_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Threads(torch.nn.Module):  # type: ignore[misc]  # torch is not there
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.full_like(rows, torch.get_num_threads())

    package = save_model(Threads(), tmp_path / "p", input_example=ROWS[["income"]])
    predictor = load_predictor(package, CODE)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        answers = []
        for said in ("", "2"):
            monkeypatch.setenv("OMP_NUM_THREADS", said)
            answers.append(np.asarray(predictor.predict(batch_of(package, ROWS)))[0, 0])
        assert (*answers, torch.get_num_threads()) == (1, 2, 3)
    finally:
        torch.set_num_threads(before)


def test_type_of_a_library_is_allowed_by_its_name(tmp_path: Path) -> None:
    model = torch.nn.DataParallel(network())
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    with pytest.raises(UntrustedCodeError, match=r"DataParallel.*--trust allows types"):
        load_predictor(package, TrustPolicy())
    named = TrustPolicy(types=("torch.nn.parallel.*", "torch.device"))
    got = load_predictor(package, named).predict(batch_of(package, ROWS))
    assert_same(np.asarray(got), asked(network(), NUMBERS))


def test_class_of_ones_own_needs_trust(tmp_path: Path) -> None:
    package = save_net(tmp_path)
    with pytest.raises(UntrustedCodeError, match=r"asks for 'net_of_a_user.Net'.*--trust-code"):
        load_predictor(package, TrustPolicy())
    got = load_predictor(package, CODE).predict(batch_of(package, ROWS))
    assert np.asarray(got).shape == (40, 2)


def test_several_tensors_are_columns_by_their_names(tmp_path: Path) -> None:
    package = save_net(tmp_path, "dict")
    got = load_predictor(package, CODE).predict(batch_of(package, ROWS))
    assert isinstance(got, dict)
    assert list(got) == ["low", "high"]
    assert [values.shape for values in got.values()] == [(40,), (40,)]


def test_answer_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="answered a tuple"):
        save_net(tmp_path, "tuple")


def test_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "was-run"),)

    package = save_model(network(), tmp_path / "p", input_example=ROWS)
    layer = torch.nn.ReLU()
    layer.extra = Command()
    torch.save(layer, package.folder / "data" / "model.pth")
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"posix\.mkdir"):
        load_predictor(open_package(package.folder), TrustPolicy())
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"torch.nn.modules.module\ntorch.os.mkdir",
        b"torch.nn.modules.os\nmkdir",
        b"torch.nn.modules.container\nSequential.apply",
        b"torch.nn.modules.module\n_WrappedHook",
        b"torch.nn.modules.module\nregister_module_forward_hook",
        b"torch.nn.functional\nboolean_dispatch",
        b"builtins\ngetattr",
    ],
)
def test_name_that_is_found_below_torch_and_is_no_layer_is_refused(
    tmp_path: Path, name: bytes
) -> None:
    package = save_model(network(), tmp_path / "p", input_example=ROWS)
    replace_entry(package.folder / "data" / "model.pth", "data.pkl", b"\x80\x02c%b\n)R." % name)
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=name.decode().replace("\n", r"\.")):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_program_whose_json_names_a_command_is_refused_and_not_run(tmp_path: Path) -> None:
    """No pickle is needed for it: torch evaluates the sizes that a program writes."""
    package = save_model(exported(), tmp_path / "p", input_example=ROWS)
    path = package.folder / "data" / "model.pt2"
    command = f"__import__('os').mkdir({str(tmp_path / 'was-run')!r})"
    rewrite(path, "models/model.json", "expr_str", command)
    seal(package.folder)
    reopened = open_package(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"program of torch\.export.*--trust-code"):
        load_predictor(reopened, TrustPolicy())
    assert not (tmp_path / "was-run").exists()
    with pytest.raises(PackageFormatError):
        load_predictor(reopened, CODE)
    assert (tmp_path / "was-run").exists()  # So the refusal is not for nothing.


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02."])
@pytest.mark.parametrize("name", ["model.pth", "model.pt2"])
def test_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    model = network() if name == "model.pth" else exported()
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    (package.folder / "data" / name).write_bytes(content)
    seal(package.folder)
    with pytest.raises(PackageFormatError, match=name):
        load_predictor(open_package(package.folder), CODE)
    with pytest.raises(UntrustedCodeError, match=name):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_state_without_its_module_is_named(tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", input_example=ROWS)
    torch.save(network().state_dict(), package.folder / "data" / "model.pth")
    seal(package.folder)
    with pytest.raises(PackageFormatError, match=r"OrderedDict and no torch\.nn\.Module"):
        load_predictor(open_package(package.folder), TrustPolicy())


@pytest.mark.parametrize(
    "rows", [ROWS.assign(town="Ulm"), np.array(["Ulm", "Bonn"])], ids=["column", "tensor"]
)
def test_text_is_refused(tmp_path: Path, rows: pd.DataFrame | np.ndarray) -> None:
    with pytest.raises(SignatureMismatchError, match=r"tensors hold numbers.*(town|'0').*str"):
        save_model(network(), tmp_path / "p", input_example=rows)


def test_module_that_cannot_be_pickled_is_not_saved(tmp_path: Path) -> None:
    script = torch.jit.script(network())
    with pytest.raises(UsageError, match=r"cannot be pickled.*torch\.export\.export"):
        save_model(script, tmp_path / "p", input_example=ROWS)


@pytest.mark.parametrize("form", ["module", "exported"])
def test_own_package_answers_the_same_in_mlflow(tmp_path: Path, form: str) -> None:
    model = network() if form == "module" else exported()
    package = save_model(model, tmp_path / "p", input_example=ROWS)
    got = load_predictor(package, CODE).predict(batch_of(package, ROWS))
    assert_same(np.asarray(got), peers_answer(package.folder, ROWS, tmp_path))


def test_own_package_of_tensors_answers_the_same_in_mlflow(tmp_path: Path) -> None:
    rows = RNG.normal(size=(9, 4, 2)).astype(np.float32)
    package = save_model(torch.nn.Linear(2, 3), tmp_path / "p", input_example=rows)
    got = load_predictor(package, TrustPolicy()).predict(batch_of(package, rows))
    assert_same(np.asarray(got), peers_answer(package.folder, rows, tmp_path))


@pytest.mark.parametrize(
    ("form", "trust"), [("pickle", TrustPolicy()), ("pt2", CODE), ("torchscript", CODE)]
)
def test_package_of_mlflow_answers_the_same(tmp_path: Path, form: str, trust: TrustPolicy) -> None:
    package = write_by_peer(tmp_path, form)
    rows = NUMBERS if form == "pt2" else ROWS
    got = load_predictor(package, trust).predict(batch_of(package, rows))
    assert_same(np.asarray(got), peers_answer(package.folder, rows, tmp_path))


def test_package_of_mlflow_answers_the_same_on_spark(spark: SparkSession, tmp_path: Path) -> None:
    package = write_by_peer(tmp_path, "pt2")
    expected = peers_answer(package.folder, NUMBERS, tmp_path)
    workspace = Workspace.open(
        overrides={"trust.allow_code": "true", "tracking.uri": f"sqlite:///{tmp_path}/store.db"}
    )
    rows = pd.DataFrame(NUMBERS, columns=ROWS.columns).assign(place=range(len(NUMBERS)))
    frame = spark.createDataFrame(rows).repartition(3)
    columns = {str(i): name for i, name in enumerate(ROWS.columns)}
    scores = sparkscore.score(frame, str(package.folder), columns=columns, workspace=workspace)
    found = [row["prediction"] for row in scores.orderBy("place").collect()]
    assert_same(np.array(found, np.float32), expected)


@pytest.mark.parametrize("form", ["pt2", "torchscript"])
def test_package_of_mlflow_that_can_run_code_needs_trust(tmp_path: Path, form: str) -> None:
    package = write_by_peer(tmp_path, form)
    with pytest.raises(UntrustedCodeError, match="--trust-code"):
        load_predictor(package, TrustPolicy())


def test_program_of_two_tensors_that_pyfunc_does_not_take_is_scored(tmp_path: Path) -> None:
    rows = {
        "second": RNG.normal(size=(5, 2)).astype(np.float32),
        "first": RNG.normal(size=(5, 3)).astype(np.float32),
    }
    np.savez(tmp_path / "rows.npz", second=rows["second"], first=rows["first"])
    peer(_PEER_WRITES_OF_TWO, tmp_path / "rows.npz", tmp_path / "p", tmp_path / "answers.npy")
    package = open_package(tmp_path / "p")
    got = load_predictor(package, CODE).predict(batch_of(package, rows))
    assert_same(np.asarray(got), np.load(tmp_path / "answers.npy"))


def save_net(tmp_path: Path, answers: str = "tensor") -> Package:
    """A package that brings the class of its module along."""
    code = tmp_path / "net_of_a_user.py"
    code.write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.delitem(sys.modules, "net_of_a_user", raising=False)
        import net_of_a_user  # type: ignore[import-not-found]  # written above

        model = net_of_a_user.Net(answers)
        return save_model(model, tmp_path / "p", input_example=ROWS, code_paths=[code])


def write_by_peer(tmp_path: Path, form: str) -> Package:
    ROWS.to_parquet(tmp_path / "rows.parquet")
    peer(_PEER_WRITES, tmp_path / "rows.parquet", form, tmp_path / "p")
    return open_package(tmp_path / "p")


def peers_answer(package: Path, rows: pd.DataFrame | np.ndarray, tmp_path: Path) -> np.ndarray:
    if isinstance(rows, pd.DataFrame):
        given = tmp_path / "given.parquet"
        rows.to_parquet(given)
    else:
        given = tmp_path / "given.npy"
        np.save(given, rows)
    peer(_PEER, package, given, tmp_path / "answers.npy")
    answers: np.ndarray = np.load(tmp_path / "answers.npy")
    return answers


def asked(model: torch.nn.Module, *given: np.ndarray) -> np.ndarray:
    """What torch itself says, with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            answer: np.ndarray = model.eval()(*map(torch.tensor, given)).numpy()
        return answer
    finally:
        torch.set_num_threads(before)


def batch_of(package: Package, rows: object) -> pa.RecordBatch:
    assert package.description.signature is not None
    return example_batch(rows, package.description.signature.inputs)


def rewrite(path: Path, name: str, key: str, value: str) -> None:
    """Put a value in the place of all of one key, in a JSON file within an archive."""

    def changed(node: object) -> object:
        if isinstance(node, dict):
            return {k: value if k == key else changed(v) for k, v in node.items()}
        return [changed(item) for item in node] if isinstance(node, list) else node

    with zipfile.ZipFile(path) as archive:
        (found,) = (entry for entry in archive.namelist() if entry.endswith(name))
        before = json.loads(archive.read(found))
    replace_entry(path, name, json.dumps(changed(before)).encode())


def replace_entry(path: Path, name: str, content: bytes) -> None:
    """Put other bytes in the place of one file within an archive."""
    with zipfile.ZipFile(path) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    (found,) = (entry for entry in files if entry.endswith(name))
    files[found] = content
    with zipfile.ZipFile(path, "w") as archive:
        for entry, written in files.items():
            archive.writestr(entry, written)


def peer(script: str, *arguments: object) -> None:
    """Run a script with the Python that has MLflow, on one thread; fails if none is named."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    assert python, "SPARKSCORE_MLFLOW_PYTHON must name a Python with MLflow; make test-flavors does"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**env, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
