"""From a fitted model to a sealed package."""

from __future__ import annotations

import inspect
import platform
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import PredictionError, RecordExistsError, UsageError, listed
from sparkscore.flavors.base import Flavor, FlavorConf, Pickling, SavedFlavor
from sparkscore.flavors.load import load_predictor
from sparkscore.flavors.python_model import LoaderModule, PythonParts
from sparkscore.flavors.registered import GENERIC, SPARK, get_flavor
from sparkscore.flavors.tensors import example_batch, model_arrays
from sparkscore.package.environment import (
    CONDA_ENV,
    PYTHON_ENV,
    pin_requirements,
    write_conda_environment,
    write_environment,
    write_example,
    write_tensors,
)
from sparkscore.package.imported import libraries_of_sources
from sparkscore.package.layout import (
    MLMODEL,
    Description,
    Package,
    open_package,
    write_description,
)
from sparkscore.package.manifest import read_seal, seal, verify
from sparkscore.package.schema import ColumnSchema, Schema
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.package.trust import TrustPolicy

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

_BY_LIBRARY = {
    "catboost": "catboost",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "onnx": "onnx",
    "prophet": "prophet",
    "pyspark": SPARK,
    "sklearn": "sklearn",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "torch": "pytorch",
    "transformers": "transformers",
    "xgboost": "xgboost",
}
_PICKLED = (GENERIC, "pytorch", "statsmodels")
_PICKLE = "cloudpickle"
_CODE = "code"
_MAX_EXAMPLE_ROWS = 10


