"""From a fitted model to a sealed package."""

from __future__ import annotations

import platform
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import PredictionError, RecordExistsError, UsageError, listed
from sparkscore.flavors.base import FlavorConf
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.load import load_predictor
from sparkscore.flavors.registered import GENERIC, get_flavor
from sparkscore.package.environment import (
    CONDA_ENV,
    PYTHON_ENV,
    pin_requirements,
    write_environment,
    write_example,
)
from sparkscore.package.layout import (
    MLMODEL,
    Description,
    Package,
    open_package,
    write_description,
)
from sparkscore.package.manifest import seal
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.package.trust import TrustPolicy

if TYPE_CHECKING:
    import pandas as pd

_BY_LIBRARY = {
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "onnx": "onnx",
    "prophet": "prophet",
    "sklearn": "sklearn",
    "statsmodels": "statsmodels",
    "xgboost": "xgboost",
}
_PICKLED = (GENERIC, "statsmodels")
_MAX_EXAMPLE_ROWS = 10


def save_model(
    model: object,
    folder: Path,
    *,
    flavor: str | None = None,
    signature: Signature | None = None,
    input_example: pd.DataFrame | None = None,
    extra_requirements: Iterable[str] = (),
    metadata: Mapping[str, object] | None = None,
    artifacts: Mapping[str, Path] | None = None,
    trust: TrustPolicy | None = None,
) -> Package:
    """Write `model` as a sealed package into the new folder `folder`.

    The package is written beside `folder`, loaded again and asked to predict the example; only
    then it gets its name. A failure leaves nothing behind.

    Args:
        model: A fitted model, or an object with `predict(context, model_input)`.
        folder: Must not exist.
        flavor: Name of the flavor; None finds it by the model's class.
        signature: What goes in and out; None infers it from `input_example`.
        input_example: Rows of input with the dtypes that the model was fitted on. All of them
            show the signature, the first 10 are kept in the package.
        extra_requirements: Further pip requirements; without a version they are pinned.
        metadata: Free values for MLmodel.
        artifacts: Files or folders by name, which a python_function finds in its context.
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
    if folder.exists():
        raise RecordExistsError(f"{folder} exists; remove it, or save to another folder")
    name = flavor or _find_flavor(model)
    signature = signature or infer_signature(input_example)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        saved = get_flavor(name).save(_with_artifacts(model, artifacts, name), partial)
        write_environment(partial, pin_requirements([*saved.requirements, *extra_requirements]))
        description = _description(saved.confs, signature, metadata)
        policy = trust or TrustPolicy()
        if name in _PICKLED:
            # Whoever saves an object of their own trusts it; whoever loads it is asked again.
            policy = replace(policy, allow_pickle=True)
        _finish(partial, description, input_example, policy)
        seal(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_package(folder)


def _finish(
    folder: Path, description: Description, example: pd.DataFrame | None, trust: TrustPolicy
) -> None:
    """Write MLmodel, load the package as anyone would, and let it predict the example."""
    write_description(description, folder / MLMODEL)
    predictor = load_predictor(open_package(folder), trust)
    signature = description.signature
    assert signature is not None
    if example is None:
        return
    schema = column_inputs(signature)
    batch = record_batch(example, schema)
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
    is_named = schema.columns[0].name is not None
    info = write_example(folder, batch.slice(0, _MAX_EXAMPLE_ROWS), named=is_named)
    write_description(
        replace(description, signature=signature, saved_input_example_info=info),
        folder / MLMODEL,
    )


def _find_flavor(model: object) -> str:
    for kind in type(model).__mro__:
        library = kind.__module__.split(".")[0]
        if library in _BY_LIBRARY:
            return _BY_LIBRARY[library]
    if callable(getattr(model, "predict", None)):
        return GENERIC
    raise UsageError(
        f"no flavor is known for a {type(model).__module__}.{type(model).__qualname__}; name one "
        f"by flavor=, or give the object a method predict(context, model_input). "
        f"Found by class are models of {listed(_BY_LIBRARY)}"
    )


def _with_artifacts(model: object, artifacts: Mapping[str, Path] | None, flavor: str) -> object:
    if not artifacts:
        return model
    if flavor != GENERIC:
        raise UsageError(f"artifacts= is for the flavor {GENERIC}, and this model is {flavor}")
    from sparkscore.flavors.python_function import ModelWithArtifacts

    return ModelWithArtifacts(model, artifacts)


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
