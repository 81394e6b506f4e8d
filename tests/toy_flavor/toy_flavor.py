"""A third party's flavor: means of columns, kept as JSON; found by its entry point only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparkscore.errors import UsageError
from sparkscore.flavors.base import FlavorConf, Predictor, SavedFlavor
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy


@dataclass(frozen=True)
class Shift:
    """Predicts its offset plus the first column."""

    offset: float

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return frame.iloc[:, 0].to_numpy() + self.offset


class ToyFlavor:
    name = "toy"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        if not isinstance(model, Shift):
            raise UsageError(f"a {type(model).__name__} is no Shift")
        (folder / "shift.json").write_text(json.dumps({"offset": model.offset}))
        return SavedFlavor({self.name: {"data": "shift.json"}}, ("numpy",))

    def load(
        self,
        folder: Path,
        conf: FlavorConf,
        signature: Signature,  # noqa: ARG002 - part of the seam
        trust: TrustPolicy,  # noqa: ARG002 - part of the seam
    ) -> Predictor:
        path = resolve_inside(folder, conf.get("data"), "MLmodel flavors.toy.data")
        return _ToyPredictor(json.loads(path.read_text())["offset"])


@dataclass(frozen=True)
class _ToyPredictor:
    offset: float

    def predict(self, batch: pa.RecordBatch) -> object:
        assert batch.num_rows, "a flavor is never asked about no rows"
        return batch.column(0).to_numpy(zero_copy_only=False) + self.offset
