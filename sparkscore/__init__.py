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
    from sparkscore.client import SparkscoreClient, get_run, search_experiments, search_runs
    from sparkscore.current_run import (
        active_run,
        end_run,
        get_tracking_uri,
        set_experiment,
        set_tracking_uri,
        start_run,
    )
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
    from sparkscore.registering import register_model
    from sparkscore.run_log import (
        flush_async_logging,
        get_artifact_uri,
        log_artifact,
        log_artifacts,
        log_batch,
        log_dict,
        log_figure,
        log_image,
        log_input,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        log_table,
        log_text,
        set_tag,
        set_tags,
    )
    from sparkscore.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "LoaderModule",
    "PythonModel",
    "SparkscoreClient",
    "Workspace",
    "__version__",
    "active_run",
    "autolog",
    "end_run",
    "flush_async_logging",
    "get_artifact_uri",
    "get_run",
    "get_tracking_uri",
    "infer_signature",
    "load_model",
    "load_predictor",
    "log_artifact",
    "log_artifacts",
    "log_batch",
    "log_dict",
    "log_figure",
    "log_image",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_param",
    "log_params",
    "log_table",
    "log_text",
    "register_model",
    "save_model",
    "score",
    "search_experiments",
    "search_runs",
    "set_experiment",
    "set_model",
    "set_signature",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "spark_udf",
    "start_run",
]

_ROOMS = {
    "LoaderModule": "sparkscore.flavors",
    "PythonModel": "sparkscore.flavors",
    "SparkscoreClient": "sparkscore.client",
    "Workspace": "sparkscore.workspace",
    "active_run": "sparkscore.current_run",
    "autolog": "sparkscore.autologging",
    "end_run": "sparkscore.current_run",
    "flush_async_logging": "sparkscore.run_log",
    "get_artifact_uri": "sparkscore.run_log",
    "get_run": "sparkscore.client",
    "get_tracking_uri": "sparkscore.current_run",
    "infer_signature": "sparkscore.package.signature",
    "load_model": "sparkscore.direct",
    "load_predictor": "sparkscore.flavors",
    "log_artifact": "sparkscore.run_log",
    "log_artifacts": "sparkscore.run_log",
    "log_batch": "sparkscore.run_log",
    "log_dict": "sparkscore.run_log",
    "log_figure": "sparkscore.run_log",
    "log_image": "sparkscore.run_log",
    "log_input": "sparkscore.run_log",
    "log_metric": "sparkscore.run_log",
    "log_metrics": "sparkscore.run_log",
    "log_model": "sparkscore.direct",
    "log_param": "sparkscore.run_log",
    "log_params": "sparkscore.run_log",
    "log_table": "sparkscore.run_log",
    "log_text": "sparkscore.run_log",
    "register_model": "sparkscore.registering",
    "save_model": "sparkscore.flavors",
    "score": "sparkscore.api",
    "search_experiments": "sparkscore.client",
    "search_runs": "sparkscore.client",
    "set_experiment": "sparkscore.current_run",
    "set_model": "sparkscore.flavors",
    "set_signature": "sparkscore.flavors",
    "set_tag": "sparkscore.run_log",
    "set_tags": "sparkscore.run_log",
    "set_tracking_uri": "sparkscore.current_run",
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
