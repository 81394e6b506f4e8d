"""Models of Keras and TensorFlow, and their exchange with MLflow; `make test-flavors` runs this."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import cloudpickle
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from sparkscore.errors import (
    PackageFormatError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.tensors import example_batch
from sparkscore.package import Package, TrustPolicy, open_package, seal
from sparkscore.package.layout import MLMODEL, read_description, write_description
from sparkscore.package.schema import ColumnSchema, TensorSchema
from sparkscore.scoring.facts import prediction_schema
from sparkscore.scoring.outputs import prediction_columns
from sparkscore.testing.flavor_contract import FlavorContract, assert_same

# Their own use of other libraries.
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(4)
ARRAY = RNG.normal(size=(80, 4)).astype(np.float32)
FRAME = pd.DataFrame(RNG.normal(size=(80, 4)), columns=["a", "b", "c", "d"])
ALLOWED = TrustPolicy(allow_code=True)


@cache
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@cache
def two_headed() -> keras.Model:
    """Two inputs and two outputs, all of them with names."""
    keras.utils.set_random_seed(2)
    left, right = keras.Input((4,), name="left"), keras.Input((2, 3), name="right")
    joined = keras.layers.Concatenate()([left, keras.layers.Flatten()(right)])
    risk = keras.layers.Dense(1, name="risk")(joined)
    kinds = keras.layers.Dense(3, name="kinds")(joined)
    return keras.Model({"left": left, "right": right}, [risk, kinds])


class Scale(tf.Module):  # type: ignore[misc]  # untyped there
    def __init__(self) -> None:
        self.weights = tf.Variable(tf.reshape(tf.range(8, dtype=tf.float32), (4, 2)) / 7)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])  # type: ignore[untyped-decorator]  # untyped there
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x @ self.weights)


class TestKeras(FlavorContract):
    flavor = "keras"

    def model(self) -> object:
        return network()

    def example(self) -> pd.DataFrame:
        return FRAME

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, keras.Model)
        answer: np.ndarray = model.predict(example.to_numpy(), verbose=0)
        return answer


class TestTensorflow(FlavorContract):
    flavor = "tensorflow"

    def model(self) -> object:
        return Scale()

    def example(self) -> pd.DataFrame:
        return FRAME

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        assert isinstance(model, Scale)
        answer: np.ndarray = model(tf.convert_to_tensor(example.to_numpy(), tf.float32)).numpy()
        return answer


class TestKerasByTensorflow(TestKeras):
    flavor = "tensorflow"


@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
def test_array_is_a_tensor_and_is_answered_alike(flavor: str, tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", flavor=flavor, input_example=ARRAY)
    assert package.description.signature is not None
    assert isinstance(package.description.signature.inputs, TensorSchema)
    assert_same(np.asarray(answered(package, ARRAY)), network().predict(ARRAY, verbose=0))


def test_flavor_is_found_by_the_class(tmp_path: Path) -> None:
    for model, flavor in ((network(), "keras"), (Scale(), "tensorflow")):
        package = save_model(model, tmp_path / flavor, input_example=ARRAY)
        assert flavor in package.description.flavors


def test_whole_numbers_and_optional_ones_are_one_matrix(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "a": np.arange(6, dtype=np.int32),
            "b": [True, False] * 3,
            "c": pd.array([1, None, 3, 4, 5, 6], "Int64"),
            "d": np.linspace(0, 1, 6).astype(np.float32),
        }
    )
    package = save_model(network(), tmp_path / "p", input_example=rows)
    expected = network().predict(rows.astype("float64").to_numpy(), verbose=0)
    assert_same(np.asarray(answered(package, rows)), expected)


def test_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SignatureMismatchError, match="columns 'a' are none; save it again with"):
        save_model(network(), tmp_path / "p", input_example=FRAME.assign(a="x"))


def test_several_inputs_and_outputs_have_their_names(tmp_path: Path) -> None:
    rows = {"left": ARRAY, "right": RNG.normal(size=(80, 2, 3)).astype(np.float32)}
    package = save_model(two_headed(), tmp_path / "p", input_example=rows)
    signature = package.description.signature
    assert signature is not None
    assert isinstance(signature.outputs, ColumnSchema)
    assert signature.outputs.names == ("risk", "kinds")
    risk, kinds = two_headed().predict(rows, verbose=0)
    columns = prediction_columns(answered(package, rows), prediction_schema(signature), 80)
    assert columns[0].type == pa.float32()
    assert_same(columns[0].to_numpy(), risk[:, 0])
    assert_same(np.array(columns[1].to_pylist(), np.float32), kinds)


def test_exported_graph_answers_by_the_names_of_its_inputs(tmp_path: Path) -> None:
    rows = {"left": ARRAY, "right": RNG.normal(size=(80, 2, 3)).astype(np.float32)}
    package = save_model(two_headed(), tmp_path / "p", input_example=rows)
    as_exported(package, two_headed())
    answer = answered(package, rows)
    assert isinstance(answer, dict)
    risk, kinds = two_headed().predict(rows, verbose=0)
    np.testing.assert_allclose(answer["output_0"], risk[:, 0], rtol=1e-5)
    np.testing.assert_allclose(answer["output_1"], kinds, rtol=1e-5)


def test_exported_graph_answers_a_matrix(tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", input_example=FRAME)
    as_exported(package, network())
    loaded = tf.saved_model.load(str(package.folder / "data" / "model"))
    assert_same(
        np.asarray(answered(package, FRAME)), loaded.serve(FRAME.to_numpy(np.float32)).numpy()
    )


def test_graph_of_older_keras_is_asked_by_its_signature(tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", flavor="tensorflow", input_example=FRAME)
    network().export(package.folder / "data" / "model", verbose=False)
    (package.folder / "data" / "model.keras").unlink()
    seal(package.folder)
    np.testing.assert_allclose(
        np.asarray(answered(package, FRAME)),
        network().predict(FRAME.to_numpy(), verbose=0),
        rtol=1e-5,
    )


def test_module_that_was_never_traced_is_not_saved(tmp_path: Path) -> None:
    class Plain(tf.Module):  # type: ignore[misc]  # untyped there
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            return x

    with pytest.raises((UsageError, PackageFormatError), match=r"tf\.function"):
        save_model(Plain(), tmp_path / "p", input_example=ARRAY)
    with pytest.raises(UsageError, match="cannot be called"):
        save_model(tf.Module(), tmp_path / "p", input_example=ARRAY)


def test_network_without_weights_is_not_saved(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(UsageError, match="has no weights yet; fit it"):
        save_model(model, tmp_path / "p", input_example=ARRAY)


@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
def test_layer_of_code_is_named_and_loads_only_with_trust(flavor: str, tmp_path: Path) -> None:
    doubled = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda rows: rows * 2, name="twice")]
    )
    with pytest.raises(UntrustedCodeError, match="hold code, 'twice'"):
        save_model(doubled, tmp_path / "p", flavor=flavor, input_example=ARRAY)
    package = save_model(doubled, tmp_path / "p", flavor=flavor, input_example=ARRAY, trust=ALLOWED)
    with pytest.raises(UntrustedCodeError, match=r"hold code, 'twice'.*--trust-code"):
        answered(package, ARRAY)
    assert_same(np.asarray(answered(package, ARRAY, ALLOWED)), ARRAY * 2)


def test_own_layer_needs_its_class_which_trust_takes_from_the_package(tmp_path: Path) -> None:
    class Shift(keras.layers.Layer):  # type: ignore[misc]  # untyped there
        def call(self, rows: tf.Tensor) -> tf.Tensor:
            return rows + 1

    shifted = keras.Sequential([keras.Input((4,)), Shift()])
    with pytest.raises(UntrustedCodeError, match=r"Shift', which Keras does not have"):
        save_model(shifted, tmp_path / "p", input_example=ARRAY)
    package = save_model(network(), tmp_path / "p", flavor="tensorflow", input_example=ARRAY)
    shifted.save(package.folder / "data" / "model.keras")
    objects = cloudpickle.dumps({"Shift": Shift})
    (package.folder / "data" / "custom_objects.cloudpickle").write_bytes(objects)
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"Shift', which Keras does not have"):
        answered(package, ARRAY)
    assert_same(np.asarray(answered(package, ARRAY, ALLOWED)), ARRAY + 1)


@pytest.mark.parametrize(
    "module",
    ["keras.utils", "keras.models", "keras.applications", "keras.src.saving.saving_lib", "os"],
)
def test_functions_that_do_more_than_compute_are_refused(module: str, tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", input_example=ARRAY)
    path = package.folder / "data" / "model.keras"
    asked = {"module": module, "class_name": "function", "config": "get_file"}
    rewrite(path, b'"activation": "relu"', f'"activation": {asked!r}'.replace("'", '"'))
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=rf"{module}\.get_file"):
        answered(package, ARRAY)


def test_older_format_of_keras_needs_trust(tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", flavor="tensorflow", input_example=ARRAY)
    (package.folder / "data" / "model.keras").unlink()
    network().save(package.folder / "data" / "model.h5")
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"model\.h5 is of Keras' older format"):
        answered(package, ARRAY)
    expected = network().predict(ARRAY, verbose=0)
    assert_same(np.asarray(answered(package, ARRAY, ALLOWED)), expected)


def test_known_operations_are_told_apart() -> None:
    """Of all that TensorFlow has: what a network needs is admitted, what reaches out is not."""
    from tensorflow.python.framework import op_def_registry

    from sparkscore.flavors.saved_models import _only_computes

    admitted = ("MatMul", "While", "ReadVariableOp", "LookupTableFindV2", "RandomUniform", "Conv2D")
    refused = (
        *("ReadFile", "WriteFile", "MatchingFiles", "SaveV2", "RestoreV2", "PrintV2", "PyFunc"),
        *("InitializeTableFromTextFileV2", "TFRecordDataset", "DebugIdentityV2", "DecodeProtoV2"),
        *("GenerateVocabRemapping", "RandomDataset", "CreateSummaryFileWriter", "EagerPyFunc"),
    )
    for names, is_admitted in ((admitted, True), (refused, False)):
        for name in names:
            assert _only_computes(name, op_def_registry.get(name)) is is_admitted, name


class Leaks(tf.Module):  # type: ignore[misc]  # untyped there
    """Answers a file of the machine that it is loaded on, two functions deep."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    @tf.function  # type: ignore[untyped-decorator]  # untyped there
    def inner(self) -> tf.Tensor:
        return tf.strings.length(tf.io.read_file(self.path))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])  # type: ignore[untyped-decorator]  # untyped there
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x, axis=1) * 0 + tf.cast(self.inner(), tf.float32)


