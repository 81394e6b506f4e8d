"""LightGBM: a Booster is saved as LightGBM's text, a model of its scikit-learn API with skops."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from sparkscore.errors import MissingExtraError, PackageFormatError, UsageError, listed
from sparkscore.flavors.base import FittedModel, FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import (
    column_inputs,
    float_matrix,
    is_float_matrix,
    pandas_frame,
    text_as_categories,
    text_categories,
)
from sparkscore.flavors.functions import PREDICT_FN, check_function
from sparkscore.flavors.sklearn import dump_cloudpickle, dump_skops, load_estimator
from sparkscore.flavors.threads import threads_of_task
from sparkscore.fused.levels import note_text
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

    from sparkscore.flavors.compiled_lightgbm import Booster
    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_PREDICTING = (
    "num_iteration_predict",
    "pred_early_stop",
    "predict_contrib",
    "predict_leaf_index",
    "predict_raw_score",
    "start_iteration_predict",
)
_BOOSTER = "lightgbm.basic.Booster"


class LightgbmFlavor:
    """Reads what MLflow's flavor `lightgbm` writes, in all of its forms."""

    name = "lightgbm"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.lgb` or `model.skops`; see `Flavor.save`."""
        lightgbm = _import_lightgbm()
        if isinstance(model, lightgbm.Booster):
            model.save_model(str(folder / "model.lgb"))
            return self._saved({"data": "model.lgb", "model_class": _BOOSTER})
        own = _estimator_conf(model, lightgbm)
        # For MLflow, which trusts what a package says of itself; never read here.
        own["skops_trusted_types"] = dump_skops(model, folder / "model.skops")
        own |= {"data": "model.skops", "serialization_format": "skops"}
        return self._saved(own, "scikit-learn", "skops")

    def save_pickled(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.pkl`, for MLflow before 3.14; see `Pickling`."""
        lightgbm = _import_lightgbm()
        if isinstance(model, lightgbm.Booster):
            raise UsageError(
                "a Booster is saved as LightGBM's own text, which every reader knows; leave out "
                "serialization_format="
            )
        own = _estimator_conf(model, lightgbm)
        dump_cloudpickle(model, folder / "model.pkl")
        own |= {"data": "model.pkl", "serialization_format": "cloudpickle"}
        return self._saved(own, "scikit-learn", "cloudpickle")

    def _saved(self, own: dict[str, object], *requirements: str) -> SavedFlavor:
        own |= {"lgb_version": _import_lightgbm().__version__, "code": None}
        generic = {"loader_module": "mlflow.lightgbm", "data": own["data"]}
        return SavedFlavor(
            {self.name: own, "python_function": generic},
            ("lightgbm", "numpy", "pandas", *requirements),
        )

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor of OMP_NUM_THREADS threads, or of one; see `Flavor.load`."""
        lightgbm = _import_lightgbm()
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.lightgbm.data")
        schema = column_inputs(signature)
        if conf.get("model_class", _BOOSTER) != _BOOSTER:
            # MLflow wrote no format before 3.14, and cloudpickle then.
            how = conf.get("serialization_format", "cloudpickle")
            model = cast("_LightgbmModel", load_estimator(path, how, trust))
            name = str(conf.get(PREDICT_FN, "predict"))
            check_function(model, name, folder)
            return _LightgbmPredictor(model, schema, as_matrix=False, name=name)
        try:
            booster = lightgbm.Booster(model_file=str(path))
        except lightgbm.basic.LightGBMError as exc:
            raise PackageFormatError(f"{path} is no LightGBM model: {exc}") from exc
        # A matrix has no place for categories, which the booster knows by pandas' codes.
        check_function(booster, str(conf.get(PREDICT_FN, "predict")), folder)
        as_matrix = is_float_matrix(schema) and not booster.pandas_categorical
        return _LightgbmPredictor(booster, schema, as_matrix=as_matrix)


def _estimator_conf(model: object, lightgbm: ModuleType) -> dict[str, object]:
    if not isinstance(model, lightgbm.LGBMModel):
        raise UsageError(f"a {type(model).__name__} is no model of LightGBM")
    return {"model_class": f"{type(model).__module__}.{type(model).__qualname__}"}


class _LightgbmModel(Protocol):
    def predict(self, data: object, *, num_threads: int) -> object: ...


class _LightgbmPredictor:
    def __init__(
        self,
        model: _LightgbmModel,
        schema: ColumnSchema,
        *,
        as_matrix: bool,
        name: str = "predict",
    ) -> None:
        self._model = model
        self._name = name
        self._ask: Callable[..., object] = getattr(model, name)
        self._schema = schema
        self._as_matrix = as_matrix
        self._booster = cast("Booster", getattr(model, "booster_", model))
        self._has_categories = bool(getattr(self._booster, "pandas_categorical", None))

    def compiled(self) -> Predictor:
        """The same from compiled trees; see `Compilable`."""
        from sparkscore.flavors.compiled_lightgbm import CompiledLightgbm
        from sparkscore.trees.forest import NotCompiledError

        if self._name != "predict":
            raise NotCompiledError(f"{self._name} is left to the library")

        return CompiledLightgbm(self._booster, self._schema, _classes(self._model))

    def fitted(self) -> FittedModel:
        """The booster or estimator; see `Convertible`."""
        return FittedModel(self._model, (self._name,))

    def predict(self, batch: pa.RecordBatch) -> object:
        # Not the saved setting: a worker has the cores of its task, and the scorer says how many.
        # Not when it is loaded: a daemon may have loaded it for workers that have more cores.
        n_threads = threads_of_task()
        if self._as_matrix:
            return self._ask(float_matrix(batch), num_threads=n_threads)
        frame = pandas_frame(batch, self._schema)
        if self._has_categories:
            frame = text_as_categories(frame)
            known = text_categories(self._schema, self._booster.pandas_categorical) or {}
            for i, categories in known.items():
                note_text(batch, i, categories)
        return self._ask(frame, num_threads=n_threads)


def _classes(model: object) -> np.ndarray | None:
    """The labels that a classifier answers with; None for what else predicts.

    Raises:
        NotCompiledError: The model was given parameters that change how it predicts.
    """
    from sparkscore.trees.forest import NotCompiledError

    if not hasattr(model, "get_params"):
        return None
    changing = [name for name in model.get_params() if name in _PREDICTING]
    if changing:
        raise NotCompiledError(f"its parameters {listed(changing)} change how it predicts")
    if callable(getattr(model, "objective_", None)):
        return None
    return getattr(model, "classes_", None)


def _import_lightgbm() -> ModuleType:
    try:
        import lightgbm
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[lightgbm]'"
        ) from exc
    return lightgbm
