"""Which rows of a batch a model fails on: the batch is halved until they stand alone.

One such row among n costs about 2 log2(n) calls, of 3 n rows in all. A batch on which the model
fails row by row is recognised by a few rows of it, and one of which it takes each row, but not
several, is no matter of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from sparkscore.errors import InvalidRowsError, PredictionError
from sparkscore.scoring.rejects import RejectCode, reasons, together

N_PROBES = 32
"""Rows that are tried alone before all of a piece is given up: a share of 10 % that the model
would take is overlooked once in thirty times, one of 30 % once in 100,000."""
_MIN_PROBED_ROWS = 8 * N_PROBES
"""In smaller pieces the probes would cost as much as they save."""
_MAX_CONTRADICTIONS = 8
"""Pieces that fail, while both of their halves do not; a model that is at times not reachable
may have some."""

REFUSALS = (PredictionError, InvalidRowsError)
"""What a model, or who asks it, raises because of rows."""

Refusal = PredictionError | InvalidRowsError
Ask = Callable[[pa.RecordBatch], pa.StructArray]
"""Predictions of rows, or one of REFUSALS."""


class Bisection:
    """Finds the rows of one batch that a model fails on.

    Args:
        ask: Calls the model.
        predictions: The declared columns.
        max_rejects: More rows than these need not be found; None: all are.
    """

    def __init__(self, ask: Ask, predictions: pa.Schema, max_rejects: int | None) -> None:
        self._ask = ask
        self._type = pa.struct(list(predictions))
        self._max_rejects = max_rejects
        self._rejects: list[pa.RecordBatch] = []
        self._n_rejected = 0
        self._n_contradictions = 0

    def of(
        self, inputs: pa.RecordBatch, failure: Refusal
    ) -> tuple[pa.StructArray, pa.RecordBatch | None]:
        """Predictions of all rows, null where the model fails on one; and the reasons.

        Once more rows failed than `max_rejects`, the rest counts as failed too.

        Args:
            inputs: At least one row.
            failure: How the model failed on them.

        Raises:
            PredictionError: It fails on rows together that it takes one by one.
        """
        pieces = self._parted(inputs, 0, failure)
        return pa.concat_arrays(pieces), together(self._rejects)

    def _parted(self, rows: pa.RecordBatch, start: int, failure: Refusal) -> list[pa.StructArray]:
        """Predictions of rows, from `start` on in the batch, that fail as one piece."""
        if rows.num_rows == 1 or self._is_over():
            return [self._rejected(start, rows.num_rows, failure, _message(failure))]
        middle = rows.num_rows // 2
        halves = [(rows.slice(0, middle), start), (rows.slice(middle), start + middle)]
        answers = [self._tried(half) for half, _ in halves]
        n_failed = sum(isinstance(answer, REFUSALS) for answer in answers)
        if n_failed == 0:
            self._contradicted(failure)
        if n_failed == len(halves) and rows.num_rows >= _MIN_PROBED_ROWS:
            probe = self._failing_probe(rows)
            if probe is not None:
                message = (
                    f"{_message(probe)} (as on each of {N_PROBES} rows that were tried alone, of "
                    f"{rows.num_rows})"
                )
                return [self._rejected(start, rows.num_rows, probe, message)]
        pieces: list[pa.StructArray] = []
        for (half, first), answer in zip(halves, answers, strict=True):
            if isinstance(answer, REFUSALS):
                pieces += self._parted(half, first, answer)
            else:
                pieces.append(answer)
        return pieces

    def _tried(self, rows: pa.RecordBatch) -> pa.StructArray | Refusal:
        try:
            return self._ask(rows)
        except REFUSALS as exc:
            return exc.with_traceback(None)  # It would keep alive what the model was given.

    def _failing_probe(self, rows: pa.RecordBatch) -> Refusal | None:
        """How the model fails on a row, if it does on each of some that lie evenly among all."""
        failure: Refusal | None = None
        for i in np.linspace(0, rows.num_rows - 1, N_PROBES, dtype=np.int64):
            answer = self._tried(rows.slice(int(i), 1))
            if not isinstance(answer, REFUSALS):
                return None
            failure = failure or answer
        return failure

    def _is_over(self) -> bool:
        return self._max_rejects is not None and self._n_rejected > self._max_rejects

    def _rejected(self, start: int, n_rows: int, failure: Refusal, message: str) -> pa.StructArray:
        places = pa.array(np.arange(start, start + n_rows))
        column = _column(failure)
        code = RejectCode.RAISED if column is None else RejectCode.ANSWER
        self._rejects.append(reasons(places, code, column, message))
        self._n_rejected += n_rows
        return pa.nulls(n_rows, self._type)

    def _contradicted(self, failure: Refusal) -> None:
        self._n_contradictions += 1
        if self._n_contradictions > _MAX_CONTRADICTIONS:
            raise PredictionError(
                f"{failure}; it takes the same rows in smaller batches, so that this is no matter "
                "of single rows, which could be set aside; mend the model"
            )


def _message(failure: Refusal) -> str:
    """What the model raised, without the words around it that are the same for all rows."""
    cause = failure.__cause__
    if cause is None or isinstance(failure, InvalidRowsError) or _column(failure) is not None:
        return str(failure)
    return f"{type(cause).__name__}: {cause}"


def _column(failure: Refusal) -> str | None:
    return failure.column if isinstance(failure, PredictionError) else None
