"""Models that are Python themselves: a pickled object, a script, or a module that loads data.

Loading any of them runs code of the package, and thus needs trust.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sparkscore.errors import PackageFormatError, SignatureMismatchError, UsageError, shown
from sparkscore.flavors import portable, python_model
from sparkscore.flavors.base import FlavorConf, SavedFlavor
from sparkscore.flavors.mlflow_names import mlflow_importable, script_running
from sparkscore.flavors.python_model import (
    LoaderModule,
    PythonContext,
    PythonParts,
    ScriptRun,
)
from sparkscore.flavors.tensors import model_input
from sparkscore.package.imported import libraries_of_pickle, libraries_of_sources
from sparkscore.package.layout import resolve_inside
from sparkscore.package.trust import admit_code, load_cloudpickle, running_code

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import Schema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

OBJECT_LOADER = "mlflow.pyfunc.model"
SCRIPT_LOADER = "mlflow.pyfunc.loaders.code_model"
_FILE = "python_model.pkl"
_ARTIFACTS = "artifacts"
_DATA = "data"
_WHERE = "MLmodel flavors.python_function"
_SCRIPT_MODULE = "sparkscore_model_script"
_OURS = ("sparkscore.flavors.portable", "PortableModel")
_WRAPPED = {
    _OURS: "model",
    ("sparkscore.flavors.mlflow_names", "FunctionModel"): "func",
    ("mlflow.pyfunc.model", "_FunctionPythonModel"): "func",
}
"""Classes that saving puts around a model, ours and MLflow's, and where it lies in them."""


