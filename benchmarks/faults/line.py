"""The model that faults happen to; it obeys files, so that a trial can tell it what to do."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import pyarrow as pa

from sparkscore import infer_signature, save_model

if TYPE_CHECKING:
    import pandas as pd

MARK, POISON = -1.0, -2.0
"""Values of x by which the model knows the row that its orders are for, and the poisoned ones."""


@dataclass(frozen=True)
class Line:
    """Answers slope * x + 1, takes 50 ms a batch, and obeys the files at a gate.

    hold         the batch with the marked row waits, and makes the file `held`
    hang         the batch with the marked row never comes back
    print        the batch with the marked row prints 100 MB
    die-HOW-N    the process of the batch with the marked row ends by HOW; each file once
    raise-N      the batch with the marked row raises; each file once
    poison       a batch with a poisoned row raises
    """

    slope: float
    gate: Path

    def predict(self, context: object, model_input: pd.DataFrame) -> object:  # noqa: ARG002 - MLflow's form
        """One double a row."""
        x = model_input["x"].to_numpy()
        time.sleep(0.05)
        if self._is_told("poison") and (x == POISON).any():
            raise ValueError("a poisoned row")
        if (x == MARK).any():
            self._obey()
        return x * self.slope + 1.0

    def _obey(self) -> None:
        while self._is_told("hold"):
            (self.gate / "held").touch()
            time.sleep(0.02)
        while self._is_told("hang"):
            time.sleep(60)
        if self._is_told("print"):
            for _ in range(100):
                sys.stdout.write("x" * 2**20)
        for order in [*self.gate.glob("die-*"), *self.gate.glob("raise-*")]:
            order.unlink()
            _end(order.name.split("-")[1])

    def _is_told(self, order: str) -> bool:
        return (self.gate / order).exists()


def _end(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        sys.exit(3)
    elif how in ("KILL", "TERM"):
        os.kill(os.getpid(), signal.Signals[f"SIG{how}"])
        time.sleep(5)
    raise RuntimeError("told to")


def save_line(folder: Path, slope: float, gate: Path) -> None:
    """Package such a model; workers need no more than the package."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    inputs = pa.table({"x": [0.5]})
    outputs = pa.table({"prediction": [2.0]})
    signature = infer_signature(inputs, outputs)
    save_model(Line(slope, gate), folder, flavor="python_function", signature=signature)
