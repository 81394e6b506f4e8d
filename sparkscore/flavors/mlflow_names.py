"""Stands in for the few names of MLflow that models are written against, where it is not installed.

Scripts and pickles of MLflow's users name its base class, `set_model` and what its own saving puts
around a model. Where MLflow is installed, they get MLflow's: it is what they were written for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from sparkscore.flavors.python_model import PythonContext, PythonModel, script_run, set_model

_SET_MODEL_HERE = ("mlflow.models.model", "__mlflow_model__")
"""Where MLflow's own `set_model` leaves the model (release 3.17)."""


@contextmanager
def mlflow_importable() -> Iterator[None]:
    """Let `import mlflow` find MLflow, or the names that are known here."""
    if "mlflow" in sys.modules or find_spec("mlflow") is not None:
        yield
        return
    modules = _modules()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


def take_mlflow_model() -> object:
    """What a call of MLflow's own `set_model` has set since the last time; None without one."""
    module_name, attribute = _SET_MODEL_HERE
    module = sys.modules.get(module_name)
    model: object = getattr(module, attribute, None)
    if module is not None:
        setattr(module, attribute, None)
    return model


class FunctionModel:
    """A function, as MLflow pickles it."""

    func: Callable[[object], object]

    def predict(self, model_input: object) -> object:
        """What the function answers."""
        return self.func(model_input)


class ModelConfig:
    """The configuration that a script's package holds; beside a package, the script's own."""

    def __init__(self, *, development_config: Mapping[str, object] | None = None) -> None:
        run = script_run.get()
        self._values = (run.config if run else None) or development_config or {}

    def get(self, key: str) -> object:
        """The value of a key."""
        return self._values[key]

    def to_dict(self) -> dict[str, object]:
        """All values."""
        return dict(self._values)


class Annotated:
    """What MLflow notes about a model beside it: hints and signatures, which nothing here reads."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class FunctionInfo(NamedTuple):
    """How the argument of a model's `predict` is annotated, and its name."""

    input_type_hint: object
    input_param_name: str


def unchanged(
    args: tuple[object, ...], kwargs: dict[str, object], *_: object
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of `predict` as they are: they were converted to its hint before."""
    return args, kwargs


class MlflowError(Exception):
    """What MLflow's own wrapper around `predict` raises."""


_CLASSES: dict[str, object] = {
    "PythonModel": PythonModel,
    "PythonModelContext": PythonContext,
}
_SCHEMA = ("Array", "ColSpec", "DataType", "Map", "Object", "ParamSchema", "ParamSpec", "Property")
_NAMES: dict[str, dict[str, object]] = {
    "mlflow": {},
    "mlflow.exceptions": {"MlflowException": MlflowError},
    "mlflow.models": {"set_model": set_model, "ModelConfig": ModelConfig},
    "mlflow.models.model": {"set_model": set_model},
    "mlflow.models.model_config": {"ModelConfig": ModelConfig},
    "mlflow.models.signature": {"ModelSignature": Annotated, "_TypeHints": Annotated},
    "mlflow.pyfunc": _CLASSES,
    "mlflow.pyfunc.model": {**_CLASSES, "_FunctionPythonModel": FunctionModel},
    "mlflow.pyfunc.utils": {},
    "mlflow.pyfunc.utils.data_validation": {
        "FuncInfo": FunctionInfo,
        "_validate_model_input": unchanged,
    },
    "mlflow.types": {},
    "mlflow.types.schema": dict.fromkeys((*_SCHEMA, "Schema", "TensorSpec"), Annotated),
}


@cache
def _modules() -> dict[str, ModuleType]:
    modules = {name: ModuleType(name) for name in _NAMES}
    for name, module in modules.items():
        vars(module).update(_NAMES[name])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)
    return modules
