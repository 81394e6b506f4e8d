"""statsmodels: fitted results, pickled by themselves; loading them needs trust in pickles."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from sparkscore.errors import MissingExtraError, PackageFormatError, UsageError, shown
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import column_inputs, pandas_frame
from sparkscore.package.layout import resolve_inside
from sparkscore.package.trust import load_cloudpickle

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FILE = "model.statsmodels"
_BLOCK_ROWS = 64
"""More than any kernel takes at once."""
_OF_TIME = (
    "is a model of a time series, which answers spans of time and not rows; give it a "
    "predict(context, model_input) of your own, and save that with flavor='python_function'"
)


class StatsmodelsFlavor:
    """Reads what MLflow's flavor `statsmodels` writes."""

    name = "statsmodels"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.statsmodels`, with the rows that it was fitted on; see `Flavor.save`."""
        statsmodels = _import_statsmodels()
        if not _is_fitted(model):
            raise UsageError(
                f"a {type(model).__name__} is no fitted model of statsmodels; pass what its fit() "
                "has returned"
            )
        if _is_of_time(model):
            raise UsageError(f"a {type(model).__name__} {_OF_TIME}")
        try:
            cast("Any", model).save(str(folder / _FILE))
        except Exception as exc:  # pickling runs foreign code: it may raise anything
            raise UsageError(
                f"a {type(model).__name__} cannot be pickled ({exc}); give functions in its "
                "formula a module of their own"
            ) from exc
        own: dict[str, object] = {
            "statsmodels_version": statsmodels.__version__,
            "data": _FILE,
            "code": None,
        }
        generic = {"loader_module": "mlflow.statsmodels", "data": _FILE}
        requirements = ("numpy", "pandas", "scipy", "statsmodels")
        return SavedFlavor({self.name: own, "python_function": generic}, requirements)

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor that calls `predict` of the results; see `Flavor.load`."""
        _import_statsmodels()
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.statsmodels.data")
        model = load_cloudpickle(path, trust)
        if not _is_fitted(model):
            raise PackageFormatError(
                f"{path} holds a {shown(type(model).__name__)} and no fitted model of statsmodels"
            )
        if _is_of_time(model):
            raise PackageFormatError(f"{path} {_OF_TIME}")
        return _StatsmodelsPredictor(model, column_inputs(signature))


class _StatsmodelsPredictor:
    def __init__(self, model: Any, schema: ColumnSchema) -> None:  # noqa: ANN401 - statsmodels'
        self._model = model
        self._schema = schema

    def predict(self, batch: pa.RecordBatch) -> np.ndarray:
        """(n_rows,), or (n_rows, n_classes) of a model of several classes."""
        import numpy as np

        padded = _padded(batch)
        predictions = np.asarray(self._model.predict(pandas_frame(padded, self._schema)))
        return predictions[: batch.num_rows]


def _padded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its last row repeated, up to whole blocks of rows.

    Libraries of linear algebra add up the last rows of a matrix, which fill no block, in another
    order than the rest, so that a row's prediction would depend on where in a batch it stands.
    """
    import numpy as np
    import pyarrow as pa

    n_rows = batch.num_rows
    if n_rows % _BLOCK_ROWS == 0:
        return batch
    n_padded = n_rows + -n_rows % _BLOCK_ROWS
    return batch.take(pa.array(np.minimum(np.arange(n_padded), n_rows - 1)))


def _is_fitted(model: Any) -> bool:  # noqa: ANN401 - anything
    from statsmodels.base.model import Results
    from statsmodels.base.wrapper import ResultsWrapper

    return isinstance(model, Results | ResultsWrapper) and callable(getattr(model, "save", None))


def _is_of_time(model: Any) -> bool:  # noqa: ANN401 - statsmodels'
    from statsmodels.tsa.base.tsa_model import TimeSeriesModel

    return isinstance(model.model, TimeSeriesModel)


def _import_statsmodels() -> ModuleType:
    try:
        import statsmodels
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[statsmodels]'"
        ) from exc
    module: ModuleType = statsmodels  # It has no types of its own.
    return module
