"""sparkscore: packaged models over large tables on Spark, exactly once, with every run on record.

The names below are loaded when they are first used: a Spark executor and `sparkscore --help`
come through this door too, and need next to nothing of what lies behind it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sparkscore.extras import missing_extra

if TYPE_CHECKING:
    from sparkscore.api import score, spark_udf
    from sparkscore.autologging import autolog
    from sparkscore.current_run import active_run, start_run
    from sparkscore.direct import load_model, log_model
    from sparkscore.flavors import (
        LoaderModule,
        PythonModel,
        load_predictor,
        save_model,
        set_model,
        set_signature,
    )
    from sparkscore.package.signature import infer_signature
    from sparkscore.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "LoaderModule",
    "PythonModel",
    "Workspace",
    "__version__",
    "active_run",
    "autolog",
    "infer_signature",
    "load_model",
    "load_predictor",
    "log_model",
    "save_model",
    "score",
    "set_model",
    "set_signature",
    "spark_udf",
    "start_run",
]

_ROOMS = {
    "LoaderModule": "sparkscore.flavors",
    "PythonModel": "sparkscore.flavors",
    "Workspace": "sparkscore.workspace",
    "active_run": "sparkscore.current_run",
    "autolog": "sparkscore.autologging",
    "infer_signature": "sparkscore.package.signature",
    "load_model": "sparkscore.direct",
    "load_predictor": "sparkscore.flavors",
    "log_model": "sparkscore.direct",
    "save_model": "sparkscore.flavors",
    "score": "sparkscore.api",
    "set_model": "sparkscore.flavors",
    "set_signature": "sparkscore.flavors",
    "spark_udf": "sparkscore.api",
    "start_run": "sparkscore.current_run",
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'sparkscore' has no attribute {name!r}")
    try:
        value: object = getattr(import_module(_ROOMS[name]), name)
    except ModuleNotFoundError as exc:
        missing = missing_extra(exc, f"sparkscore.{name}")
        if missing is None:
            raise
        raise missing from exc
    return value


def __dir__() -> list[str]:
    return __all__
