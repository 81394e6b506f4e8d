"""Which flavors there are; a flavor's module is loaded when its name is asked for."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import cast

from sparkscore.errors import UnknownFlavorError, listed, nearest, shown
from sparkscore.extras import missing_extra
from sparkscore.flavors.base import Flavor

GENERIC = "python_function"
"""The flavor that says how to call a model of any library; the last choice of all."""

SPARK = "spark"
"""The flavor whose models Spark applies itself; see docs/decisions/0024-spark-ml.md."""

_GROUP = "sparkscore.flavors"
_BUILT_IN = {
    "catboost": "sparkscore.flavors.catboost:CatboostFlavor",
    "keras": "sparkscore.flavors.keras:KerasFlavor",
    "lightgbm": "sparkscore.flavors.lightgbm:LightgbmFlavor",
    "onnx": "sparkscore.flavors.onnx:OnnxFlavor",
    "prophet": "sparkscore.flavors.prophet:ProphetFlavor",
    "pytorch": "sparkscore.flavors.pytorch:PytorchFlavor",
    # Where Spark is known, which no file of this room is allowed to be.
    SPARK: "sparkscore.spark.pipeline_flavor:SparkFlavor",
    "sklearn": "sparkscore.flavors.sklearn:SklearnFlavor",
    "statsmodels": "sparkscore.flavors.statsmodels:StatsmodelsFlavor",
    "tensorflow": "sparkscore.flavors.tensorflow:TensorflowFlavor",
    "transformers": "sparkscore.flavors.transformers:TransformersFlavor",
    "xgboost": "sparkscore.flavors.xgboost:XgboostFlavor",
    GENERIC: "sparkscore.flavors.python_function:PythonFunctionFlavor",
}


def known_flavors() -> tuple[str, ...]:
    """The names of all flavors, built in and plugged in, the generic one last."""
    plugged = {entry.name for entry in entry_points(group=_GROUP)}
    return (*sorted((plugged | _BUILT_IN.keys()) - {GENERIC}), GENERIC)


def get_flavor(name: str) -> Flavor:
    """The flavor called `name`; a plug-in does not replace a built-in one.

    Raises:
        UnknownFlavorError: There is none; names those that are there.
        MissingExtraError: Its module needs a library that is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        try:
            return cast("Flavor", getattr(importlib.import_module(module), attribute)())
        except ModuleNotFoundError as exc:
            missing = missing_extra(exc, f"the flavor {name!r}")
            if missing is None:
                raise
            raise missing from exc
    for entry in entry_points(group=_GROUP, name=name):
        return cast("Flavor", entry.load()())
    known = known_flavors()
    raise UnknownFlavorError(
        f"flavor {shown(name)} is unknown{nearest(name, known)}; known are {listed(known)}. "
        f"A plug-in brings further ones (entry point {_GROUP})"
    )
