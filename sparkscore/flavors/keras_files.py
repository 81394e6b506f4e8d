"""Models in Keras' own files: read for what they would bring in, and only then loaded."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from sparkscore.errors import MissingExtraError, PackageFormatError, listed, shown
from sparkscore.flavors.tensors import array_input, tensor_answer
from sparkscore.flavors.threads import threads_of_task
from sparkscore.package.trust import admit_code, load_cloudpickle

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

FILE = "model.keras"
_LEGACY_FILE = "model.h5"
_OWN_OBJECTS = ("custom_objects.cloudpickle", "global_custom_objects.cloudpickle")

_PARTS = (
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "quantizers",
    "random",
    "regularizers",
)
"""Modules of Keras whose classes and functions only compute; others read files and URLs."""
_CODE = ("Lambda", "__lambda__")
_FOREIGN = ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
"""Layers that hold a model of another library, in a form that nobody here has read."""


class KerasModel(Protocol):
    """`keras.Model`, as far as it is asked."""

    def predict_on_batch(self, x: object) -> object:
        """What it answers to arrays, as arrays."""
        ...


class KerasPredictor:
    """Asks a Keras model for each batch as a whole."""

    def __init__(self, model: KerasModel, signature: Signature) -> None:
        self._model = model
        self._signature = signature

    def predict(self, batch: pa.RecordBatch) -> object:
        """One array, or several by the names of the model's outputs."""
        arrays = array_input(batch, self._signature.inputs)
        # The same bits as `predict`, which cuts rows into pieces of 32 and is 50 times slower.
        answer = self._model.predict_on_batch(arrays)
        # Models that are classes of their own have no names.
        names = getattr(self._model, "output_names", None) or ()
        return tensor_answer(answer, names, self._signature)


def import_keras() -> ModuleType:
    """Keras, with TensorFlow held to the threads of the task where it computes.

    Raises:
        MissingExtraError: Keras or what it computes with is not installed.
    """
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()
    try:
        import keras
    except ImportError as exc:
        raise _missing(exc) from exc
    module: ModuleType = keras
    return module


def _import_torchs_compiler() -> None:
    """Load Triton, where PyTorch has brought it, before TensorFlow.

    Both hold an LLVM of their own, and the process ends if Triton's comes second: a worker that
    keeps models of both libraries must not.
    """
    with suppress(ImportError):
        import triton  # noqa: F401 - for the order


def import_tensorflow() -> ModuleType:
    """TensorFlow, held to the threads of the task if it has not computed before.

    Raises:
        MissingExtraError: It is not installed.
    """
    # Each process would tell of its CPU's instructions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _import_torchs_compiler()
    try:
        import tensorflow
    except ImportError as exc:
        raise _missing(exc) from exc
    module: ModuleType = tensorflow
    threading = module.config.threading
    try:
        threading.set_intra_op_parallelism_threads(threads_of_task())
        threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # Its pools are there, made by an earlier model of this process.
        pass
    return module


def load_keras_model(folder: Path, signature: Signature, trust: TrustPolicy) -> KerasPredictor:
    """The model in a folder that MLflow's flavors `keras` and `tensorflow` call `data`.

    Raises:
        UntrustedCodeError: Its file holds code, or names classes that are not Keras' own.
        PackageFormatError: There is no such file, or Keras does not read it.
        MissingExtraError: Keras is not installed.
    """
    path = folder / FILE
    if not path.is_file() and (folder / _LEGACY_FILE).is_file():
        path = folder / _LEGACY_FILE
        what = f"{path} is of Keras' older format, in which layers of code are not told from others"
        admit_code(f"{what}; loading it runs what it says", trust)
    elif not path.is_file():
        raise PackageFormatError(f"{folder} has neither {FILE} nor {_LEGACY_FILE}")
    keras = import_keras()
    own: dict[str, object] = {}
    if trust.allow_code:
        own = _own_objects(folder, trust)
    else:
        _audit(path, trust)
    try:
        model = keras.saving.load_model(
            path, custom_objects=own, compile=False, safe_mode=not trust.allow_code
        )
    except Exception as exc:  # Keras builds layers of any kind: whatever it raises means this
        if "safe_mode" in str(exc):
            what = f"{path} was refused by Keras itself: {shown(str(exc))}"
            admit_code(f"{what}; loading it runs what it says", trust)
        raise PackageFormatError(
            f"{path} is no model that Keras {keras.__version__} reads: {shown(str(exc))}"
        ) from exc
    return KerasPredictor(model, signature)


def _own_objects(folder: Path, trust: TrustPolicy) -> dict[str, object]:
    """Classes and functions that a package brings along for its layers, by their names."""
    found: dict[str, object] = {}
    for name in _OWN_OBJECTS:
        path = folder / name
        if not path.is_file():
            continue
        objects = load_cloudpickle(path, trust)
        if not isinstance(objects, Mapping):
            raise PackageFormatError(f"{path} holds no mapping of names to classes")
        found.update({str(key): value for key, value in objects.items()})
    return found


def _audit(path: Path, trust: TrustPolicy) -> None:
    """Refuse a file that names code or classes other than Keras' own; nothing is loaded for it."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as exc:
        raise PackageFormatError(f"{path} is no model of Keras 3: {shown(str(exc))}") from exc
    code: list[str] = []
    unknown: list[str] = []
    for kind, module, layer in _named(config, ""):
        if kind in _CODE or kind in _FOREIGN:
            code.append(layer)
        elif not _is_keras(module):
            unknown.append(f"{module}.{kind}" if module else kind)
    if code:
        admit_code(
            f"{path} has layers that hold code, {listed(dict.fromkeys(code))}; loading runs it",
            trust,
        )
    if unknown:
        admit_code(
            f"{path} names {listed(dict.fromkeys(unknown))}, which Keras does not have; they would "
            "be code that the package brings",
            trust,
        )


def _named(node: object, layer: str) -> Iterator[tuple[str, str, str]]:
    """Class or function, its module and the innermost layer, of each object in a config."""
    if isinstance(node, list):
        for item in node:
            yield from _named(item, layer)
    elif isinstance(node, dict):
        kind, config = node.get("class_name"), node.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            layer = config["name"]
        if isinstance(kind, str):
            name = config if kind == "function" else kind
            yield str(name), str(node.get("module") or ""), layer
        for value in node.values():
            yield from _named(value, layer)


def _is_keras(module: str) -> bool:
    """Whether a module is one that only computes; values of plain types name none."""
    if module in ("", "builtins", "keras") or module.startswith("keras.src.models."):
        return True
    first, _, rest = module.partition(".")
    return first == "keras" and rest.removeprefix("src.").partition(".")[0] in _PARTS


def _missing(exc: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"the flavor needs {exc.name}, which is not installed; "
        "run: pip install 'sparkscore[tensorflow]'"
    )
