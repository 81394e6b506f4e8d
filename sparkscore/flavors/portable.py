"""The object that a python_function package pickles.

This module is pickled by value: whoever loads the package, MLflow too, needs nothing of ours. So
it may only use the standard library, and only what MLflow asks of a PythonModel is in it.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace


class PortableModel:
    """An object with `predict`, called as MLflow calls a PythonModel."""

    # MLflow looks here for how `predict` is annotated; None means: give it a pandas DataFrame.
    predict_type_hints = SimpleNamespace(input=None, output=None)

    def __init__(self, model: object) -> None:
        self.model = model

    def load_context(self, context: object) -> None:
        """Let the model open its artifacts, if it wants to."""
        load = getattr(self.model, "load_context", None)
        if load is not None:
            load(context)

    def predict(self, context: object, model_input: object, params: object = None) -> object:
        """What the model answers; `context` and `params` are passed where it takes them."""
        predict = self.model.predict  # type: ignore[attr-defined]  # checked when it was saved
        parameters = inspect.signature(predict).parameters
        arguments = (context, model_input) if "context" in parameters else (model_input,)
        extra = {"params": params} if "params" in parameters else {}
        answer: object = predict(*arguments, **extra)
        return answer