class PythonFunctionFlavor:
    """Reads and writes packages of our own and of MLflow, in all of their forms."""

    name = "python_function"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write a pickled object, a script (`*.py`) or a `LoaderModule`; see `Flavor.save`."""
        parts = model if isinstance(model, PythonParts) else PythonParts(model)
        requirements: tuple[str, ...] = ("pandas",)
        if isinstance(parts.model, str | Path):
            conf = _save_script(Path(parts.model), folder)
            requirements += libraries_of_sources([Path(parts.model)])
        elif isinstance(parts.model, LoaderModule):
            conf = _save_loader(parts.model, folder)
        else:
            conf = _save_object(parts.model, folder)
            imported = libraries_of_pickle((folder / _FILE).read_bytes())
            requirements = ("cloudpickle", "pandas", *imported)
        conf["streamable"] = False
        if parts.artifacts:
            conf["artifacts"] = {
                name: _copy_artifact(name, path, folder) for name, path in parts.artifacts.items()
            }
        if parts.config:
            conf["config"] = dict(parts.config)
        return SavedFlavor({self.name: conf}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> PythonPredictor:
        """A predictor around what the package's code makes; see `Flavor.load`.

        The package's `code` must be importable.
        """
        context = PythonContext(_artifacts(folder, conf), _config(conf))
        with mlflow_importable():
            if conf.get("model_code_path"):
                model = _run_script(folder, conf, context, trust)
            elif conf.get("loader_module") == OBJECT_LOADER:
                model = _load_object(folder, conf, trust)
            else:
                model = _call_loader(folder, conf, context, trust)
            hint = getattr(model, "hint", None) if _class_of(model) == _OURS else None
            while _class_of(model) in _WRAPPED:
                model = getattr(model, _WRAPPED[_class_of(model)])
            if not callable(portable.predict_of(model)):
                raise PackageFormatError(
                    f"{folder} makes a {type(model).__name__}, which has no method predict"
                )
            with running_code(folder):
                portable.load_context(model, context)
        return PythonPredictor(model, context, signature.inputs, hint)


@dataclass(frozen=True)
class PythonPredictor:
    """A model in Python, given frames or arrays, and params where it takes them."""

    model: object
    context: PythonContext
    schema: Schema
    hint: object
    params: Mapping[str, object] | None = None

    @property
    def takes_params(self) -> bool:
        """Whether its predict has an argument `params`."""
        return portable.takes_params(self.model)

    def with_params(self, params: Mapping[str, object]) -> PythonPredictor:
        """This predictor with other params; see `Parametric`."""
        if not self.takes_params:
            raise SignatureMismatchError(
                f"the model's signature declares params, but predict of its "
                f"{type(self.model).__name__} has no argument 'params'; give none, or save the "
                "model again with one"
            )
        return replace(self, params=params)

    def predict(self, batch: pa.RecordBatch) -> object:
        """What the model answers for `batch`; see `Predictor`."""
        given = model_input(batch, self.schema)
        params = None if self.params is None else dict(self.params)  # It may change its own.
        return portable.call_model(self.model, self.context, given, params, self.hint)


def _class_of(model: object) -> tuple[str, str]:
    """Module and name; a class that was pickled by value is another one than ours."""
    return type(model).__module__, type(model).__name__


def _save_object(model: object, folder: Path) -> dict[str, object]:
    import cloudpickle

    if not callable(portable.predict_of(model)):
        raise UsageError(f"a {type(model).__name__} has no method predict(context, model_input)")
    for module in (portable, python_model):
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(portable.PortableModel(model))
    except Exception as exc:  # pickling runs foreign code: it may raise anything
        raise UsageError(
            f"a {type(model).__name__} cannot be pickled ({exc}); open files and connections "
            "in load_context instead"
        ) from exc
    finally:
        for module in (portable, python_model):
            cloudpickle.unregister_pickle_by_value(module)
    (folder / _FILE).write_bytes(data)
    return {
        "loader_module": OBJECT_LOADER,
        "python_model": _FILE,
        "cloudpickle_version": cloudpickle.__version__,
    }


def _save_script(script: Path, folder: Path) -> dict[str, object]:
    if script.suffix != ".py" or not script.is_file():
        raise UsageError(
            f"a model's script must be a file NAME.py, not {shown(str(script))}; it calls "
            "sparkscore.set_model(model)"
        )
    shutil.copyfile(script, folder / script.name)
    return {"loader_module": SCRIPT_LOADER, "model_code_path": script.name}


def _save_loader(loader: LoaderModule, folder: Path) -> dict[str, object]:
    conf: dict[str, object] = {"loader_module": loader.name}
    if loader.data is not None:
        conf["data"] = f"{_DATA}/{loader.data.name}"
        _copy(loader.data, folder / _DATA / loader.data.name, "the loader's data")
    return conf


def _copy_artifact(name: str, path: Path, folder: Path) -> dict[str, str]:
    if Path(name).name != name or name in ("", ".", ".."):
        raise UsageError(f"artifact name {shown(name)} must be a plain file name")
    target = folder / _ARTIFACTS / name / path.name
    _copy(path, target, f"artifact {name!r}")
    relative = target.relative_to(folder).as_posix()
    return {"path": relative, "uri": relative}


def _copy(path: Path, target: Path, what: str) -> None:
    target.parent.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, target)
    elif path.is_file():
        shutil.copyfile(path, target)
    else:
        raise UsageError(f"{what}: {path} is no file and no folder")


def _load_object(folder: Path, conf: FlavorConf, trust: TrustPolicy) -> object:
    path = resolve_inside(folder, conf.get("python_model"), f"{_WHERE}.python_model")
    compression = conf.get("python_model_compression")
    return load_cloudpickle(path, trust, None if compression is None else str(compression))


def _run_script(
    folder: Path, conf: FlavorConf, context: PythonContext, trust: TrustPolicy
) -> object:
    """The model that a script sets."""
    # MLflow writes the author's own path; in the package lies the file of its last name.
    name = re.split(r"[/\\]", str(conf["model_code_path"]))[-1]
    path = resolve_inside(folder, name, f"{_WHERE}.model_code_path").resolve()
    if path.suffix != ".py":
        raise PackageFormatError(f"{_WHERE}.model_code_path names {name!r}; a script is a .py file")
    admit_code(f"{path} is a script; loading the package runs it", trust)
    run = ScriptRun(context.model_config)
    spec = spec_from_file_location(_SCRIPT_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with running_code(path), script_running(run, path.read_bytes()):
        # Listed, since dataclasses and type hints look for the module of their class.
        sys.modules[_SCRIPT_MODULE] = module
        spec.loader.exec_module(module)
    if run.model is None:
        raise PackageFormatError(
            f"{path} has set no model; it must call sparkscore.set_model(model) or "
            "mlflow.models.set_model(model)"
        )
    return run.model


def _call_loader(
    folder: Path, conf: FlavorConf, context: PythonContext, trust: TrustPolicy
) -> object:
    """What `_load_pyfunc` of a module makes."""
    where = f"{_WHERE}.loader_module"
    name = conf.get("loader_module")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise PackageFormatError(f"{where} must name a module, not {shown(name)}")
    data = conf.get("data")
    path = folder if data is None else resolve_inside(folder, data, f"{_WHERE}.data")
    admit_code(f"{where} names the module {name!r}; loading the package runs it", trust)
    with running_code(folder / (str(conf["code"]) if conf.get("code") else "")):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
                raise
            raise PackageFormatError(
                f"{where} names {name!r}, which is neither in the package's code nor installed"
            ) from exc
        load = getattr(module, "_load_pyfunc", None)
        if not callable(load):
            raise PackageFormatError(
                f"{where} names {name!r}, which has no function _load_pyfunc(path)"
            )
        takes_config = "model_config" in inspect.signature(load).parameters
        extra = {"model_config": dict(context.model_config)} if takes_config else {}
        made: object = load(str(path), **extra)
    return made


def _artifacts(folder: Path, conf: FlavorConf) -> dict[str, str]:
    nodes = conf.get("artifacts") or {}
    if not isinstance(nodes, Mapping) or not all(isinstance(n, Mapping) for n in nodes.values()):
        raise PackageFormatError(f"{_WHERE}.artifacts must map names to path and uri")
    return {
        str(name): str(resolve_inside(folder, node.get("path"), f"{_WHERE}.artifacts.{name}"))
        for name, node in nodes.items()
    }


def _config(conf: FlavorConf) -> Mapping[str, object]:
    config = conf.get("config") or {}
    if not isinstance(config, Mapping):
        raise PackageFormatError(f"{_WHERE}.config must be a mapping, not {shown(config)}")
    return cast("Mapping[str, object]", config)
