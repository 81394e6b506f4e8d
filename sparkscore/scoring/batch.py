"""Scoring one Arrow batch: bind, cast, predict, and account for every row of it.

This is the one worker code: every engine, the direct call and the certificate come through here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import (
    InvalidRowsError,
    ModelTooLargeError,
    PredictionError,
    SignatureMismatchError,
    SparkscoreError,
    is_out_of_memory,
    shown,
)
from sparkscore.flavors.base import Parametric
from sparkscore.fused.levels import UnknownLevels, added, noting_levels
from sparkscore.scoring.casts import cast_column, find_cast, is_list
from sparkscore.scoring.comparison import Binding, InvalidRows
from sparkscore.scoring.outputs import prediction_columns

if TYPE_CHECKING:
    from sparkscore.flavors.base import Predictor


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of one call to the model; the smaller one of rows and bytes wins.

    The defaults come from measurements: predicting is flat in time per row from 2,000 rows on,
    decoding from 8,000, and a batch must fit into a worker several times over. `deadline_s` is for
    what Spark hands to a worker at once, and for loading the model before the first of it.
    """

    max_rows: int = 65_536
    max_bytes: int = 64 * 2**20
    deadline_s: int = 900

    def within(self, max_bytes: int | None) -> BatchLimits:
        """These limits with no more bytes than `max_bytes`; None: as they are."""
        if max_bytes is None or max_bytes >= self.max_bytes:
            return self
        return replace(self, max_bytes=max_bytes)


@dataclass(frozen=True)
class BatchTask:
    """What a worker needs of a plan.

    Attributes:
        model: How messages call the model.
        bindings: How the model's columns are filled.
        predictions: The declared prediction columns.
        on_invalid: Whether an invalid row fails the batch or is rejected.
        params: What the model is given beside rows, in the place of its defaults.
    """

    model: str
    bindings: tuple[Binding, ...]
    predictions: pa.Schema
    on_invalid: InvalidRows = InvalidRows.FAIL
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredBatch:
    """Predictions for a batch, in input order.

    Attributes:
        predictions: n_rows x the declared columns; a row that was rejected is null.
        n_rejected: Rows that were not given to the model.
        convert_s: Seconds spent on binding, casting and on the answer's conversion.
        predict_s: Seconds spent in the model.
        n_splits: Times that rows were halved, since memory ran out on them.
        max_bytes: How large a batch may be for memory to suffice, about; None: this one fitted.
        n_not_finite: Predicted numbers that are NaN or infinite; they are kept as they are.
        unknown_levels: Rows with values that the model was not fitted on, by the model's column,
            where its runtime knows them.
    """

    predictions: pa.StructArray
    n_rejected: int
    convert_s: float
    predict_s: float
    n_splits: int = 0
    max_bytes: int | None = None
    n_not_finite: int = 0
    unknown_levels: Mapping[str, UnknownLevels] = field(default_factory=dict)


def score_batch(predictor: Predictor, batch: pa.RecordBatch, task: BatchTask) -> ScoredBatch:
    """Score one Arrow batch and account for every row of it.

    Where memory runs out, each half of the rows is scored by itself, down to a single row.

    Args:
        predictor: Loaded model; keeps no state between calls.
        batch: n_rows x the columns that the bindings read, in any order.
        task: Bindings, declared predictions and the policy for invalid rows.

    Raises:
        InvalidRowsError: A row cannot be given to the model, and the policy is to fail.
        PredictionError: The model raised, or its answer is not what the signature declares.
        ModelTooLargeError: Memory ran out on a single row.
    """
    try:
        return _score(predictor, batch, task)
    except MemoryError as exc:  # That of pyarrow and that of numpy among them.
        if batch.num_rows <= 1:
            raise ModelTooLargeError(_too_large_text(exc, batch, task.model)) from exc
    # Not in the handler: the error's trace keeps alive what has filled the memory.
    middle = batch.num_rows // 2
    halves = [
        score_batch(predictor, half, task) for half in (batch.slice(0, middle), batch.slice(middle))
    ]
    whole = joined(halves)
    return replace(
        whole,
        n_splits=whole.n_splits + 1,
        max_bytes=batch.nbytes // 2 if whole.max_bytes is None else whole.max_bytes,
    )