def test_graph_that_reads_a_file_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("12345")
    with pytest.raises(UntrustedCodeError, match="operations 'ReadFile', which may read or write"):
        save_model(Leaks(tmp_path / "secret"), tmp_path / "p", input_example=ARRAY)
    package = save_model(
        Leaks(tmp_path / "secret"), tmp_path / "p", input_example=ARRAY, trust=ALLOWED
    )
    assert np.asarray(answered(package, ARRAY, ALLOWED))[0] == 5


def test_operation_of_another_library_is_refused_by_its_name(tmp_path: Path) -> None:
    package = save_model(Scale(), tmp_path / "p", input_example=ARRAY)
    path = package.folder / "tf2model" / "saved_model.pb"
    path.write_bytes(path.read_bytes().replace(b"\x04Relu", b"\x04Rely"))
    seal(package.folder)
    with pytest.raises(PackageFormatError, match="operations 'Rely', which TensorFlow does not"):
        answered(package, ARRAY)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_broken_files_are_named(content: bytes, tmp_path: Path) -> None:
    for model, name in ((network(), "data/model.keras"), (Scale(), "tf2model/saved_model.pb")):
        package = save_model(model, tmp_path / name, input_example=ARRAY)
        (package.folder / name).write_bytes(content)
        seal(package.folder)
        with pytest.raises(PackageFormatError, match=Path(name).name.replace(".pb", "")):
            answered(package, ARRAY)


