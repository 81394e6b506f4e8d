"""Which steps are known, and how pipelines and column transformers put them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sparkscore.fused.columns import Block, Column, Form, cast, common_dtype, passed_through
from sparkscore.fused.encoders import read_one_hot_encoder, read_ordinal_encoder
from sparkscore.fused.numeric_steps import (
    read_max_abs_scaler,
    read_min_max_scaler,
    read_robust_scaler,
    read_simple_imputer,
    read_standard_scaler,
)
from sparkscore.fused.refusals import NotFusedError


def steps_of(model: Any) -> list[Any]:  # noqa: ANN401 - scikit-learn's
    """The steps of a fitted model in turn, nested pipelines opened; the last one predicts."""
    if _name(model) != "sklearn.Pipeline":
        return [model]
    steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
    return [inner for step in steps for inner in steps_of(step)]


def read_step(step: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """What `step.transform` makes of a block.

    Raises:
        NotFusedError: The step is not known, or does what is not known here.
    """
    for inner in steps_of(step):
        block = _read_one(inner, block)
    return block


def _read_one(step: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    name = _name(step)
    if name not in _READERS:
        raise NotFusedError(f"the step {type(step).__name__} is not known")
    output = getattr(step, "_sklearn_output_config", {}).get("transform") or "default"
    if output != "default":
        raise NotFusedError(f"the step {type(step).__name__} has {output} for output")
    if block.form is Form.SPARSE:
        raise NotFusedError(f"the step {type(step).__name__} is given a sparse matrix")
    if block.form is Form.FRAME and name != "sklearn.ColumnTransformer":
        _check_names(step, block)
    return _READERS[name](step, block)


def _read_column_transformer(transformer: Any, block: Block) -> Block:  # noqa: ANN401 - untyped library
    if transformer.transformer_weights:
        raise NotFusedError("a column transformer weighs its columns")
    parts = [part for part in _parts(transformer, block) if part.columns]
    if not parts:
        raise NotFusedError("a column transformer keeps no column")
    is_sparse = transformer.sparse_output_
    columns: list[Column] = []
    for part in parts:
        as_array = part if is_sparse else passed_through(part)
        dtype = common_dtype(as_array)
        columns += [cast(column, dtype) for column in as_array.columns]
    both = Block(tuple(columns), Form.SPARSE if is_sparse else Form.ARRAY)
    dtype = common_dtype(both)
    return replace(both, columns=tuple(cast(column, dtype) for column in columns))


def _parts(transformer: Any, block: Block) -> Iterator[Block]:  # noqa: ANN401 - untyped library
    names = block.names if hasattr(transformer, "feature_names_in_") else None
    for name, inner, columns in transformer.transformers_:
        if inner == "drop":
            continue
        if isinstance(columns, str | int):
            raise NotFusedError(f"a column transformer gives {name!r} a single column as a series")
        indices = list(transformer._transformer_to_input_indices[name])
        if names is not None:
            fitted = transformer.feature_names_in_
            indices = [names.index(fitted[i]) for i in indices]
        chosen = block.select(indices)
        yield chosen if inner == "passthrough" or not indices else read_step(inner, chosen)


def _read_function_transformer(transformer: Any, block: Block) -> Block:  # noqa: ANN401 - untyped library
    if transformer.func is not None or transformer.validate:
        raise NotFusedError("a FunctionTransformer calls a function")
    return block


def _check_names(step: Any, block: Block) -> None:  # noqa: ANN401 - scikit-learn's
    fitted = getattr(step, "feature_names_in_", None)
    if fitted is not None and block.names is not None and list(fitted) != list(block.names):
        raise NotFusedError(f"the step {type(step).__name__} was fitted on other columns")


def _name(step: object) -> str:
    return f"{type(step).__module__.partition('.')[0]}.{type(step).__name__}"


_READERS: dict[str, Callable[[Any, Block], Block]] = {
    "sklearn.ColumnTransformer": _read_column_transformer,
    "sklearn.FunctionTransformer": _read_function_transformer,
    "sklearn.MaxAbsScaler": read_max_abs_scaler,
    "sklearn.MinMaxScaler": read_min_max_scaler,
    "sklearn.OneHotEncoder": read_one_hot_encoder,
    "sklearn.OrdinalEncoder": read_ordinal_encoder,
    "sklearn.RobustScaler": read_robust_scaler,
    "sklearn.SimpleImputer": read_simple_imputer,
    "sklearn.StandardScaler": read_standard_scaler,
}
