"""The object that a python_function package pickles, and how a model's `predict` is called.

This module is pickled by value: whoever loads the package, MLflow too, needs nothing of ours. So
it may only use the standard library, and only what MLflow asks of a PythonModel is in it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import SimpleNamespace


class PortableModel:
    """An object with `predict`, or a function, called as MLflow calls a PythonModel."""

    # MLflow looks here for how `predict` is annotated; None means: give it a pandas DataFrame.
    predict_type_hints = SimpleNamespace(input=None, output=None)

    def __init__(self, model: object) -> None:
        self.model = model
        # Read where the model is written: pickled, it forgets what its annotations name.
        self.hint = input_hint(model)

    def load_context(self, context: object) -> None:
        """Let the model open its artifacts, if it wants to."""
        load_context(self.model, context)

    def predict(self, context: object, model_input: object, params: object = None) -> object:
        """What the model answers; see `call_model`."""
        return call_model(self.model, context, model_input, params, self.hint)


def load_context(model: object, context: object) -> None:
    """Let a model open its artifacts, if it has a method `load_context`."""
    load = getattr(model, "load_context", None)
    if load is not None:
        load(context)


def call_model(
    model: object, context: object, model_input: object, params: object, hint: object = None
) -> object:
    """What a model answers for rows.

    Args:
        model: An object with `predict(context, model_input, params)`, of which it may leave out
            `context` and `params`; or a function of the same form.
        context: Given where it is taken: by this name, or as the first of two arguments.
        model_input: A pandas DataFrame. A model whose argument is annotated as `list[...]` gets
            its one column as a list, or a dictionary (or pydantic model) for each row.
        params: Given where it is taken, by this name.
        hint: The annotation of the argument, where it is known from elsewhere.
    """
    predict = predict_of(model)
    given = as_hinted(model_input, input_hint(model) if hint is None else hint)
    arguments = (context, given) if _takes_context(predict) else (given,)
    extra = {"params": params} if takes_params(model) else {}
    return predict(*arguments, **extra)


def input_hint(model: object) -> object:
    """The `list[...]` that a model's argument for rows is annotated as; None: another, or none."""
    predict = predict_of(model)
    names = list(inspect.signature(predict).parameters)
    if not names:
        return None
    try:
        hint = typing.get_type_hints(predict).get(names[1 if _takes_context(predict) else 0])
    except Exception:  # noqa: BLE001 - annotations are foreign code, and may name what is gone
        return None
    return hint if typing.get_origin(hint) is list else None


def predict_of(model: object) -> Callable[..., object]:
    """The method `predict` of a model, or the model itself, which is a function then."""
    predict: Callable[..., object] = getattr(model, "predict", None) or model  # type: ignore[assignment]  # checked by those who load and save
    return predict


def takes_params(model: object) -> bool:
    """Whether a model's `predict` has an argument `params`."""
    return "params" in inspect.signature(predict_of(model)).parameters


def _takes_context(predict: Callable[..., object]) -> bool:
    parameters = inspect.signature(predict).parameters
    needed = [
        name
        for name, parameter in parameters.items()
        if name != "params"
        and parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return "context" in parameters or len(needed) == 2  # noqa: PLR2004 - context and input


def as_hinted(frame: typing.Any, hint: object) -> object:  # noqa: ANN401 - pandas is not imported
    """A pandas frame as what `hint` asks for; anything else as it is."""
    if typing.get_origin(hint) is not list or not hasattr(frame, "iloc"):
        return frame
    element = typing.get_args(hint)[0]
    kind = typing.get_origin(element) or element
    build = getattr(element, "model_validate", None)
    if kind is dict or build is not None:
        only = frame.iloc[:, 0].tolist() if frame.shape[1] == 1 else [None]
        is_whole = all(isinstance(value, dict) for value in only)
        rows = only if is_whole else frame.to_dict("records")
        return rows if build is None else [build(row) for row in rows]
    columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
    if element is str and len(columns) > 1:  # MLflow takes the first column of text then.
        columns = [column for column in columns if column.dtype == object][:1]
    if len(columns) != 1:
        raise TypeError(
            f"predict takes {hint}, which one column fills, but the model has "
            f"{frame.shape[1]} columns; annotate it as list[dict] or pandas.DataFrame"
        )
    return columns[0].tolist()
