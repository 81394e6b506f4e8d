"""Any object with `predict`, pickled with its artifacts; loading it needs trust in pickles."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from sparkscore.errors import PackageFormatError, UsageError, shown
from sparkscore.flavors import portable
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import column_inputs, pandas_frame
from sparkscore.package.layout import resolve_inside
from sparkscore.package.trust import load_cloudpickle

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FILE = "python_model.pkl"
_ARTIFACTS = "artifacts"


class PythonModel(Protocol):
    """What a python_function model looks like; no base class is needed.

    It may also have `load_context(context)`, called once after loading, and a third parameter
    `params` of `predict`. A class that lives in a module of its own is pickled by name, so that
    module must be installed where the package is loaded.
    """

    def predict(self, context: PythonContext, model_input: pd.DataFrame) -> object:
        """One prediction for each row of `model_input`, in order."""
        ...


@dataclass(frozen=True)
class PythonContext:
    """What a model finds beside itself: local paths by artifact name, and its configuration."""

    artifacts: Mapping[str, str]
    model_config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelWithArtifacts:
    """A model and the files or folders that its package shall bring along, by name."""

    model: object
    artifacts: Mapping[str, Path]


class PythonFunctionFlavor:
    """Reads packages of our own, and of MLflow's PythonModel where MLflow is installed."""

    name = "python_function"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `python_model.pkl` and the artifacts; see `Flavor.save`."""
        import cloudpickle

        artifacts: Mapping[str, Path] = {}
        if isinstance(model, ModelWithArtifacts):
            artifacts = model.artifacts
            model = model.model
        if not callable(getattr(model, "predict", None)):
            raise UsageError(
                f"a {type(model).__name__} has no method predict(context, model_input)"
            )
        cloudpickle.register_pickle_by_value(portable)
        try:
            data = cloudpickle.dumps(portable.PortableModel(model))
        except Exception as exc:  # pickling runs foreign code: it may raise anything
            raise UsageError(
                f"a {type(model).__name__} cannot be pickled ({exc}); open files and connections "
                "in load_context instead"
            ) from exc
        finally:
            cloudpickle.unregister_pickle_by_value(portable)
        (folder / _FILE).write_bytes(data)
        conf: dict[str, object] = {
            "loader_module": "mlflow.pyfunc.model",
            "python_model": _FILE,
            "cloudpickle_version": cloudpickle.__version__,
            "streamable": False,
        }
        if artifacts:
            conf["artifacts"] = {
                name: _copy_artifact(name, path, folder) for name, path in artifacts.items()
            }
        return SavedFlavor({self.name: conf}, ("cloudpickle", "pandas"))

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor around the pickled object; see `Flavor.load`."""
        where = "MLmodel flavors.python_function"
        path = resolve_inside(folder, conf.get("python_model"), f"{where}.python_model")
        compression = conf.get("python_model_compression")
        loaded = load_cloudpickle(path, trust, None if compression is None else str(compression))
        if not (hasattr(loaded, "predict") and hasattr(loaded, "load_context")):
            raise PackageFormatError(f"{path} holds a {type(loaded).__name__} and no PythonModel")
        model = portable.PortableModel(loaded)
        context = PythonContext(_artifacts(folder, conf, where), _config(conf, where))
        model.load_context(context)
        return _PythonPredictor(model, context, column_inputs(signature))


class _PythonPredictor:
    def __init__(
        self, model: portable.PortableModel, context: PythonContext, schema: ColumnSchema
    ) -> None:
        self._model = model
        self._context = context
        self._schema = schema

    def predict(self, batch: pa.RecordBatch) -> object:
        return self._model.predict(self._context, pandas_frame(batch, self._schema))


def _copy_artifact(name: str, path: Path, folder: Path) -> dict[str, str]:
    if Path(name).name != name or name in ("", ".", ".."):
        raise UsageError(f"artifact name {shown(name)} must be a plain file name")
    target = folder / _ARTIFACTS / name / path.name
    target.parent.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, target)
    elif path.is_file():
        shutil.copyfile(path, target)
    else:
        raise UsageError(f"artifact {name!r}: {path} is no file and no folder")
    relative = target.relative_to(folder).as_posix()
    return {"path": relative, "uri": relative}


def _artifacts(folder: Path, conf: FlavorConf, where: str) -> dict[str, str]:
    nodes = conf.get("artifacts") or {}
    if not isinstance(nodes, Mapping) or not all(isinstance(n, Mapping) for n in nodes.values()):
        raise PackageFormatError(f"{where}.artifacts must map names to path and uri")
    return {
        str(name): str(resolve_inside(folder, node.get("path"), f"{where}.artifacts.{name}"))
        for name, node in nodes.items()
    }


def _config(conf: FlavorConf, where: str) -> Mapping[str, object]:
    config = conf.get("config") or {}
    if not isinstance(config, Mapping):
        raise PackageFormatError(f"{where}.config must be a mapping, not {shown(config)}")
    return cast("Mapping[str, object]", config)
