"""xgboost: Boosters and models of its scikit-learn API, saved as xgboost's own UBJSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
    listed,
    shown,
)
from sparkscore.flavors.base import FittedModel, FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import (
    column_inputs,
    float_matrix,
    is_float_matrix,
    pandas_frame,
    text_as_categories,
)
from sparkscore.flavors.functions import PREDICT_FN, check_function
from sparkscore.flavors.threads import threads_of_task
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    import pyarrow as pa
    from xgboost import Booster

    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_Predict = Callable[[object], object]

_BOOSTER = "xgboost.core.Booster"
_ESTIMATORS = (
    "XGBClassifier",
    "XGBModel",
    "XGBRFClassifier",
    "XGBRFRegressor",
    "XGBRanker",
    "XGBRegressor",
)


class XgboostFlavor:
    """Reads what MLflow's flavor `xgboost` writes, in UBJSON or JSON."""

    name = "xgboost"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.ubj`; see `Flavor.save`."""
        xgboost = _import_xgboost()
        requirements = ["numpy", "pandas", "xgboost"]
        if isinstance(model, xgboost.Booster):
            model_class = _BOOSTER
        elif isinstance(model, xgboost.XGBModel) and type(model).__name__ in _ESTIMATORS:
            model_class = f"xgboost.sklearn.{type(model).__name__}"
            requirements.append("scikit-learn")
        else:
            raise UsageError(f"a {type(model).__name__} is no model of xgboost")
        if not math.isnan(getattr(model, "missing", math.nan)):
            raise UsageError(
                f"the model takes {model.missing} for a missing value, which xgboost's file does "
                "not keep, so that it would score otherwise once loaded; fit it on NaN instead"
            )
        model.save_model(str(folder / "model.ubj"))
        own: dict[str, object] = {
            "xgb_version": xgboost.__version__,
            "data": "model.ubj",
            "model_class": model_class,
            "model_format": "ubj",
            "code": None,
        }
        generic = {"loader_module": "mlflow.xgboost", "data": "model.ubj"}
        return SavedFlavor({self.name: own, "python_function": generic}, tuple(requirements))

    def load(
        self,
        folder: Path,
        conf: FlavorConf,
        signature: Signature,
        trust: TrustPolicy,  # noqa: ARG002 - the format holds no code
    ) -> Predictor:
        """A predictor of one thread, or of OMP_NUM_THREADS if that says more; see `Flavor.load`."""
        xgboost = _import_xgboost()
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.xgboost.data")
        schema = column_inputs(signature)
        name = str(conf.get("model_class", _BOOSTER))
        asked = str(conf.get(PREDICT_FN, "predict"))
        if name == _BOOSTER:
            booster = xgboost.Booster()
            _load_into(booster, path, xgboost)
            _check_names(booster, schema)
            check_function(booster, asked, folder)
            is_inplace = _has_plain_trees(booster)
            predict = booster.inplace_predict if is_inplace else _on_copies(booster, xgboost)
            return _XgboostPredictor(booster, predict, schema, as_matrix=is_inplace)
        module, _, class_name = name.rpartition(".")
        if module != "xgboost.sklearn" or class_name not in _ESTIMATORS:
            raise UntrustedCodeError(
                f"the package names {shown(name)} as the class of its model, which is none of "
                f"xgboost's: {listed(_ESTIMATORS)}; save its Booster instead"
            )
        estimator = getattr(xgboost, class_name)()
        _load_into(estimator, path, xgboost)
        _check_names(estimator.get_booster(), schema)
        is_inplace = _has_plain_trees(estimator.get_booster())
        check_function(estimator, asked, folder)
        predict = getattr(estimator, asked)
        return _XgboostPredictor(estimator, predict, schema, as_matrix=is_inplace, name=asked)


class _XgboostPredictor:
    def __init__(
        self,
        model: object,
        predict: _Predict,
        schema: ColumnSchema,
        *,
        as_matrix: bool,
        name: str = "predict",
    ) -> None:
        self._model = model
        self._name = name
        self._predict = predict
        self._schema = schema
        self._as_matrix = as_matrix and is_float_matrix(schema)
        self._n_threads: int | None = None

    def compiled(self) -> Predictor:
        """The same from compiled trees; see `Compilable`."""
        from sparkscore.flavors.compiled_xgboost import CompiledXgboost
        from sparkscore.trees.forest import NotCompiledError

        if self._name != "predict":
            raise NotCompiledError(f"{self._name} is left to the library")

        return CompiledXgboost(self._model, self._schema)

    def fitted(self) -> FittedModel:
        """The booster or estimator; see `Convertible`."""
        return FittedModel(self._model, (self._name,))

    def predict(self, batch: pa.RecordBatch) -> object:
        self._limit_threads()
        if self._as_matrix:
            return self._predict(float_matrix(batch))
        frame = text_as_categories(pandas_frame(batch, self._schema))
        for position, dtype in enumerate(frame.dtypes):
            # xgboost refuses a column of which it sees no category.
            if dtype == "category" and not len(dtype.categories):
                known = self._a_category_of(position)
                column = frame.iloc[:, position].cat.add_categories(known)
                frame.isetitem(position, column.array)
        return self._predict(frame)

    def _limit_threads(self) -> None:
        # Not the saved setting: a worker has the cores of its task, and the scorer says how many.
        # Not when it is loaded: a daemon may have loaded it for workers that have more cores.
        n_threads = threads_of_task()
        if n_threads != self._n_threads:
            self._booster().set_param({"nthread": n_threads})
            self._n_threads = n_threads

    def _booster(self) -> Booster:
        model = cast("Any", self._model)
        booster: Booster = model.get_booster() if hasattr(model, "get_booster") else model
        return booster

    def _a_category_of(self, position: int) -> list[str]:
        known = self._booster().get_categories(export_to_arrow=True).to_arrow()
        categories = known[position][1] if known else None
        return [] if categories is None else categories.to_pylist()[:1]


def _check_names(booster: Booster, schema: ColumnSchema) -> None:
    """Refuse columns of other names than the model's: xgboost looks at those of no matrix."""
    fitted = booster.feature_names
    if fitted is not None and schema.names and list(fitted) != list(schema.names):
        raise SignatureMismatchError(
            f"the signature has the columns {listed(schema.names)}, but the model was fitted on "
            f"{listed(fitted)}, in this order; save it again with a signature of those"
        )


def _has_plain_trees(booster: Booster) -> bool:
    """Whether `inplace_predict`, which copies no matrix, answers what `predict` does."""
    learner = json.loads(booster.save_config())["learner"]
    return bool(learner["gradient_booster"]["name"] == "gbtree")


def _on_copies(booster: Booster, xgboost: ModuleType) -> _Predict:
    return lambda data: booster.predict(xgboost.DMatrix(data, enable_categorical=True))


class _Loading(Protocol):
    def load_model(self, fname: str) -> None: ...


def _load_into(model: _Loading, path: Path, xgboost: ModuleType) -> None:
    try:
        model.load_model(str(path))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as exc:
        said = [line for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
        raise PackageFormatError(
            f"{path} is no model that xgboost {xgboost.__version__} reads: {shown(said[0])}"
        ) from exc


def _import_xgboost() -> ModuleType:
    try:
        import xgboost
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[xgboost]'"
        ) from exc
    return xgboost
