"""From fitted models of scikit-learn, LightGBM and xgboost to ONNX graphs, by their converters.

A converter may answer otherwise than the model: whoever converts compares.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sparkscore.errors import MissingExtraError, NotConvertedError, listed, shown
from sparkscore.flavors.base import FittedModel
from sparkscore.flavors.frames import NUMBERS
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.environment import installed_version
from sparkscore.package.schema import ColumnSchema

if TYPE_CHECKING:
    import pyarrow as pa
    from onnx import ModelProto

_CONVERTERS = ("onnx", "onnxmltools", "onnxruntime", "skl2onnx")
_METHODS = ("predict", "predict_proba")
_ROWS = "rows"
_INSIDE = "model/"


class Precision(StrEnum):
    """What a graph takes for numbers; not every model can be converted to both."""

    DOUBLE = "double"
    FLOAT = "float"


def converter_versions() -> dict[str, str]:
    """The libraries that make a graph and run it, with their versions."""
    versions = {name: installed_version(name) for name in _CONVERTERS}
    return {name: version for name, version in versions.items() if version is not None}


def convert_to_onnx(
    fitted: FittedModel, schema: ColumnSchema, declared: pa.Schema, precision: Precision
) -> ModelProto:
    """A graph for a model, with one input of all columns, or one for each if there is text.

    Args:
        fitted: The model, and what of it is asked.
        schema: Its input columns.
        declared: The prediction columns; outputs get their names.
        precision: What the graph takes for numbers.

    Raises:
        NotConvertedError: The converter does not know the model, or not in this precision.
        MissingExtraError: A converter is not installed.
    """
    library = type(fitted.model).__module__.partition(".")[0]
    unknown = [name for name in fitted.methods if name not in _METHODS]
    if library not in _LIBRARIES or unknown:
        raise NotConvertedError(
            f"a {type(fitted.model).__name__} that is asked for {listed(fitted.methods)} cannot be "
            f"converted to ONNX; known are {listed(_METHODS)} of {listed(_LIBRARIES)}; keep it"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of the converters' own making.
            made = _LIBRARIES[library](fitted.model, schema, precision)
    except (NotConvertedError, MissingExtraError):
        raise
    except ImportError as exc:
        raise MissingExtraError(
            f"converting needs {exc.name}, which is not installed; "
            "run: pip install 'sparkscore[onnx]'"
        ) from exc
    except Exception as exc:  # converters raise anything for what they do not know
        said = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise NotConvertedError(
            f"a {type(fitted.model).__name__} cannot be converted to ONNX in {precision}s: "
            f"{shown(said)}; keep it"
        ) from exc
    return _with_outputs(made, _outputs(made, fitted), declared)


def _from_sklearn(model: Any, schema: ColumnSchema, precision: Precision) -> ModelProto:  # noqa: ANN401 - untyped library
    import skl2onnx
    from skl2onnx.common import data_types

    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    numbers = getattr(data_types, f"{precision.capitalize()}TensorType")
    columns = schema.columns
    if all(column.type in NUMBERS for column in columns) and not _finds_by_name(model):
        inputs = [(_ROWS, numbers([None, len(columns)]))]
    else:
        inputs = [
            (str(column.name), kind([None, 1]))
            for column in columns
            for kind in [data_types.StringTensorType if _is_text(column.type) else numbers]
        ]
    graph: ModelProto = skl2onnx.convert_sklearn(model, initial_types=inputs, options=options)
    return graph


def _from_lightgbm(model: Any, schema: ColumnSchema, precision: Precision) -> ModelProto:  # noqa: ANN401 - untyped library
    import onnxmltools

    inputs = _matrix(schema, precision)
    graph: ModelProto = onnxmltools.convert_lightgbm(model, initial_types=inputs, zipmap=False)
    return graph


def _from_xgboost(model: Any, schema: ColumnSchema, precision: Precision) -> ModelProto:  # noqa: ANN401 - untyped library
    import onnxmltools

    inputs = _matrix(schema, precision)
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    # The converter takes columns by their numbers, and no other name.
    booster.feature_names = None
    graph: ModelProto = onnxmltools.convert_xgboost(model, initial_types=inputs)
    return graph


_LIBRARIES = {"lightgbm": _from_lightgbm, "sklearn": _from_sklearn, "xgboost": _from_xgboost}


def _finds_by_name(model: Any) -> bool:  # noqa: ANN401 - scikit-learn's
    """Whether a pipeline takes its columns apart by their names."""
    steps = [step for _, step in getattr(model, "steps", [])]
    return any(type(step).__name__ == "ColumnTransformer" or _finds_by_name(step) for step in steps)


def _is_text(kind: object) -> bool:
    if kind not in (*NUMBERS, ScalarType.STRING):
        raise NotConvertedError(
            f"a column of the type {kind} has no place in a converted model; keep it"
        )
    return kind is ScalarType.STRING


def _matrix(schema: ColumnSchema, precision: Precision) -> list[tuple[str, object]]:
    from onnxmltools.convert.common import data_types

    others = [column.name for column in schema.columns if column.type not in NUMBERS]
    if others:
        raise NotConvertedError(
            f"the columns {listed(others)} are no numbers, which its converter does not know; "
            "keep it"
        )
    kind = getattr(data_types, f"{precision.capitalize()}TensorType")
    return [(_ROWS, kind([None, len(schema.columns)]))]


def _outputs(made: ModelProto, fitted: FittedModel) -> list[tuple[str, int | None]]:
    """For each answer the output that has it, and the column there if it is a single one."""
    have = [value.name for value in made.graph.output]
    if len(have) == 1:
        return [(have[0], None)]
    if not _answers_probabilities(fitted.model):
        return [(have[_METHODS.index(method)], None) for method in fitted.methods]
    n_classes = made.graph.output[1].type.tensor_type.shape.dim[1].dim_value
    return [(have[1], 1 if n_classes == 2 else None)]  # noqa: PLR2004 - the second of two classes


def _answers_probabilities(model: object) -> bool:
    """Whether its `predict` answers what converters take for probabilities beside a label."""
    return type(model).__name__ == "Booster"


def _with_outputs(
    made: ModelProto, wanted: Sequence[tuple[str, int | None]], declared: pa.Schema
) -> ModelProto:
    """The same graph with the wanted outputs alone, by the declared names where each has one."""
    from onnx import TensorProto, compose, helper

    # No value inside has a declared name then.
    graph = compose.add_prefix(made, _INSIDE, rename_inputs=False).graph
    old = {value.name: value for value in graph.output}
    is_one_each = len(declared) == len(wanted)
    names = declared.names if is_one_each else [name for name, _ in wanted]
    outputs = []
    for i, ((name, column), new) in enumerate(zip(wanted, names, strict=True)):
        value = copy.deepcopy(old[_INSIDE + name])
        tensor = value.type.tensor_type
        if column is not None:
            at = f"{_INSIDE}{new}_at"
            graph.initializer.append(helper.make_tensor(at, TensorProto.INT64, [], [column]))
            graph.node.append(helper.make_node("Gather", [value.name, at], [new], axis=1))
            del tensor.shape.dim[1]
        elif is_one_each and str(declared.field(i).type) == "bool":
            # Converters know labels that are numbers or text.
            graph.node.append(helper.make_node("Cast", [value.name], [new], to=TensorProto.BOOL))
            tensor.elem_type = TensorProto.BOOL
        else:
            graph.node.append(helper.make_node("Identity", [value.name], [new]))
        value.name = new
        outputs.append(value)
    del graph.output[:]
    graph.output.extend(outputs)
    made.graph.CopyFrom(graph)
    return made
