"""CatBoost: its models, saved in CatBoost's own binary format."""

from __future__ import annotations

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
from sparkscore.flavors.frames import NUMBERS, column_inputs, float32_matrix, pandas_frame
from sparkscore.flavors.functions import PREDICT_FN, check_function
from sparkscore.flavors.threads import threads_of_task
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_CLASSES = ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor")
_FORMATS = ("cbm", "json")


class CatboostFlavor:
    """Reads what MLflow's flavor `catboost` writes, in CatBoost's binary format or JSON."""

    name = "catboost"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.cb`; see `Flavor.save`."""
        catboost = _import_catboost()
        if not isinstance(model, catboost.CatBoost) or type(model).__name__ not in _CLASSES:
            raise UsageError(f"a {type(model).__name__} is no model of CatBoost")
        if not model.is_fitted():
            raise UsageError(f"the {type(model).__name__} is not fitted; call its fit() first")
        model.save_model(str(folder / "model.cb"))
        own: dict[str, object] = {
            "catboost_version": catboost.__version__,
            "data": "model.cb",
            "model_type": type(model).__name__,
            "save_format": "cbm",
            "code": None,
        }
        generic = {"loader_module": "mlflow.catboost", "data": "model.cb"}
        requirements = ("catboost", "numpy", "pandas")
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self,
        folder: Path,
        conf: FlavorConf,
        signature: Signature,
        trust: TrustPolicy,  # noqa: ARG002 - the formats hold no code
    ) -> Predictor:
        """A predictor of one thread, or of OMP_NUM_THREADS if that says more; see `Flavor.load`."""
        catboost = _import_catboost()
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.catboost.data")
        schema = column_inputs(signature)
        name, written = conf.get("model_type"), conf.get("save_format", "cbm")
        if name not in _CLASSES:
            raise UntrustedCodeError(
                f"the package names {shown(name)} as the class of its model, which is none of "
                f"CatBoost's: {listed(_CLASSES)}; save one of these"
            )
        if written not in _FORMATS:
            raise PackageFormatError(
                f"{path} is written in the format {shown(written)}, which CatBoost does not load; "
                f"save the model as one of {listed(_FORMATS)}"
            )
        model = getattr(catboost, str(name))()
        try:
            model.load_model(str(path), str(written))
        except catboost.CatBoostError as exc:
            raise PackageFormatError(
                f"{path} is no model that CatBoost {catboost.__version__} reads: {shown(str(exc))}"
            ) from exc
        predict = str(conf.get(PREDICT_FN, "predict"))
        check_function(model, predict, folder)
        return _CatboostPredictor(model, schema, predict)


class _CatboostModel(Protocol):
    feature_names_: list[str]

    def save_model(self, fname: str, format: str) -> None: ...  # noqa: A002 - CatBoost's own name

    def predict(self, data: object, *, thread_count: int) -> np.ndarray: ...

    def get_cat_feature_indices(self) -> list[int]: ...

    def get_text_feature_indices(self) -> list[int]: ...

    def get_embedding_feature_indices(self) -> list[int]: ...


class _CatboostPredictor:
    def __init__(self, model: _CatboostModel, schema: ColumnSchema, name: str) -> None:
        self._model = model
        self._name = name
        self._ask: Callable[..., object] = getattr(model, name)
        self._schema = schema
        self._needs_frame = _why_a_frame(model, schema)

    def compiled(self) -> Predictor:
        """The same from compiled trees; see `Compilable`."""
        from sparkscore.flavors.compiled_catboost import CompiledCatboost
        from sparkscore.trees.forest import NotCompiledError

        if self._name != "predict":
            raise NotCompiledError(f"{self._name} is left to the library")
        if self._needs_frame is not None:
            raise NotCompiledError(self._needs_frame)
        return CompiledCatboost(self._model, self._schema)

    def predict(self, batch: pa.RecordBatch) -> object:
        if self._needs_frame is None:
            # CatBoost's own type of features, which it takes without a copy.
            data: object = float32_matrix(batch, self._schema)
        else:
            data = pandas_frame(batch, self._schema)
        # Not the saved setting: a worker has the cores of its task, and the scorer says how many.
        # Not when it is loaded: a daemon may have loaded it for workers that have more cores.
        return self._ask(data, thread_count=threads_of_task())


def _why_a_frame(model: _CatboostModel, schema: ColumnSchema) -> str | None:
    """What a matrix has no place for; None if it can stand for the frame."""
    for kind, found in (
        ("categories", model.get_cat_feature_indices()),
        ("text", model.get_text_feature_indices()),
        ("vectors", model.get_embedding_feature_indices()),
    ):
        if found:
            return f"it has features of {kind}"
    others = sorted({str(c.type) for c in schema.columns if c.type not in NUMBERS})
    if others:
        return f"its signature has columns of the types {', '.join(others)}"
    if not _is_in_order(model.feature_names_, schema):
        # CatBoost finds a frame's columns by their names.
        return "its features are in another order than the columns of its signature"
    return None


def _is_in_order(features: Sequence[str], schema: ColumnSchema) -> bool:
    names = [column.name for column in schema.columns]
    unnamed = [str(i) for i in range(len(features))]
    return list(features) in (names, unnamed) and len(features) == len(names)


def _import_catboost() -> ModuleType:
    try:
        import catboost
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[catboost]'"
        ) from exc
    module: ModuleType = catboost  # It has no types of its own.
    return module
