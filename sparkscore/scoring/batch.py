"""Scoring one Arrow batch: bind, cast, predict, and account for every row of it.

This is the one worker code: every engine, the direct call and the certificate come through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
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
from sparkscore.scoring.bisection import REFUSALS, Bisection
from sparkscore.scoring.casts import cast_column, find_cast, is_list
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.outputs import nan_rows, prediction_columns
from sparkscore.scoring.rejects import (
    InvalidRows,
    NanAnswers,
    RejectBudget,
    RejectCode,
    counted,
    is_rejected,
    moved,
    over_budget,
    reasons,
    together,
)
from sparkscore.scoring.unfit import Unfit, first_row, invalid_text, undecodable, unfit_reasons

if TYPE_CHECKING:
    from sparkscore.flavors.base import Predictor

_NAN_TEXT = "the model answered NaN"


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
        on_invalid: Whether a row that the model cannot score fails the batch or is rejected.
        params: What the model is given beside rows, in the place of its defaults.
        nan: Whether a NaN is an answer.
        max_rejects: More rejected rows than these end the batch; None: any number.
        bisects: Whether rows on which the model fails are found, unless the policy is to fail.
    """

    model: str
    bindings: tuple[Binding, ...]
    predictions: pa.Schema
    on_invalid: InvalidRows = InvalidRows.FAIL
    params: Mapping[str, object] = field(default_factory=dict)
    nan: NanAnswers = NanAnswers.KEEP
    max_rejects: int | None = None
    bisects: bool = True


@dataclass(frozen=True)
class ScoredBatch:
    """Predictions for a batch, in input order.

    Attributes:
        predictions: n_rows x the declared columns; a row that was rejected is null.
        rejects: Which rows were rejected, and why, as `scoring.rejects.REASONS`; None: none.
        convert_s: Seconds spent on binding, casting and on the answer's conversion.
        predict_s: Seconds spent in the model.
        n_splits: Times that rows were halved, since memory ran out on them.
        max_bytes: How large a batch may be for memory to suffice, about; None: this one fitted.
        n_not_finite: Predicted numbers that are NaN or infinite; they are kept as they are.
        unknown_levels: Rows with values that the model was not fitted on, by the model's column,
            where its runtime knows them.
    """

    predictions: pa.StructArray
    rejects: pa.RecordBatch | None
    convert_s: float
    predict_s: float
    n_splits: int = 0
    max_bytes: int | None = None
    n_not_finite: int = 0
    unknown_levels: Mapping[str, UnknownLevels] = field(default_factory=dict)

    @property
    def n_rejected(self) -> int:
        """Rows without a prediction."""
        return 0 if self.rejects is None else self.rejects.num_rows


