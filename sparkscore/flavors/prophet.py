"""Prophet: forecasts for rows that name a time, saved as Prophet's own JSON."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sparkscore.errors import MissingExtraError, PackageFormatError, UsageError, shown
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.flavors.frames import column_inputs, pandas_frame
from sparkscore.package.layout import resolve_inside
from sparkscore.package.schema import ColumnSchema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FILE = "model.pr"
_TIME = "ds"
_FORECAST = "yhat"
_ECHOED = (_TIME, "cap", "floor")
"""Columns of the answer that are the input's own."""
_OF_SAMPLES = ("_lower", "_upper")


class ProphetFlavor:
    """Reads what MLflow's flavor `prophet` writes."""

    name = "prophet"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model.pr`; see `Flavor.save`."""
        prophet = _import_prophet()
        # A class of the user's own would be another one when it is loaded.
        if type(model) is not prophet.Prophet or getattr(model, "history", None) is None:
            raise UsageError(f"a {type(model).__name__} is no fitted Prophet; call its fit() first")
        from prophet.serialize import model_to_json

        # MLflow writes the JSON text as a text of JSON.
        (folder / _FILE).write_text(json.dumps(model_to_json(model)), "utf-8")
        own: dict[str, object] = {
            "prophet_version": prophet.__version__,
            "data": _FILE,
            "model_type": "Prophet",
            "code": None,
        }
        generic = {"loader_module": "mlflow.prophet", "data": _FILE}
        return SavedFlavor(
            {self.name: own, "python_function": generic}, ("numpy", "pandas", "prophet")
        )

    def load(
        self,
        folder: Path,
        conf: FlavorConf,
        signature: Signature,
        trust: TrustPolicy,  # noqa: ARG002 - the format holds no code
    ) -> Predictor:
        """A predictor of the declared columns of a forecast; see `Flavor.load`."""
        _import_prophet()
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.prophet.data")
        from prophet.serialize import model_from_json

        try:
            model = model_from_json(json.loads(path.read_text("utf-8")))
        except Exception as exc:  # Prophet checks nothing: whatever it raises means this
            raise PackageFormatError(f"{path} is no model of Prophet: {shown(str(exc))}") from exc
        outputs = signature.outputs
        declared = outputs.columns if isinstance(outputs, ColumnSchema) else ()
        names = [column.name for column in declared if column.name is not None]
        return _ProphetPredictor(model, column_inputs(signature), names)


class _ProphetPredictor:
    def __init__(self, model: Any, schema: ColumnSchema, declared: list[str]) -> None:  # noqa: ANN401 - untyped library
        self._model = model
        self._schema = schema
        self._declared = declared
        if not any(name.endswith(_OF_SAMPLES) for name in declared):
            # Drawn at random, others in each call; most of a forecast's time besides.
            model.uncertainty_samples = 0

    def predict(self, batch: pa.RecordBatch) -> object:
        """The declared columns of the forecast, in the order of the batch."""
        import numpy as np
        import pandas as pd

        frame = pandas_frame(batch, self._schema)
        # Prophet answers in the order of time, and keeps that of rows of the same time.
        order = np.argsort(pd.to_datetime(frame[_TIME]).to_numpy(), kind="stable")
        back = np.argsort(order, kind="stable")
        return self._asked(self._model.predict(frame).iloc[back].reset_index(drop=True))

    def _asked(self, forecast: pd.DataFrame) -> object:
        if self._declared and all(name in forecast.columns for name in self._declared):
            return forecast[self._declared]
        if len(self._declared) == 1:
            return forecast[_FORECAST]
        return forecast.drop(columns=[name for name in _ECHOED if name in forecast.columns])


def _import_prophet() -> ModuleType:
    try:
        import prophet
    except ImportError as exc:
        raise MissingExtraError(
            f"the flavor needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[prophet]'"
        ) from exc
    module: ModuleType = prophet
    return module