def save_model(
    model: object,
    folder: Path,
    *,
    flavor: str | None = None,
    signature: Signature | None = None,
    input_example: pd.DataFrame | np.ndarray | Mapping[str, np.ndarray] | None = None,
    serialization_format: str | None = None,
    predict_fn: str | None = None,
    pip_requirements: Iterable[str] | None = None,
    extra_requirements: Iterable[str] = (),
    conda_env: Mapping[str, object] | Path | None = None,
    metadata: Mapping[str, object] | None = None,
    artifacts: Mapping[str, Path] | None = None,
    model_config: Mapping[str, object] | None = None,
    code_paths: Iterable[Path | str] = (),
    trust: TrustPolicy | None = None,
) -> Package:
    """Write `model` as a sealed package into the new folder `folder`.

    The package is written beside `folder`, loaded again and asked to predict the example; only
    then it gets its name. A failure leaves nothing behind.

    Args:
        model: A fitted model; an object with `predict(context, model_input)`, or a function; the
            path of a script `NAME.py`, which calls `sparkscore.set_model`; or a `LoaderModule`.
        folder: Must not exist.
        flavor: Name of the flavor; None finds it by the model's class.
        signature: What goes in and out; None infers it from `input_example`.
        input_example: Rows of input with the dtypes that the model was fitted on: a frame, an
            array, or named arrays. All of them show the signature, the first 10 are kept in the
            package.
        serialization_format: `cloudpickle` pickles a model that is otherwise kept without code,
            for readers that know no other form, such as MLflow before 3.14; whoever loads it must
            trust it. None: the flavor's own form.
        predict_fn: The method that scores, of models that have several, such as `predict_proba`.
        pip_requirements: What the package needs, in the place of the libraries that its model was
            seen to import; without a version they are pinned.
        extra_requirements: Further pip requirements; without a version they are pinned.
        conda_env: A conda environment, as a mapping or the path of its YAML, in the place of all
            requirements: its pip packages become `requirements.txt` as they are.
        metadata: Free values for MLmodel.
        artifacts: Files or folders by name, which a python_function finds in its context.
        model_config: Plain values, which a python_function finds in its context.
        code_paths: Python files and folders that the package brings along; the model imports them
            by their names.
        trust: What loading may trust beyond known libraries; whoever loads must allow it too.

    Raises:
        UsageError: Neither signature nor example, an unfit example, or no flavor for the model.
        RecordExistsError: `folder` exists.
        UntrustedCodeError: The model holds types that `trust` does not allow.
        UnknownFlavorError: There is no flavor of this name.
        PredictionError: The saved model does not answer one value a row of the example.
    """
    if signature is None and input_example is None:
        raise UsageError(
            "a package needs a signature: pass input_example=, some rows of input, or signature=, "
            "from sparkscore.infer_signature(inputs, predictions)"
        )
    code_paths = list(code_paths)
    if conda_env is not None and (pip_requirements is not None or extra_requirements):
        raise UsageError(
            "conda_env= names all that the package needs: put the pip requirements in it, or leave "
            "it out"
        )
    if folder.exists():
        raise RecordExistsError(f"{folder} exists; remove it, or save to another folder")
    name = flavor or _find_flavor(model)
    signature = signature or infer_signature(input_example)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        has_code = _copy_code(code_paths, partial)
        parts = _parts(model, artifacts, model_config, name)
        saved = _saved(get_flavor(name), parts, partial, serialization_format)
        needed = [*saved.requirements, *libraries_of_sources(map(Path, code_paths))]
        needed = needed if pip_requirements is None else list(pip_requirements)
        if conda_env is None:
            write_environment(partial, pin_requirements([*needed, *extra_requirements]))
        else:
            write_conda_environment(partial, conda_env)
        confs = _with_code(saved.confs) if has_code else saved.confs
        confs = confs if predict_fn is None else _with_predict_fn(confs, predict_fn)
        description = _description(confs, signature, metadata)
        policy = replace(trust or TrustPolicy(), require_signature=False)  # It is signed later.
        if name in _PICKLED or has_code or serialization_format == _PICKLE:
            # Whoever saves code of their own trusts it; whoever loads it is asked again.
            policy = replace(policy, allow_code=True)
        _finish(partial, description, input_example, policy)
        seal(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_package(folder)


def set_signature(folder: Path, signature: Signature) -> Package:
    """Give a package in a folder of one's own another signature, or its first; seals it anew.

    Raises:
        PackageFormatError: The folder is no package.
        PackageDigestError: Its bytes are not the sealed ones.
    """
    if read_seal(folder) is not None:
        verify(folder)
    package = open_package(folder)
    write_description(replace(package.description, signature=signature), folder / MLMODEL)
    seal(folder)
    return open_package(folder)


def _finish(
    folder: Path,
    description: Description,
    example: pd.DataFrame | np.ndarray | Mapping[str, np.ndarray] | None,
    trust: TrustPolicy,
) -> None:
    """Write MLmodel, load the package as anyone would, and let it predict the example."""
    write_description(description, folder / MLMODEL)
    predictor = load_predictor(open_package(folder), trust)
    signature = description.signature
    assert signature is not None
    if example is None:
        return
    schema = signature.inputs
    batch = example_batch(example, schema)
    predictions = predictor.predict(batch)
    column = next(iter(predictions.values())) if isinstance(predictions, dict) else predictions
    n_predictions = len(column) if hasattr(column, "__len__") else None
    if n_predictions != batch.num_rows:
        raise PredictionError(
            f"the model answered {n_predictions} predictions for {batch.num_rows} example rows; "
            "it must answer one a row"
        )
    if signature.outputs is None and batch.num_rows:
        outputs = infer_signature(example, predictions).outputs
        signature = replace(signature, outputs=outputs)
    info = _write_example(folder, batch.slice(0, _MAX_EXAMPLE_ROWS), schema)
    write_description(
        replace(description, signature=signature, saved_input_example_info=info),
        folder / MLMODEL,
    )


def _write_example(folder: Path, rows: pa.RecordBatch, schema: Schema) -> dict[str, object]:
    if isinstance(schema, ColumnSchema):
        return write_example(folder, rows, named=schema.columns[0].name is not None)
    arrays = model_arrays(rows, schema)
    plain = (
        {name: values.tolist() for name, values in arrays.items()}
        if isinstance(arrays, dict)
        else arrays.tolist()
    )
    return write_tensors(folder, plain)


def _find_flavor(model: object) -> str:
    for kind in type(model).__mro__:
        library = kind.__module__.split(".")[0]
        if library in _BY_LIBRARY:
            return _BY_LIBRARY[library]
    if isinstance(model, str | Path | LoaderModule) or inspect.isroutine(model):
        return GENERIC
    if callable(getattr(model, "predict", None)):
        return GENERIC
    raise UsageError(
        f"no flavor is known for a {type(model).__module__}.{type(model).__qualname__}; name one "
        f"by flavor=, or give the object a method predict(context, model_input). "
        f"Found by class are models of {listed(_BY_LIBRARY)}"
    )


def _parts(
    model: object,
    artifacts: Mapping[str, Path] | None,
    config: Mapping[str, object] | None,
    flavor: str,
) -> object:
    if not (artifacts or config):
        return model
    if flavor != GENERIC:
        noun = "artifacts=" if artifacts else "model_config="
        raise UsageError(f"{noun} is for the flavor {GENERIC}, and this model is {flavor}")
    return PythonParts(model, artifacts or {}, config or {})


def _saved(flavor: Flavor, model: object, folder: Path, form: str | None) -> SavedFlavor:
    """What the flavor wrote, in the form that was asked for."""
    if form is None or (form == "skops" and isinstance(flavor, Pickling)):
        return flavor.save(model, folder)
    if form == _PICKLE and isinstance(flavor, Pickling):
        return flavor.save_pickled(model, folder)
    known = f"'skops' and {_PICKLE!r}" if isinstance(flavor, Pickling) else "its own form alone"
    raise UsageError(
        f"serialization_format={form!r} is not known to the flavor {flavor.name!r}, which writes "
        f"{known}"
    )


def _copy_code(paths: Iterable[Path | str], folder: Path) -> bool:
    """Copy Python files and folders into the package; whether there are any."""
    code = folder / _CODE
    for path in map(Path, paths):
        target = code / path.resolve().name
        if target.exists():
            raise UsageError(f"code_paths= names two files {target.name!r}; rename one")
        code.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif path.is_file():
            shutil.copyfile(path, target)
        else:
            raise UsageError(f"code_paths= names {str(path)!r}, which is no file and no folder")
    return code.exists()


def _with_code(confs: Mapping[str, FlavorConf]) -> dict[str, FlavorConf]:
    return {name: {**conf, "code": _CODE} for name, conf in confs.items()}


def _with_predict_fn(confs: Mapping[str, FlavorConf], name: str) -> dict[str, FlavorConf]:
    generic = confs.get(GENERIC, {})
    if "predict_fn" not in generic:
        raise UsageError(
            f"predict_fn={name!r} is for models of scikit-learn, and this one is {listed(confs)}"
        )
    return {**confs, GENERIC: {**generic, "predict_fn": name}}


def _description(
    confs: Mapping[str, FlavorConf], signature: Signature, metadata: Mapping[str, object] | None
) -> Description:
    flavors = dict(confs)
    if GENERIC in confs:
        flavors[GENERIC] = {
            **confs[GENERIC],
            "env": {"conda": CONDA_ENV, "virtualenv": PYTHON_ENV},
            "python_version": platform.python_version(),
        }
    return Description(
        flavors=flavors,
        signature=signature,
        metadata=metadata,
        model_uuid=uuid.uuid4().hex,
        # MLflow writes a naive UTC time, with a space.
        utc_time_created=str(datetime.now(UTC).replace(tzinfo=None)),
    )