def test_threads_are_those_of_the_task(tmp_path: Path) -> None:
    package = save_model(network(), tmp_path / "p", input_example=ARRAY)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from sparkscore.flavors import load_predictor\n"
        "from sparkscore.package import TrustPolicy, open_package\n"
        "from sparkscore.spark.threads import limited_threads\n"
        "with limited_threads(2) as threads:\n"
        "    load_predictor(open_package(Path(sys.argv[1])), TrustPolicy())\n"
        "    threads.limit()\n"
        "    print(threads.n_in_force)\n"
    )
    assert run(sys.executable, script, package.folder).split() == ["2"]


_PEER = """
import sys
import mlflow, numpy as np, pandas as pd
package, rows, answers = sys.argv[1:]
given = np.load(rows) if rows.endswith("npy") else pd.read_parquet(rows)
np.save(answers, np.asarray(mlflow.pyfunc.load_model(package).predict(given)))
"""
_PEER_WRITES = """
import sys
import mlflow, keras, numpy as np, tensorflow as tf
from mlflow.models import infer_signature
kind, rows, package, answers = sys.argv[1:]
given = np.load(rows)
keras.utils.set_random_seed(1)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
class Scale(tf.Module):
    def __init__(self):
        self.weights = tf.Variable(tf.ones((4, 2)))
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def __call__(self, x):
        return x @ self.weights
if kind == "module":
    signature = infer_signature(given, Scale()(given).numpy())
    mlflow.tensorflow.save_model(Scale(), package, signature=signature)
else:
    signature = infer_signature(given, model.predict(given))
    flavor = mlflow.tensorflow if kind == "tensorflow" else mlflow.keras
    more = {"save_exported_model": True} if kind == "exported" else {}
    flavor.save_model(model, package, signature=signature, **more)
np.save(answers, mlflow.pyfunc.load_model(package).predict(given))
"""
_PEER_WRITES_TWO = """
import sys
import mlflow, keras, numpy as np
from mlflow.models import infer_signature
rows, package, answers = sys.argv[1:]
left = np.load(rows)
given = {"left": left, "right": left * 2}
keras.utils.set_random_seed(1)
ends = [keras.Input((4,), name=name) for name in given]
risk = keras.layers.Dense(1, name="risk")(keras.layers.Add()(ends))
kinds = keras.layers.Dense(3, name="kinds")(ends[0])
model = keras.Model(dict(zip(given, ends)), {"risk": risk, "kinds": kinds})
answer = model.predict(given)
mlflow.tensorflow.save_model(model, package, signature=infer_signature(given, answer))
np.savez(answers, **mlflow.pyfunc.load_model(package).predict(given))
"""


