"""ONNX: graphs, run by ONNX Runtime. Loading one runs no code, so that it needs no trust."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    UntrustedCodeError,
    UsageError,
    listed,
    shown,
)
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import column_inputs
from sparkscore.flavors.onnx_graphs import read_graph
from sparkscore.flavors.onnx_tensors import Answers, NodeArg, plan_feeds
from sparkscore.flavors.threads import threads_of_task
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FILE = "model.onnx"
_TENSORS = "model.onnx.data"
_CPU = "CPUExecutionProvider"
# Sends rows to a service in the network, which no model may ask for.
_REMOTE = "AzureExecutionProvider"
_OPTIONS = (
    "execution_mode",
    "extra_session_config",
    "graph_optimization_level",
    "inter_op_num_threads",
    "intra_op_num_threads",
)
# Those that only say how to compute. Others name files to read, or libraries.
_SESSION_KEYS = (
    "session.disable_prepacking",
    "session.disable_quant_qdq",
    "session.enable_quant_qdq_cleanup",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.set_denormal_as_zero",
)
_QUIET = 3
"""ONNX Runtime's level of errors: converters declare shapes that it warns of in each batch."""


class OnnxFlavor:
    """Reads what MLflow's flavor `onnx` writes, with tensors in the file or beside it."""

    name = "onnx"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.onnx`, and its larger tensors as `model.onnx.data`; see `Flavor.save`."""
        onnx = _import("onnx")
        if not isinstance(model, onnx.ModelProto):
            raise UsageError(
                f"a {type(model).__name__} is no onnx.ModelProto; convert the model first, or load "
                "its file: onnx.load(path)"
            )
        # Its tensors move to the file, out of the object that is written.
        written = copy.deepcopy(model)
        try:
            onnx.save_model(
                written, str(folder / _FILE), save_as_external_data=True, location=_TENSORS
            )
        except (ValueError, OSError) as exc:
            raise UsageError(f"onnx cannot save this model: {exc}") from exc
        own: dict[str, object] = {
            "onnx_version": onnx.__version__,
            "data": _FILE,
            "providers": [_CPU],
            "onnx_session_options": None,
            "code": None,
        }
        generic = {"loader_module": "mlflow.onnx", "data": _FILE}
        requirements = ("numpy", "onnx", "onnxruntime", "pandas")
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self,
        folder: Path,
        conf: FlavorConf,
        signature: Signature,
        trust: TrustPolicy,  # noqa: ARG002 - a graph holds no code
    ) -> Predictor:
        """A predictor of OMP_NUM_THREADS threads, or of one; see `Flavor.load`."""
        onnxruntime = _import("onnxruntime")
        _import("onnx")
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.onnx.data")
        schema = column_inputs(signature)
        read_graph(folder, path)
        options = _session_options(conf, folder)
        providers = _providers(conf, folder, onnxruntime.get_available_providers())

        def open_session(n_threads: int) -> _Session:
            return _open_session(path, options, providers, n_threads)

        return _OnnxPredictor(open_session, schema, signature)


class _Session(Protocol):
    def get_inputs(self) -> list[NodeArg]: ...

    def get_outputs(self) -> list[NodeArg]: ...

    def run(
        self, output_names: Sequence[str], input_feed: dict[str, np.ndarray]
    ) -> list[object]: ...


class _OnnxPredictor:
    def __init__(
        self, open_session: Callable[[int], _Session], schema: ColumnSchema, signature: Signature
    ) -> None:
        self._open_session = open_session
        self._n_threads = threads_of_task()
        self._session = open_session(self._n_threads)
        self._feeds = plan_feeds(self._session.get_inputs(), schema)
        self._answers = Answers(self._session.get_outputs(), signature)

    def predict(self, batch: pa.RecordBatch) -> object:
        # A session keeps its threads for life, and a daemon may have loaded it for workers that
        # have more cores.
        n_threads = threads_of_task()
        if n_threads != self._n_threads:
            self._session, self._n_threads = self._open_session(n_threads), n_threads
        feeds = {feed.node.name: feed.tensor(batch) for feed in self._feeds}
        return self._answers.columns(self._session.run(self._answers.asked, feeds))


def _open_session(
    path: Path, options: Mapping[str, object], providers: Sequence[str], n_threads: int
) -> _Session:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    asked = onnxruntime.SessionOptions()
    asked.log_severity_level = _QUIET
    asked.intra_op_num_threads = n_threads
    asked.inter_op_num_threads = 1
    level = options.get("graph_optimization_level")
    try:
        if level is not None:
            asked.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
        for key, value in _session_keys(options, path).items():
            asked.add_session_config_entry(key, str(value))
        session: _Session = onnxruntime.InferenceSession(
            str(path), sess_options=asked, providers=list(providers)
        )
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NoSuchFile,
        errors.NotImplemented,
        errors.RuntimeException,
        ValueError,
    ) as exc:
        raise PackageFormatError(
            f"{path} is no model that ONNX Runtime {onnxruntime.__version__} runs: "
            f"{shown(str(exc).replace(str(path), path.name))}"
        ) from exc
    return session


def _session_options(conf: FlavorConf, folder: Path) -> Mapping[str, object]:
    """MLflow's options, of which threads and the order of nodes are the task's to say."""
    options = conf.get("onnx_session_options") or {}
    if not isinstance(options, Mapping):
        raise PackageFormatError(
            f"{folder}: onnx_session_options must be a mapping, not {shown(options)}"
        )
    _refuse_unknown(options, _OPTIONS, folder)
    _session_keys(options, folder)
    level = options.get("graph_optimization_level")
    if level is not None and type(level) is not int:
        raise PackageFormatError(
            f"{folder}: graph_optimization_level must be a number, not {shown(level)}"
        )
    return options


def _session_keys(options: Mapping[str, object], folder: Path) -> Mapping[str, object]:
    entries = options.get("extra_session_config") or {}
    if not isinstance(entries, Mapping):
        raise PackageFormatError(
            f"{folder}: extra_session_config must be a mapping, not {shown(entries)}"
        )
    _refuse_unknown(entries, _SESSION_KEYS, folder)
    return entries


def _refuse_unknown(asked: Mapping[str, object], known: Sequence[str], folder: Path) -> None:
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UntrustedCodeError(
            f"{folder}: onnx_session_options names {listed(unknown)}, by which a package could "
            f"bring a library of its own; known are {', '.join(known)}"
        )


def _providers(conf: FlavorConf, folder: Path, available: Sequence[str]) -> list[str]:
    """Those that the package names and this machine has, the CPU last and always.

    Raises:
        UntrustedCodeError: One has options, which can name libraries.
    """
    named = conf.get("providers") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, Sequence) or not all(isinstance(name, str) for name in named):
        raise UntrustedCodeError(
            f"{folder}: providers are names, not {shown(named)}; options of a provider can name "
            "libraries to load"
        )
    usable = [name for name in named if name in available and name not in (_CPU, _REMOTE)]
    return [*usable, _CPU]


def _import(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[onnx]'"
        ) from exc
