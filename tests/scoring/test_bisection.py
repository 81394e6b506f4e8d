from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sparkscore.errors import InvalidRowsError, PredictionError, RejectBudgetError
from sparkscore.scoring.batch import BatchTask, ScoredBatch, joined, score_batch
from sparkscore.scoring.bisection import N_PROBES
from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.facts import SourceColumn
from sparkscore.scoring.rejects import InvalidRows, NanAnswers

P = pa.schema([("p", pa.float64())])
N_ROWS = 10_000


class Poisoned:
    """Answers twice x, and fails on batches that hold a row of `poison`."""

    def __init__(self, poison: Sequence[int], how: Callable[[], object] | None = None) -> None:
        self.poison = pa.array(poison, pa.int64())
        self.how = how
        self.n_rows: list[int] = []

    def predict(self, batch: pa.RecordBatch) -> object:
        self.n_rows.append(batch.num_rows)
        x = batch["x"]
        if pc.is_in(x, value_set=self.poison).true_count:
            if self.how is None:
                raise ZeroDivisionError(f"poison in {batch.num_rows}")
            return self.how()
        return x.to_numpy() * 2.0


def rows_of(n_rows: int) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(range(n_rows), pa.int64())})


def asked(
    *,
    on_invalid: InvalidRows = InvalidRows.QUARANTINE,
    needs_value: bool = False,
    nan: NanAnswers = NanAnswers.KEEP,
    max_rejects: int | None = None,
    predictions: pa.Schema = P,
) -> BatchTask:
    column = SourceColumn("x", pa.int64(), "bigint")
    binding = Binding("x", column, pa.int64(), Cast.EXACT, needs_value)
    return BatchTask(
        "'m' version 1", (binding,), predictions, on_invalid, nan=nan, max_rejects=max_rejects
    )


def found(scored: ScoredBatch) -> list[tuple[int, str, str | None]]:
    """Place, code and column of each rejected row."""
    assert scored.rejects is not None
    columns = (scored.rejects[name].to_pylist() for name in scored.rejects.schema.names[:3])
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("policy", [InvalidRows.NULL, InvalidRows.QUARANTINE])
@pytest.mark.parametrize("poison", [[0], [7], [N_ROWS - 1], [3, 4, 5000], range(0, N_ROWS, 97)])
def test_rows_on_which_the_model_raises_are_found_and_all_others_scored(
    policy: InvalidRows, poison: Sequence[int]
) -> None:
    model = Poisoned(poison)
    scored = score_batch(model, rows_of(N_ROWS), asked(on_invalid=policy))
    assert found(scored) == [(row, "MODEL_RAISED", None) for row in poison]
    expected = np.arange(N_ROWS) * 2.0
    valid = scored.predictions.is_valid().to_numpy(zero_copy_only=False)
    assert np.flatnonzero(~valid).tolist() == list(poison)
    assert np.array_equal(scored.predictions.drop_null().field("p"), expected[valid])


def test_one_row_costs_few_calls_and_says_what_the_model_raised() -> None:
    model = Poisoned([1234])
    scored = score_batch(model, rows_of(N_ROWS), asked())
    assert len(model.n_rows) <= 1 + 2 * (log2(N_ROWS) + 1)
    assert sum(model.n_rows) <= 3 * N_ROWS + 100
    assert scored.rejects is not None
    assert scored.rejects["reject_message"].to_pylist() == ["ZeroDivisionError: poison in 1"]


def test_under_the_policy_to_fail_the_model_is_asked_once() -> None:
    model = Poisoned([3])
    with pytest.raises(PredictionError, match=f"on a batch of {N_ROWS} rows"):
        score_batch(model, rows_of(N_ROWS), asked(on_invalid=InvalidRows.FAIL))
    assert model.n_rows == [N_ROWS]


def test_model_that_fails_on_every_row_is_given_up_early() -> None:
    model = Poisoned(range(N_ROWS))
    scored = score_batch(model, rows_of(N_ROWS), asked())
    assert scored.n_rejected == N_ROWS
    assert len(model.n_rows) == 3 + N_PROBES
    assert scored.rejects is not None
    (message,) = set(scored.rejects["reject_message"].to_pylist())
    assert message.startswith("ZeroDivisionError: poison in 1 (as on each of ")
    assert message.endswith(f"{N_PROBES} rows that were tried alone, of {N_ROWS})")


def test_small_batch_on_which_all_rows_fail_is_tried_row_by_row() -> None:
    model = Poisoned(range(100))
    assert score_batch(model, rows_of(100), asked()).n_rejected == 100
    assert model.n_rows.count(1) == 100