@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
@pytest.mark.parametrize("given", [ARRAY, FRAME], ids=["array", "frame"])
def test_own_package_answers_the_same_in_mlflow(
    flavor: str, given: np.ndarray | pd.DataFrame, tmp_path: Path
) -> None:
    package = save_model(network(), tmp_path / "p", flavor=flavor, input_example=given)
    assert_same(np.asarray(answered(package, given)), asked_of_mlflow(package, given, tmp_path))


def test_own_module_answers_the_same_in_mlflow(tmp_path: Path) -> None:
    package = save_model(Scale(), tmp_path / "p", input_example=ARRAY)
    assert_same(np.asarray(answered(package, ARRAY)), asked_of_mlflow(package, ARRAY, tmp_path))


@pytest.mark.parametrize("kind", ["keras", "exported", "tensorflow", "module"])
def test_package_of_mlflow_answers_the_same_without_any_trust(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ARRAY)
    peer(_PEER_WRITES, kind, tmp_path / "rows.npy", tmp_path / "p", tmp_path / "answers.npy")
    answer = answered(open_package(tmp_path / "p"), ARRAY)
    assert_same(np.asarray(answer), np.load(tmp_path / "answers.npy"))


def test_several_tensors_of_mlflow_are_columns_of_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ARRAY)
    peer(_PEER_WRITES_TWO, tmp_path / "rows.npy", tmp_path / "p", tmp_path / "answers.npz")
    package = open_package(tmp_path / "p")
    assert package.description.signature is not None
    declared = prediction_schema(package.description.signature)
    answer = answered(package, {"left": ARRAY, "right": ARRAY * 2})
    columns = prediction_columns(answer, declared, len(ARRAY))
    expected = np.load(tmp_path / "answers.npz")
    assert sorted(declared.names) == sorted(expected)
    for name, column in zip(declared.names, columns, strict=True):
        assert_same(np.array(column.to_pylist(), np.float32), expected[name])


def as_exported(package: Package, model: keras.Model) -> None:
    """Turn a package into one that MLflow writes with `save_exported_model=True`."""
    model.export(package.folder / "data" / "model", verbose=False)
    (package.folder / "data" / "model.keras").unlink()
    description = read_description(package.folder / MLMODEL)
    flavors = dict(description.flavors)
    flavors["keras"] = {**flavors["keras"], "save_exported_model": True}
    changed = type(description)(**{**vars(description), "flavors": flavors})
    write_description(changed, package.folder / MLMODEL)
    seal(package.folder)


def rewrite(path: Path, old: bytes, new: str) -> None:
    """Replace text in the config of a Keras file."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert old in parts["config.json"]
    parts["config.json"] = parts["config.json"].replace(old, new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def answered(package: Package, rows: object, trust: TrustPolicy | None = None) -> object:
    opened = open_package(package.folder)
    assert opened.description.signature is not None
    batch = example_batch(rows, opened.description.signature.inputs)
    return load_predictor(opened, trust or TrustPolicy()).predict(batch)


def asked_of_mlflow(package: Package, rows: np.ndarray | pd.DataFrame, folder: Path) -> np.ndarray:
    path = folder / ("rows.npy" if isinstance(rows, np.ndarray) else "rows.parquet")
    if isinstance(rows, np.ndarray):
        np.save(path, rows)
    else:
        rows.to_parquet(path)
    peer(_PEER, package.folder, path, folder / "answers.npy")
    answers: np.ndarray = np.load(folder / "answers.npy")
    return answers


def peer(script: str, *arguments: object) -> None:
    """Run a script with the Python that has MLflow; fails if none is named."""
    python = os.environ.get("SPARKSCORE_MLFLOW_PYTHON")
    assert python, "SPARKSCORE_MLFLOW_PYTHON must name a Python with MLflow; make test-flavors does"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run(python, script, *arguments, env={**env, "TF_CPP_MIN_LOG_LEVEL": "2"})


def run(python: str, script: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
