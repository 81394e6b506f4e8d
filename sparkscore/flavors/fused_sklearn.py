"""scikit-learn's pipelines with their common steps fused, where that is equal to the bit.

The last step stays the library's own object and is given the same matrix as by the pipeline: the
same values in the same dtype and memory order, or the same sparse rows. So what is compared at
load is the matrix itself, and the answer.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkscore.errors import shown
from sparkscore.flavors.base import COMPILED_TREES, Predictor, Runtime
from sparkscore.flavors.compiled_sklearn import compile_estimator
from sparkscore.flavors.frames import pandas_frame
from sparkscore.flavors.sklearn_answers import Answer
from sparkscore.fused.columns import Block, Form, cast, common_dtype, frame_block
from sparkscore.fused.matrix import Filling, Order
from sparkscore.fused.pipeline_steps import read_step, steps_of
from sparkscore.fused.probes import Hardness, probe_rows
from sparkscore.fused.refusals import LeftToPipelineError, NotFusedError
from sparkscore.trees.forest import NotCompiledError

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema

_BuildMatrix = Callable[["pa.RecordBatch"], Any]


def fused_or_compiled(
    model: object, answer: Answer, schema: ColumnSchema, native: Predictor
) -> Predictor:
    """The fastest predictor that answers as the model itself; see `fuse`.

    Raises:
        NotCompiledError: Neither can its steps be fused, nor does it have trees to compile.
    """
    try:
        return fuse(model, answer, schema, native)
    except NotFusedError as exc:
        not_fused = f"not fused: {exc}"
    try:
        compile_estimator(model)
    except NotCompiledError as exc:
        raise NotCompiledError(f"{exc}; {not_fused}") from exc
    return _CompiledPredictor(native, not_fused)


def fuse(model: object, answer: Answer, schema: ColumnSchema, native: Predictor) -> Predictor:
    """A predictor that answers as the pipeline does, or leaves a batch to it.

    Args:
        model: A fitted pipeline, or an estimator alone.
        answer: What is asked of it.
        schema: The columns of batches.
        native: The pipeline itself as a predictor.

    Raises:
        NotFusedError: A step is not known, or the matrix or the answer was seen to differ.
    """
    try:
        return _fused(model, answer, schema, native)
    except NotFusedError:
        raise
    except Exception as exc:
        # Fitted attributes are no public interface: another release may hold them otherwise.
        raise NotFusedError(f"a step has another form: {shown(repr(exc))}") from exc


class _CompiledPredictor:
    """The model itself, with compiled trees inside."""

    def __init__(self, native: Predictor, not_fused: str) -> None:
        self._native = native
        self.runtime = Runtime(COMPILED_TREES.name, f"{COMPILED_TREES.reason}; {not_fused}")

    def predict(self, batch: pa.RecordBatch) -> object:
        return self._native.predict(batch)


class _FusedPredictor:
    """Fills the matrix and asks the last step."""

    def __init__(
        self, build: _BuildMatrix, head: object, answer: Answer, native: Predictor
    ) -> None:
        self._build = build
        self._head = head
        self._answer = answer
        self._native = native
        self.runtime = Runtime("fused pipeline", "auto: equal to its own steps on probe rows")

    def predict(self, batch: pa.RecordBatch) -> object:
        try:
            matrix = self._build(batch)
        except LeftToPipelineError:
            return self._native.predict(batch)
        return self._answer(self._head, matrix)

    def with_compiled_trees(self) -> _FusedPredictor:
        """The same with compiled trees in a copy of the last step.

        Raises:
            NotCompiledError: It has no trees, or they cannot be compiled.
        """
        head = copy.copy(self._head)
        compile_estimator(head)
        compiled = _FusedPredictor(self._build, head, self._answer, self._native)
        compiled.runtime = replace(self.runtime, name="fused pipeline, compiled trees")
        return compiled


def _fused(model: object, answer: Answer, schema: ColumnSchema, native: Predictor) -> Predictor:
    *steps, head = steps_of(model)
    block = frame_block(schema)
    for step in steps:
        block = read_step(step, block)
    is_frame = block.form is Form.FRAME
    if is_frame:
        block, head = _array_for(head, block), _without_names(head)
    filling = Filling(block)
    batch, expected = _answered(filling, schema, native)
    example = None if is_frame else _transformed(steps, pandas_frame(batch, schema))
    build = _matrix_builder(filling, example)
    if example is not None:
        _check_matrix(build(batch), example)
    fused = _FusedPredictor(build, head, answer, native)
    batches = [batch, *(batch.slice(0, n_rows) for n_rows in _SIZES)]
    answers = [expected, *(_quietly(native.predict, each) for each in batches[1:])]
    _check_answers(fused, batches, answers)
    try:
        compiled = fused.with_compiled_trees()
        _check_answers(compiled, batches, answers)
    except (NotCompiledError, NotFusedError) as exc:
        fused.runtime = replace(fused.runtime, reason=f"{fused.runtime.reason}; {exc}")
        return fused
    return compiled


def _answered(
    filling: Filling, schema: ColumnSchema, native: Predictor
) -> tuple[pa.RecordBatch, object]:
    """Rows that the pipeline answers, the hardest of these; and the answer."""
    refusal = ""
    for hardness in reversed(Hardness):
        batch = probe_rows(schema, filling.sources, hardness)
        try:
            return batch, _quietly(native.predict, batch)
        except Exception as exc:  # noqa: BLE001 - the edge to foreign model code
            refusal = str(exc)
    raise NotFusedError(f"it refuses probe rows: {shown(refusal)}")


def _transformed(steps: list[Any], frame: object) -> Any:  # noqa: ANN401 - any matrix
    for step in steps:
        frame = _quietly(step.transform, frame)
    return frame


def _quietly(function: Callable[[Any], Any], argument: object) -> Any:  # noqa: ANN401 - untyped library
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of unknown categories, which probe rows have.
        return function(argument)


def _matrix_builder(filling: Filling, example: Any) -> _BuildMatrix:  # noqa: ANN401 - untyped library
    """How matrices like `example` are made; None: like the array of a frame."""
    if example is None:
        return partial(filling.dense, order="F")
    if hasattr(example, "indptr"):
        return partial(_sparse, filling, type(example), example.indices.dtype)
    order: Order = "C" if example.flags.c_contiguous else "F"
    if not example.flags[f"{order}_CONTIGUOUS"]:
        raise NotFusedError("its matrix is not contiguous")
    return partial(filling.dense, order=order)


def _sparse(
    filling: Filling,
    kind: Callable[..., Any],
    index_dtype: np.dtype[Any],
    batch: pa.RecordBatch,
) -> Any:  # noqa: ANN401 - a matrix of SciPy
    shape = (batch.num_rows, filling.n_columns)
    return kind(filling.sparse(batch, index_dtype), shape=shape)


def _check_matrix(ours: Any, native: Any) -> None:  # noqa: ANN401 - untyped library
    is_sparse = hasattr(native, "indptr")
    if not is_sparse and native.dtype == object:
        # Numbers beside booleans: every estimator makes doubles of them, in this memory order.
        native = native.astype(np.float64)
    for part in ("data", "indices", "indptr") if is_sparse else ("T",):
        if not _is_same(getattr(ours, part), getattr(native, part)):
            raise NotFusedError("its matrix was seen to differ from the steps' own")


def _check_answers(fused: Predictor, batches: list[pa.RecordBatch], answers: list[object]) -> None:
    for batch, answer in zip(batches, answers, strict=True):
        if not _is_same(_quietly(fused.predict, batch), answer):
            raise NotFusedError("its answer was seen to differ from the pipeline's own")


def _is_same(ours: object, native: object) -> bool:
    """Whether two answers are equal to the bit; objects, such as labels, in value."""
    if isinstance(ours, dict) and isinstance(native, dict):
        return list(ours) == list(native) and all(_is_same(ours[k], native[k]) for k in native)
    if not isinstance(ours, np.ndarray) or not isinstance(native, np.ndarray):
        return False
    if ours.dtype != native.dtype or ours.shape != native.shape:
        return False
    if ours.dtype.kind == "O":
        return bool((ours == native).all())
    return ours.tobytes() == native.tobytes()


def _array_for(head: Any, block: Block) -> Block:  # noqa: ANN401 - scikit-learn's
    """The array that an estimator makes of the frame it is given."""
    name = type(head).__name__
    if not type(head).__module__.startswith("sklearn.") or name not in _TAKE_FRAMES:
        raise NotFusedError(f"what a {name} makes of a frame is not known")
    if getattr(head, "_preprocessor", None) is not None:
        raise NotFusedError(f"the {name} encodes categories of a frame itself")
    fitted = getattr(head, "feature_names_in_", None)
    if fitted is not None and (block.names is None or list(fitted) != list(block.names)):
        raise NotFusedError(f"the {name} was fitted on other columns")
    dtype = common_dtype(block)
    return Block(tuple(cast(column, dtype) for column in block.columns), Form.ARRAY)


def _without_names(head: Any) -> Any:  # noqa: ANN401 - scikit-learn's
    """A copy that is content with an array, where it was fitted on a frame."""
    head = copy.copy(head)
    vars(head).pop("feature_names_in_", None)
    return head


_SIZES = (1, 2, 7)
"""Rows of further batches: BLAS takes other ways for few rows."""

_LINEAR = (
    "ElasticNet",
    "ElasticNetCV",
    "Lasso",
    "LassoCV",
    "LinearRegression",
    "LogisticRegression",
    "LogisticRegressionCV",
    "Ridge",
    "RidgeCV",
    "RidgeClassifier",
    "SGDClassifier",
    "SGDRegressor",
)
_TREES = (
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GradientBoostingClassifier",
    "GradientBoostingRegressor",
    "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor",
    "RandomForestClassifier",
    "RandomForestRegressor",
)
_TAKE_FRAMES = frozenset((*_LINEAR, *_TREES))
"""Estimators that turn a frame into one array, and look at nothing else of it."""