def joined(pieces: Sequence[ScoredBatch]) -> ScoredBatch:
    """Consecutive batches, at least one, as one."""
    scores = [piece.predictions for piece in pieces]
    return ScoredBatch(
        predictions=scores[0] if len(scores) == 1 else pa.concat_arrays(scores),
        n_rejected=sum(piece.n_rejected for piece in pieces),
        convert_s=sum(piece.convert_s for piece in pieces),
        predict_s=sum(piece.predict_s for piece in pieces),
        n_splits=sum(piece.n_splits for piece in pieces),
        max_bytes=min(
            (piece.max_bytes for piece in pieces if piece.max_bytes is not None), default=None
        ),
        n_not_finite=sum(piece.n_not_finite for piece in pieces),
        unknown_levels=added(piece.unknown_levels for piece in pieces),
    )


def slices(batch: pa.RecordBatch, limits: BatchLimits) -> Iterator[pa.RecordBatch]:
    """`batch` in pieces within the limits, at least one row each; views, no copies."""
    n_rows = batch.num_rows
    bytes_per_row = max(1, batch.nbytes // max(1, n_rows))
    step = max(1, min(limits.max_rows, limits.max_bytes // bytes_per_row))
    for start in range(0, max(1, n_rows), step):
        yield batch.slice(start, step)


def _score(predictor: Predictor, batch: pa.RecordBatch, task: BatchTask) -> ScoredBatch:
    started = time.perf_counter()
    inputs, invalid = bind_columns(batch, task)
    if invalid is not None:
        inputs = inputs.filter(pc.invert(invalid))
    bound = time.perf_counter()
    with noting_levels() as unknown_levels:
        answer = _predict(predictor, inputs, task)
    predicted = time.perf_counter()
    columns = prediction_columns(answer, task.predictions, inputs.num_rows)
    scores = pa.StructArray.from_arrays(columns, fields=list(task.predictions))
    if invalid is not None:
        scores = _spread(scores, invalid)
    ended = time.perf_counter()
    return ScoredBatch(
        predictions=scores,
        n_rejected=batch.num_rows - inputs.num_rows,
        convert_s=ended - predicted + bound - started,
        predict_s=predicted - bound,
        n_not_finite=sum(map(_n_not_finite, columns)),
        unknown_levels=unknown_levels,
    )


def _n_not_finite(predictions: pa.Array) -> int:
    """Numbers, in lists and structs too, that are NaN or infinite."""
    kind = predictions.type
    if pa.types.is_floating(kind):
        n_numbers = len(predictions) - predictions.null_count
        return int(n_numbers - pc.is_finite(predictions).true_count)
    if is_list(kind):
        return _n_not_finite(predictions.flatten())
    if pa.types.is_struct(kind):
        return sum(map(_n_not_finite, predictions.flatten()))
    return 0


def bind_columns(batch: pa.RecordBatch, task: BatchTask) -> tuple[pa.RecordBatch, pa.Array | None]:
    """The model's columns, and which rows are invalid (None: no row is).

    Raises:
        InvalidRowsError: A row is invalid, and the policy is to fail; or a text is no UTF-8.
        SignatureMismatchError: A column is of a type that the model's column cannot be made of.
    """
    columns: list[pa.Array] = []
    fields: list[pa.Field] = []
    invalid: pa.Array | None = None
    for binding in task.bindings:
        column, wrong = _bind_column(batch, binding)
        if binding.spread:
            columns.extend(_items(column))
            item = binding.type.value_type
            fields.extend(pa.field(name, item, nullable=False) for name in binding.spread)
        else:
            columns.append(column)
            fields.append(
                pa.field(binding.model_column, column.type, nullable=not binding.needs_value)
            )
        if wrong is None:
            continue
        if task.on_invalid is InvalidRows.FAIL:
            raise InvalidRowsError(_invalid_text(batch, binding, wrong, task.model))
        invalid = wrong if invalid is None else pc.or_(invalid, wrong)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)), invalid


def _bind_column(batch: pa.RecordBatch, binding: Binding) -> tuple[pa.Array, pa.Array | None]:
    if binding.source is None:
        return pa.nulls(batch.num_rows, binding.type), None
    column = batch.column(binding.source.name)
    if _holds_text(column.type):
        _check_text(column, binding.source.name)
    if binding.cast is None and find_cast(column.type, binding.type) is None:
        raise SignatureMismatchError(
            f"the model's column {binding.model_column!r} is {binding.type}, but a column of type "
            f"{column.type} was given; cast it, or give another column"
        )
    converted, unfit = cast_column(column, binding.type)
    if binding.needs_value and column.null_count:
        empty = pc.is_null(column)
        return converted, empty if unfit is None else pc.or_(empty, unfit)
    return converted, unfit


def _items(rows: pa.FixedSizeListArray) -> list[pa.Array]:
    """The items of rows of one length, a column for each place."""
    size = rows.type.list_size
    values = rows.values.slice(rows.offset * size, len(rows) * size)
    if values.null_count or not (
        pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    ):
        return [pc.list_element(rows, i) for i in range(size)]
    matrix = values.to_numpy().reshape(len(rows), size)
    # One pass, instead of a strided one for each column. Rows that are null are rejected.
    return [pa.array(column) for column in np.ascontiguousarray(matrix.T)]


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_text(column: pa.Array, name: str) -> None:
    """Refuse bytes that are no text, which files and Spark hand on as they are."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as exc:
        for row, value in enumerate(column):
            try:
                value.as_py()
            except UnicodeDecodeError as wrong:
                raise InvalidRowsError(
                    f"column {name!r} holds text that is no UTF-8: byte "
                    f"0x{wrong.object[wrong.start]:02x} at offset {wrong.start} of "
                    f"{shown(wrong.object)}, in row {row} of a batch of {len(column)}; decode it "
                    "rightly in a view, or mend it there with make_valid_utf8"
                ) from exc
        raise


def _predict(predictor: Predictor, inputs: pa.RecordBatch, task: BatchTask) -> object:
    try:
        if task.params and isinstance(predictor, Parametric):
            predictor = predictor.with_params(task.params)
        return predictor.predict(inputs)
    except SparkscoreError:
        raise
    except (Exception, SystemExit) as exc:  # the edge to foreign model code: it may raise anything
        if is_out_of_memory(exc):
            raise MemoryError(str(exc)) from exc
        raise PredictionError(
            f"model {task.model} raised {type(exc).__name__} on a batch of {inputs.num_rows} rows: "
            f"{shown(str(exc))}"
        ) from exc


def _spread(scores: pa.StructArray, invalid: pa.Array) -> pa.StructArray:
    """`scores` of the valid rows at their places among all rows; null elsewhere."""
    valid = pc.invert(invalid)
    position = pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1)
    return scores.take(pc.if_else(valid, position, None))


def _too_large_text(exc: MemoryError, batch: pa.RecordBatch, model: str) -> str:
    return (
        f"model {model} ran out of memory on a batch of {batch.num_rows} row of {batch.nbytes} "
        f"bytes: {shown(str(exc))}; give each Python worker more memory "
        "(spark.executor.pyspark.memory, or fewer slots a node), or take a smaller model"
    )


def _invalid_text(batch: pa.RecordBatch, binding: Binding, wrong: pa.Array, model: str) -> str:
    source = binding.source
    assert source is not None
    row = pc.index(wrong, True).as_py()
    first = batch.column(source.name)[row].as_py()
    if first is None:
        what = "is null, but the model's column is required and its type has no missing value"
    elif is_list(binding.type):
        what = f"is {shown(first)}, which is no row of {_shape_text(binding.type)} without null"
    else:
        what = f"is {shown(first)}, which no {binding.type} equals"
    return (
        f"model {model}: column {source.name!r} {what} ({pc.sum(wrong).as_py()} such rows in a "
        f"batch of {batch.num_rows}, the first is its row {row}); fill or filter them, declare the "
        "column optional, or set scoring.on_invalid=reject (--on-invalid reject)"
    )


def _shape_text(kind: pa.DataType) -> str:
    """The type of a tensor's rows, such as `double[28, 28]`."""
    lengths: list[str] = []
    while is_list(kind):
        lengths.append(str(kind.list_size) if pa.types.is_fixed_size_list(kind) else "-1")
        kind = kind.value_type
    return f"{kind}[{', '.join(lengths)}]"
