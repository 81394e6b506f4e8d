"""Stands in for the few names of MLflow that models are written against, where it is not installed.

Scripts and pickles of MLflow's users name its base class, `set_model` and what its own saving puts
around a model. Where MLflow is installed, they get MLflow's: it is what they were written for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from sparkscore.flavors.portable import as_hinted
from sparkscore.flavors.python_model import (
    PythonContext,
    PythonModel,
    ScriptRun,
    script_run,
    set_model,
)

_OWN_CONFIG = ("mlflow.models.model_config", "__mlflow_model_config__")
_OWN_MODEL = ("mlflow.models.model", "__mlflow_model__")
"""Where MLflow's own `ModelConfig` looks, and where its `set_model` puts the model (3.17)."""


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


@contextmanager
def script_running(run: ScriptRun, script: bytes) -> Iterator[None]:
    """Let a script get the configuration of its run, and leave the model there that it sets.

    Args:
        run: Is given the model, whichever library's `set_model` the script calls.
        script: Its text. Where it names MLflow and MLflow is installed, MLflow's own functions do
            the same; they are found only then, since importing MLflow takes seconds.
    """
    token = script_run.set(run)
    is_mlflows = b"mlflow" in script and not _stands_in() and find_spec("mlflow") is not None
    if is_mlflows:
        _set(_OWN_CONFIG, dict(run.config) or "")
        _set(_OWN_MODEL, None)
    try:
        yield
        if is_mlflows and run.model is None:
            run.model = getattr(sys.modules[_OWN_MODEL[0]], _OWN_MODEL[1])
    finally:
        script_run.reset(token)
        if is_mlflows:
            _set(_OWN_CONFIG, None)
            _set(_OWN_MODEL, None)


def _set(place: tuple[str, str], value: object) -> None:
    setattr(import_module(place[0]), place[1], value)


def _stands_in() -> bool:
    """Whether `import mlflow` finds the names that are known here."""
    return sys.modules.get("mlflow") is _modules()["mlflow"]


class FunctionModel:
    """A function, as MLflow pickles it."""

    func: Callable[[object], object]

    def predict(self, model_input: object) -> object:
        """What the function answers."""
        return self.func(model_input)


class ModelConfig:
    """The configuration that a script's package holds; where its author runs it, its own."""

    def __init__(self, *, development_config: Mapping[str, object] | None = None) -> None:
        run = script_run.get()
        self._values = (development_config if run is None else run.config) or {}
        if not self._values:
            raise ValueError("the package has no configuration; save it with model_config=")

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


def hinted_arguments(
    args: tuple[object, ...], kwargs: dict[str, object], position: int, hint: object, _: str
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of `predict`, its rows as its annotation asks for them."""
    rows = as_hinted(args[position], hint)
    return (*args[:position], rows, *args[position + 1 :]), kwargs


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
        "_validate_model_input": hinted_arguments,
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