def test_half_of_a_batch_that_fails_alone_is_given_up_alone() -> None:
    model = Poisoned(range(N_ROWS // 2))
    scored = score_batch(model, rows_of(N_ROWS), asked())
    assert scored.n_rejected == N_ROWS // 2
    assert len(model.n_rows) < 100


def test_model_that_takes_rows_only_alone_fails_the_batch() -> None:
    calls: list[int] = []

    class OneAtATime:
        def predict(self, batch: pa.RecordBatch) -> object:
            calls.append(batch.num_rows)
            return [1.0]

    with pytest.raises(PredictionError, match="no matter of single rows"):
        score_batch(OneAtATime(), rows_of(N_ROWS), asked())
    assert len(calls) < 100


def test_model_that_fails_once_and_not_again_gives_all_scores() -> None:
    class Flaky(Poisoned):
        def predict(self, batch: pa.RecordBatch) -> object:
            if not self.n_rows:
                self.poison = pa.array([5])
                try:
                    return super().predict(batch)
                finally:
                    self.poison = pa.array([], pa.int64())
            return super().predict(batch)

    scored = score_batch(Flaky([]), rows_of(N_ROWS), asked())
    assert scored.rejects is None
    assert scored.predictions.null_count == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda: ["no number"], "declares column 'p' as double"),
        (list, "answered 0 values in column 'p' for a batch of 1 rows"),
    ],
    ids=["type", "number"],
)
def test_rows_whose_answer_breaks_the_signature_are_found(
    how: Callable[[], object], message: str
) -> None:
    scored = score_batch(Poisoned([17], how), rows_of(100), asked())
    assert found(scored) == [(17, "ANSWER_INVALID", "p")]
    assert scored.rejects is not None
    assert message in scored.rejects["reject_message"][0].as_py()


def test_rows_of_all_kinds_are_found_in_one_batch() -> None:
    x = pa.array([0, None, 2, 3, None, 5, 6, 7], pa.int64())
    scored = score_batch(Poisoned([3, 7]), pa.record_batch({"x": x}), asked(needs_value=True))
    assert found(scored) == [
        (1, "NULL_VALUE", "x"),
        (3, "MODEL_RAISED", None),
        (4, "NULL_VALUE", "x"),
        (7, "MODEL_RAISED", None),
    ]
    assert scored.predictions.field("p").filter(scored.predictions.is_valid()).to_pylist() == [
        0.0,
        4.0,
        10.0,
        12.0,
    ]


def test_joined_batches_keep_the_places_of_their_rejected_rows() -> None:
    task = asked()
    batch = rows_of(100)
    model = Poisoned([3, 50, 99])
    pieces = [score_batch(model, batch.slice(start, 30), task) for start in range(0, 100, 30)]
    whole = joined(pieces)
    assert [row for row, *_ in found(whole)] == [3, 50, 99]
    assert whole.predictions.equals(score_batch(model, batch, task).predictions)


def test_more_rejected_rows_than_admitted_end_the_batch() -> None:
    model = Poisoned(range(0, N_ROWS, 2))
    with pytest.raises(RejectBudgetError, match=r"more than 5.*x MODEL_RAISED \('ZeroDiv"):
        score_batch(model, rows_of(N_ROWS), asked(max_rejects=5))
    assert len(model.n_rows) < 4 * log2(N_ROWS) * N_PROBES
    assert score_batch(Poisoned([1, 2, 3, 4, 5]), rows_of(9), asked(max_rejects=5)).n_rejected == 5


NANS = pa.schema([("p", pa.float64()), ("l", pa.list_(pa.float32()))])


class AnswersNan:
    """NaN in the second row's number, and in the list of the fourth."""

    def predict(self, batch: pa.RecordBatch) -> object:  # noqa: ARG002
        nan = float("nan")
        lists = pa.array([[1.0], [], None, [2.0, nan], [3.0]], pa.list_(pa.float32()))
        return pa.table({"p": [1.0, nan, None, float("inf"), 5.0], "l": lists})


def test_nan_is_an_answer_unless_it_is_told_not_to_be() -> None:
    kept = score_batch(AnswersNan(), rows_of(5), asked(predictions=NANS))
    assert kept.rejects is None
    assert kept.n_not_finite == 3
    task = asked(predictions=NANS, nan=NanAnswers.REJECT)
    scored = score_batch(AnswersNan(), rows_of(5), task)
    assert found(scored) == [(1, "ANSWER_NAN", "p"), (3, "ANSWER_NAN", "l")]
    assert scored.n_not_finite == 0
    assert scored.predictions.to_pylist() == [
        {"p": 1.0, "l": [1.0]},
        None,
        {"p": None, "l": None},
        None,
        {"p": 5.0, "l": [3.0]},
    ]


def test_nan_fails_the_batch_where_it_is_none_and_the_policy_is_to_fail() -> None:
    task = asked(predictions=NANS, nan=NanAnswers.REJECT, on_invalid=InvalidRows.FAIL)
    with pytest.raises(PredictionError, match=r"NaN in column 'p' for 1 of 5 rows.*--on-nan keep"):
        score_batch(AnswersNan(), rows_of(5), task)


def test_first_unfit_column_is_named_under_the_policy_to_fail() -> None:
    batch = pa.record_batch({"x": pa.array([1, None], pa.int64())})
    with pytest.raises(InvalidRowsError, match="column 'x' is null"):
        score_batch(Poisoned([]), batch, asked(needs_value=True, on_invalid=InvalidRows.FAIL))
