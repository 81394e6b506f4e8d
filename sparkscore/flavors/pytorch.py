"""PyTorch: modules, pickled whole, and programs of torch.export, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    PredictionError,
    SignatureMismatchError,
    UsageError,
)
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import NUMBERS, float32_matrix
from sparkscore.flavors.tensors import model_arrays
from sparkscore.flavors.threads import torch_threads
from sparkscore.package.layout import resolve_inside
from sparkscore.package.schema import ColumnSchema, Schema
from sparkscore.package.trust import admit_code, load_torch, running_code

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_DATA = "data"
_PICKLED = "model.pth"
_EXPORTED = "model.pt2"
_PICKLE_MODULE = "mlflow.pytorch.pickle_module"
"""By which MLflow reads what cloudpickle wrote."""
_WHERE = "MLmodel flavors.pytorch.model_data"


class PytorchFlavor:
    """Reads what MLflow's flavor `pytorch` writes in both of its forms, and TorchScript."""

    name = "pytorch"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `data/model.pth`, or `model.pt2` of an ExportedProgram; see `Flavor.save`."""
        torch = _import_torch()
        data = folder / _DATA
        data.mkdir()
        if isinstance(model, torch.export.ExportedProgram):
            torch.export.save(model, data / _EXPORTED)
        elif isinstance(model, torch.nn.Module):
            _pickle(torch, model, data)
        else:
            raise UsageError(
                f"a {type(model).__name__} is no torch.nn.Module, and no program that "
                "torch.export.export(module, ...) has returned"
            )
        own: dict[str, object] = {
            "model_data": _DATA,
            "pytorch_version": str(torch.__version__),
            "code": None,
        }
        generic = {
            "loader_module": "mlflow.pytorch",
            "data": _DATA,
            "pickle_module_name": _PICKLE_MODULE,
            "config": {"device": None},
        }
        # Builds for one device carry its name in the version, and only some indexes have them.
        pinned = f"torch=={Version(torch.__version__).public}"
        requirements = ("cloudpickle", "numpy", "pandas", pinned)
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor of OMP_NUM_THREADS threads, or of one; see `Flavor.load`."""
        torch = _import_torch()
        data = resolve_inside(folder, conf.get("model_data"), _WHERE)
        name = _PICKLED if (data / _PICKLED).is_file() else _EXPORTED
        path = resolve_inside(folder, f"{conf['model_data']}/{name}", _WHERE)
        _check_numbers(signature.inputs)
        if name == _EXPORTED:
            # torch unpickles its tensors, looks its functions up in all of torch, and evaluates
            # its sizes as Python.
            admit_code(f"{path} is a program of torch.export; loading it runs what it says", trust)
            with running_code(path):
                return _PytorchPredictor(torch.export.load(path).module(), signature.inputs)
        model = load_torch(path, trust)
        if not isinstance(model, torch.nn.Module):
            raise PackageFormatError(
                f"{path} holds a {type(model).__name__} and no torch.nn.Module; save the "
                "whole module, since a state alone does not say how to compute"
            )
        return _PytorchPredictor(model.eval(), signature.inputs)


class _PytorchPredictor:
    def __init__(self, model: torch.nn.Module, schema: Schema) -> None:
        self._model = model
        self._schema = schema

    def predict(self, batch: pa.RecordBatch) -> object:
        """An array of the model's tensor, or arrays by the names that it gives to several."""
        import torch

        with torch.no_grad(), torch_threads():
            answer = self._model(*map(torch.from_numpy, _arguments(batch, self._schema)))
        if isinstance(answer, Mapping):
            return {str(name): _array(tensor) for name, tensor in answer.items()}
        return _array(answer)


def _arguments(batch: pa.RecordBatch, schema: Schema) -> list[np.ndarray]:
    """What a module is called with: rows of float32, or tensors in the order of the signature."""
    import numpy as np

    if isinstance(schema, ColumnSchema):
        # In the order of memory in which a tensor of rows is made by itself.
        return [np.ascontiguousarray(float32_matrix(batch, schema))]
    arrays = model_arrays(batch, schema)
    return list(arrays.values()) if isinstance(arrays, dict) else [arrays]


def _array(answer: object) -> np.ndarray:
    import torch

    if not isinstance(answer, torch.Tensor):
        raise PredictionError(
            f"the model answered a {type(answer).__name__} and no tensor; wrap it in a module "
            "whose forward() answers one tensor, or a dict of them"
        )
    # NumPy and Arrow have no bfloat16; a float32 holds the same as either float of two bytes.
    is_half = answer.dtype in (torch.float16, torch.bfloat16)
    array: np.ndarray = (answer.float() if is_half else answer).numpy()
    return array


def _check_numbers(schema: Schema) -> None:
    if isinstance(schema, ColumnSchema):
        others = [f"{c.name!r} ({c.type})" for c in schema.columns if c.type not in NUMBERS]
    else:
        known = ("bool", "float", "int", "uint")
        others = [
            f"{tensor.name or '0'!r} ({tensor.dtype})"
            for tensor in schema.tensors
            if not tensor.dtype.startswith(known)
        ]
    if others:
        raise SignatureMismatchError(
            f"torch's tensors hold numbers, and the signature declares {', '.join(others)}; give "
            "the model a predict(context, model_input) of your own, and save that with "
            "flavor='python_function'"
        )


def _pickle(torch: ModuleType, model: torch.nn.Module, data: Path) -> None:
    import cloudpickle

    (data / "pickle_module_info.txt").write_text(_PICKLE_MODULE, "utf-8")
    try:
        torch.save(model, data / _PICKLED, pickle_module=cloudpickle)
    except Exception as exc:  # pickling runs foreign code: it may raise anything
        raise UsageError(
            f"a {type(model).__name__} cannot be pickled ({exc}); pass what "
            "torch.export.export(module, ...) returns"
        ) from exc


def _import_torch() -> Any:  # noqa: ANN401 - checked without torch, too
    try:
        import torch
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[pytorch]'"
        ) from exc
    return torch