def score_batch(predictor: Predictor, batch: pa.RecordBatch, task: BatchTask) -> ScoredBatch:
    """Score one Arrow batch and account for every row of it.

    Where memory runs out, each half of the rows is scored by itself, down to a single row. Where
    the model fails, and the policy is not to, the rows on which it does are found in the same way.

    Args:
        predictor: Loaded model; keeps no state between calls.
        batch: n_rows x the columns that the bindings read, in any order.
        task: Bindings, declared predictions and the policy for invalid rows.

    Raises:
        InvalidRowsError: A row cannot be given to the model, and the policy is to fail.
        PredictionError: The model raised, or its answer is not what the signature declares; and
            the policy is to fail, or that is no matter of single rows.
        RejectBudgetError: More rows were rejected than task.max_rejects.
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
    starts = accumulate((len(each) for each in scores), initial=0)
    return ScoredBatch(
        predictions=scores[0] if len(scores) == 1 else pa.concat_arrays(scores),
        rejects=together(
            piece.rejects and _after(piece.rejects, start)
            for piece, start in zip(pieces, starts, strict=False)
        ),
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
    inputs, unfit = bind_columns(batch, task)
    valid: pa.Array | None = None
    if unfit is not None:
        valid = pc.invert(is_rejected(unfit, batch.num_rows))
        inputs = inputs.filter(valid)
    with noting_levels() as unknown_levels:
        answers = _answers(predictor, inputs, task)
    scores, refused = answers.scores, answers.rejects
    if task.nan is NanAnswers.REJECT:
        scores, nan = _without_nan(scores, task)
        refused = together([refused, nan])
    if valid is not None:
        scores = _spread(scores, valid)
        refused = refused and moved(refused, pc.indices_nonzero(valid))
    rejects = together([unfit, refused])
    _check_budget(rejects, task)
    ended = time.perf_counter()
    return ScoredBatch(
        predictions=scores,
        rejects=rejects,
        convert_s=ended - started - answers.predict_s,
        predict_s=answers.predict_s,
        n_not_finite=sum(map(_n_not_finite, scores.flatten())),
        unknown_levels=unknown_levels,
    )


@dataclass(frozen=True)
class _Answers:
    """What the model says of the rows that it was given; null where it failed."""

    scores: pa.StructArray
    predict_s: float
    rejects: pa.RecordBatch | None = None


def _answers(predictor: Predictor, inputs: pa.RecordBatch, task: BatchTask) -> _Answers:
    try:
        return _asked(predictor, inputs, task)
    except REFUSALS as exc:
        is_searched = task.bisects and task.on_invalid is not InvalidRows.FAIL
        if not is_searched or inputs.num_rows == 0:
            raise
        failure = exc.with_traceback(None)
    # Not in the handler: the error's trace keeps alive what the model was given.
    started = time.perf_counter()
    bisection = Bisection(
        lambda rows: _asked(predictor, rows, task).scores, task.predictions, task.max_rejects
    )
    scores, rejects = bisection.of(inputs, failure)
    return _Answers(scores, time.perf_counter() - started, rejects)


def _asked(predictor: Predictor, inputs: pa.RecordBatch, task: BatchTask) -> _Answers:
    started = time.perf_counter()
    answer = _predict(predictor, inputs, task)
    predict_s = time.perf_counter() - started
    columns = prediction_columns(answer, task.predictions, inputs.num_rows)
    scores = pa.StructArray.from_arrays(columns, fields=list(task.predictions))
    return _Answers(scores, predict_s)


def _without_nan(
    scores: pa.StructArray, task: BatchTask
) -> tuple[pa.StructArray, pa.RecordBatch | None]:
    """The scores, null where one is NaN, and the reasons.

    Raises:
        PredictionError: There is such a row, and the policy is to fail.
    """
    columns = dict(zip(task.predictions.names, scores.flatten(), strict=True))
    found = [
        (name, mask) for name, column in columns.items() if (mask := nan_rows(column)) is not None
    ]
    if not found:
        return scores, None
    if task.on_invalid is InvalidRows.FAIL:
        name, mask = found[0]
        raise PredictionError(
            f"model {task.model} answered NaN in column {name!r} for {mask.true_count} of "
            f"{len(mask)} rows of a batch, which scoring.on_nan=reject does not take for an "
            "answer; filter or mend such rows, set scoring.on_nan=keep (--on-nan keep), or set "
            "them aside (--on-invalid quarantine)",
            name,
        )
    rejects = _first_reasons(
        (mask, partial(reasons, code=RejectCode.NAN, column=name, messages=_NAN_TEXT))
        for name, mask in found
    )
    assert rejects is not None
    return _with_nulls(scores, is_rejected(rejects, len(scores))), rejects


def _with_nulls(values: pa.Array, mask: pa.Array) -> pa.Array:
    """`values`, of any type, but null where the mask is true."""
    return values.take(pc.if_else(mask, None, pa.array(range(len(values)), pa.int64())))


def _first_reasons(
    each: Iterable[tuple[pa.Array, Callable[[pa.Array], pa.RecordBatch]]],
) -> pa.RecordBatch | None:
    """One reason a row, the first of those that apply.

    Args:
        each: A mask over the rows, and what makes reasons for places of rows.
    """
    known: pa.Array | None = None
    found: list[pa.RecordBatch] = []
    for mask, reasons_of in each:
        new = mask if known is None else pc.and_not(mask, known)
        known = mask if known is None else pc.or_(mask, known)
        found.append(reasons_of(pc.indices_nonzero(new)))
    return together(found)


def _after(found: pa.RecordBatch, start: int) -> pa.RecordBatch:
    """Reasons of a batch that begins at the row `start` of another."""
    return found.set_column(0, found.schema.field(0), pc.add(found["row"], start))


def _check_budget(rejects: pa.RecordBatch | None, task: BatchTask) -> None:
    if rejects is None or task.max_rejects is None:
        return
    excess = RejectBudget(task.max_rejects).excess(rejects.num_rows, 0)
    if excess is not None:
        what = f"{rejects.num_rows} rows of one batch for model {task.model}"
        raise over_budget(what, excess, counted(rejects))


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


def bind_columns(
    batch: pa.RecordBatch, task: BatchTask
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """The model's columns, and which rows it cannot be given, and why (None: it can all).

    Raises:
        InvalidRowsError: There is such a row, and the policy is to fail.
        SignatureMismatchError: A column is of a type that the model's column cannot be made of.
    """
    columns: list[pa.Array] = []
    fields: list[pa.Field] = []
    unfit: list[Unfit] = []
    for binding in task.bindings:
        if binding.guards:
            unfit += _refused(batch, binding)
            continue
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
        unfit += wrong
    if unfit and task.on_invalid is InvalidRows.FAIL:
        raise InvalidRowsError(invalid_text(batch, min(unfit, key=first_row), task.model))
    rejects = _first_reasons((one.mask, partial(unfit_reasons, batch, one)) for one in unfit)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)), rejects


def _refused(batch: pa.RecordBatch, binding: Binding) -> list[Unfit]:
    """The rows that the source itself says are none."""
    assert binding.source is not None
    column = batch.column(binding.source.name)
    if column.null_count == len(column):
        return []
    return [Unfit(binding, RejectCode.MALFORMED, pc.is_valid(column))]


def _bind_column(batch: pa.RecordBatch, binding: Binding) -> tuple[pa.Array, list[Unfit]]:
    if binding.source is None:
        return pa.nulls(batch.num_rows, binding.type), []
    column = batch.column(binding.source.name)
    found: list[Unfit] = []
    if _holds_text(column.type):
        no_text = _no_text(column)
        if no_text is not None:
            found.append(Unfit(binding, RejectCode.NO_TEXT, no_text))
            column = _with_nulls(column, no_text)
    if binding.cast is None and find_cast(column.type, binding.type) is None:
        raise SignatureMismatchError(
            f"the model's column {binding.model_column!r} is {binding.type}, but a column of type "
            f"{column.type} was given; cast it, or give another column"
        )
    converted, unfit = cast_column(column, binding.type)
    if binding.needs_value and column.null_count:
        found.append(Unfit(binding, RejectCode.NULL, pc.is_null(column)))
    if unfit is not None:
        found.append(Unfit(binding, RejectCode.UNFIT, unfit))
    return converted, found


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


def _no_text(column: pa.Array) -> pa.Array | None:
    """The rows with bytes that are no text, which files and Spark hand on as they are."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([undecodable(value) is not None for value in column])
    return None


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


def _spread(scores: pa.StructArray, valid: pa.Array) -> pa.StructArray:
    """`scores` of the valid rows at their places among all rows; null elsewhere."""
    position = pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1)
    return scores.take(pc.if_else(valid, position, None))


def _too_large_text(exc: MemoryError, batch: pa.RecordBatch, model: str) -> str:
    return (
        f"model {model} ran out of memory on a batch of {batch.num_rows} row of {batch.nbytes} "
        f"bytes: {shown(str(exc))}; give each Python worker more memory "
        "(spark.executor.pyspark.memory, or fewer slots a node), or take a smaller model"
    )
