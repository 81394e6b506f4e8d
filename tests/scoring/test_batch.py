from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sparkscore.errors import (
    InvalidRowsError,
    ModelTooLargeError,
    PredictionError,
    SignatureMismatchError,
    UntrustedCodeError,
)
from sparkscore.scoring.batch import BatchLimits, BatchTask, bind_columns, score_batch, slices
from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.facts import SourceColumn
from sparkscore.scoring.rejects import InvalidRows, is_rejected

N_ROWS = 7
ODD_LONG = 9223372036854775707
P = pa.schema([("p", pa.float64())])


class Predict:
    """A predictor out of a function of the batch."""

    def __init__(self, function: Callable[[pa.RecordBatch], object]) -> None:
        self.predict = function


DOUBLED = Predict(lambda batch: batch["x"].to_numpy(zero_copy_only=False) * 2)
AS_TEXT = Predict(lambda batch: [str(value) for value in batch["n"].to_pylist()])


def binding(
    name: str,
    kind: pa.DataType,
    *,
    source: str | None = None,
    have: pa.DataType | None = None,
    cast: Cast | None = Cast.EXACT,
    needs_value: bool = False,
) -> Binding:
    """How `name` is filled; from the column of the same name if `source` is not given."""
    column = SourceColumn(source or name, have or kind, str(have or kind))
    return Binding(name, column, kind, cast, needs_value)


def task(
    *bindings: Binding, on_invalid: InvalidRows = InvalidRows.FAIL, predictions: pa.Schema = P
) -> BatchTask:
    return BatchTask("'m' version 1", bindings, predictions, on_invalid)


X = task(binding("x", pa.float64()))
ROWS = pa.record_batch({"x": np.arange(N_ROWS) / 3})


@pytest.mark.parametrize("n_rows", [0, 1, N_ROWS - 1, N_ROWS, N_ROWS + 1])
def test_slices_of_any_size_are_scored_like_the_whole(n_rows: int) -> None:
    rows = pa.record_batch({"x": np.arange(n_rows) / 3})
    whole = score_batch(DOUBLED, rows, X)
    pieces = [
        score_batch(DOUBLED, piece, X).predictions
        for piece in slices(rows, BatchLimits(max_rows=N_ROWS // 2))
    ]
    assert pa.concat_arrays(pieces).equals(whole.predictions)
    assert whole.predictions.field("p").to_pylist() == [i / 3 * 2 for i in range(n_rows)]


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (BatchLimits(), [7]),
        (BatchLimits(max_rows=7), [7]),
        (BatchLimits(max_rows=3), [3, 3, 1]),
        (BatchLimits(max_rows=1), [1] * 7),
        (BatchLimits(max_bytes=16), [2, 2, 2, 1]),
        (BatchLimits(max_bytes=1), [1] * 7),
        (BatchLimits(max_rows=3, max_bytes=16), [2, 2, 2, 1]),
    ],
)
def test_slices_keep_to_rows_and_bytes(limits: BatchLimits, sizes: list[int]) -> None:
    pieces = list(slices(ROWS, limits))
    assert [piece.num_rows for piece in pieces] == sizes
    assert pa.Table.from_batches(pieces).combine_chunks().to_batches()[0].equals(ROWS)


def test_batch_without_rows_is_one_slice() -> None:
    assert [piece.num_rows for piece in slices(ROWS.slice(0, 0), BatchLimits())] == [0]


def test_columns_reach_the_model_by_name_in_its_order_and_types() -> None:
    seen: list[pa.Schema] = []

    def predict(batch: pa.RecordBatch) -> object:
        seen.append(batch.schema)
        return np.zeros(batch.num_rows)

    rows = pa.record_batch({"B": ["a"], "extra": [1], "a": pa.array([1], pa.int32())})
    bindings = (
        binding("a", pa.int64(), have=pa.int32(), cast=Cast.WIDENED, needs_value=True),
        binding("b", pa.string(), source="B"),
        Binding("c", None, pa.float64(), Cast.EXACT, needs_value=False),
    )
    score_batch(Predict(predict), rows, task(*bindings))
    assert seen[0].names == ["a", "b", "c"]
    assert seen[0].types == [pa.int64(), pa.string(), pa.float64()]


def test_absent_optional_column_is_all_null() -> None:
    absent = Binding("n", None, pa.int64(), Cast.EXACT, needs_value=False)
    text = pa.schema([("p", pa.string())])
    scored = score_batch(AS_TEXT, ROWS, task(absent, predictions=text))
    assert scored.predictions.field("p").to_pylist() == ["None"] * N_ROWS


def test_long_beside_null_reaches_the_model_as_it_is() -> None:
    rows = pa.record_batch({"n": pa.array([ODD_LONG, None], pa.int64())})
    text = pa.schema([("p", pa.string())])
    scored = score_batch(AS_TEXT, rows, task(binding("n", pa.int64()), predictions=text))
    assert scored.predictions.field("p").to_pylist() == [str(ODD_LONG), "None"]


NULLS = pa.record_batch({"x": pa.array([None, 1, None, 2, 3, None], pa.int64())})
WHOLE = binding("x", pa.int64(), needs_value=True)


def test_invalid_row_fails_the_batch_and_says_how_many_there_are() -> None:
    with pytest.raises(InvalidRowsError) as caught:
        score_batch(DOUBLED, NULLS, task(WHOLE))
    text = str(caught.value)
    for part in (
        "'m' version 1",
        "column 'x' is null",
        "3 such rows in a batch of 6",
        "quarantine",
    ):
        assert part in text


def test_rejected_rows_are_null_at_their_places_and_never_reach_the_model() -> None:
    seen: list[int] = []

    def predict(batch: pa.RecordBatch) -> object:
        seen.extend(batch["x"].to_pylist())
        return batch["x"].cast(pa.float64())

    scored = score_batch(Predict(predict), NULLS, task(WHOLE, on_invalid=InvalidRows.QUARANTINE))
    assert seen == [1, 2, 3]
    assert scored.n_rejected == 3
    assert scored.predictions.is_valid().to_pylist() == [False, True, False, True, True, False]
    assert scored.predictions.to_pylist() == [None, {"p": 1.0}, None, {"p": 2.0}, {"p": 3.0}, None]


def test_row_that_two_columns_make_invalid_is_rejected_once() -> None:
    rows = pa.record_batch(
        {"x": pa.array([None, 1, 2], pa.int64()), "y": pa.array([None, None, 2], pa.int64())}
    )
    bindings = (WHOLE, binding("y", pa.int64(), needs_value=True))
    scored = score_batch(DOUBLED, rows, task(*bindings, on_invalid=InvalidRows.QUARANTINE))
    assert scored.n_rejected == 2
    assert scored.predictions.is_valid().to_pylist() == [False, False, True]


def test_batch_of_rejected_rows_alone_is_all_null() -> None:
    rows = NULLS.filter(pc.is_null(NULLS["x"]))
    scored = score_batch(DOUBLED, rows, task(WHOLE, on_invalid=InvalidRows.QUARANTINE))
    assert scored.n_rejected == rows.num_rows
    assert scored.predictions.null_count == rows.num_rows


@pytest.mark.parametrize("on_invalid", InvalidRows)
def test_valid_rows_are_scored_alike_under_both_policies(on_invalid: InvalidRows) -> None:
    rows = pa.record_batch({"x": pa.array([1, 2], pa.int64())})
    scored = score_batch(DOUBLED, rows, task(WHOLE, on_invalid=on_invalid))
    assert scored.n_rejected == 0
    assert scored.predictions.field("p").to_pylist() == [2.0, 4.0]


def test_long_that_is_no_double_is_rejected() -> None:
    rows = pa.record_batch({"x": pa.array([2**53, 2**53 + 1, None], pa.int64())})
    checked = binding("x", pa.float64(), have=pa.int64(), cast=Cast.CHECKED)
    scored = score_batch(DOUBLED, rows, task(checked, on_invalid=InvalidRows.QUARANTINE))
    assert scored.n_rejected == 1
    assert scored.predictions.is_valid().to_pylist() == [True, False, True]
    with pytest.raises(InvalidRowsError, match=f"is {2**53 + 1}, which no double equals"):
        score_batch(DOUBLED, rows, task(checked))


NO_TEXT = pa.Array.from_buffers(pa.string(), 3, pa.array([b"fine", b"a\xe9b", b"\xff"]).buffers())


@pytest.mark.parametrize(
    "column",
    [
        NO_TEXT,
        NO_TEXT.dictionary_encode(),
        pa.ListArray.from_arrays([0, 1, 2, 3], NO_TEXT),
        pa.StructArray.from_arrays([NO_TEXT], ["part"]),
    ],
    ids=lambda column: str(column.type),
)
def test_bytes_that_are_no_text_are_named_with_their_place(column: pa.Array) -> None:
    with pytest.raises(InvalidRowsError) as caught:
        score_batch(DOUBLED, pa.record_batch({"x": column}), task(binding("x", column.type)))
    for part in ("column 'x'", "byte 0xe9 at offset 1 of b'a\\xe9b'", "is its row 1", "of 3"):
        assert part in str(caught.value)
    seen: list[int] = []

    def predict(batch: pa.RecordBatch) -> object:
        seen.append(batch.num_rows)
        return np.ones(batch.num_rows)

    words = task(binding("x", column.type), on_invalid=InvalidRows.QUARANTINE)
    scored = score_batch(Predict(predict), pa.record_batch({"x": column}), words)
    assert seen == [1]
    assert scored.rejects is not None
    assert scored.rejects["row"].to_pylist() == [1, 2]
    assert set(scored.rejects["reject_code"].to_pylist()) == {"NOT_UTF8"}
    assert "byte 0xff at offset 0 of b'\\xff'" in scored.rejects["reject_message"][1].as_py()


@pytest.mark.parametrize("item", [pa.float64(), pa.int32(), pa.bool_(), pa.string()], ids=str)
@pytest.mark.parametrize("has_invalid", [False, True])
def test_lists_are_spread_over_columns_row_by_row(item: pa.DataType, has_invalid: bool) -> None:
    numbers = [[i % 2, (i + 1) % 3] for i in range(6)]
    rows = pa.array(numbers).cast(pa.list_(pa.int32())).cast(pa.list_(item)).to_pylist()
    lists = [None, rows[1], rows[2][:1], *rows[3:]] if has_invalid else rows
    row = pa.list_(pa.field("item", item, nullable=False), 2)
    spread = Binding("0", SourceColumn("l", None, ""), row, None, True, ("0", "1"))
    # Pieces of a batch, as a worker takes them.
    for batch in (
        pa.record_batch({"l": pa.array(lists, pa.list_(item))}).slice(1, 4),
        pa.record_batch({"l": pa.array(rows, row)}).slice(1, 4),
    ):
        inputs, invalid = bind_columns(batch, task(spread, on_invalid=InvalidRows.QUARANTINE))
        assert inputs.schema.names == ["0", "1"]
        assert inputs.schema.types == [item, item]
        valid = inputs
        if invalid is not None:
            valid = inputs.filter(pc.invert(is_rejected(invalid, inputs.num_rows)))
        given = [x for x in batch["l"].to_pylist() if x is not None and len(x) == 2]
        assert [list(r.values()) for r in valid.to_pylist()] == given


def test_null_prediction_of_a_valid_row_is_no_rejection() -> None:
    nothing = Predict(lambda batch: [None] * batch.num_rows)
    scored = score_batch(nothing, ROWS, X)
    assert scored.n_rejected == 0
    assert scored.predictions.null_count == 0
    assert scored.predictions.field("p").null_count == N_ROWS


def test_numbers_that_are_not_finite_are_counted_wherever_they_lie() -> None:
    odd = [float("nan"), float("inf"), -float("inf")]
    parts = pa.schema(
        [("p", pa.float64()), ("l", pa.list_(pa.float32())), ("o", pa.struct({"a": pa.float64()}))]
    )
    answer = pd.DataFrame(
        {
            "p": [1.0, odd[0], odd[1], None],
            "l": [[odd[2], 1.0], [], None, odd],
            "o": [{"a": odd[0]}, None, {"a": None}, {"a": 2.0}],
        }
    )
    scored = score_batch(
        Predict(lambda _: answer),
        ROWS.slice(0, 4),
        task(binding("x", pa.float64()), predictions=parts),
    )
    assert scored.n_not_finite == 8  # The missing p is NaN in a frame.


def test_column_of_unknown_type_is_cast_by_what_comes() -> None:
    unknown = Binding("x", SourceColumn("x", None, ""), pa.float64(), None, needs_value=False)
    rows = pa.record_batch({"x": pa.array([1, 2], pa.int32())})
    assert score_batch(DOUBLED, rows, task(unknown)).predictions.field("p").to_pylist() == [
        2.0,
        4.0,
    ]
    with pytest.raises(SignatureMismatchError, match="'x' is double, but a column of type string"):
        score_batch(DOUBLED, pa.record_batch({"x": ["a"]}), task(unknown))


def test_model_that_raises_is_named_with_its_error() -> None:
    def fail(_: pa.RecordBatch) -> object:
        raise ZeroDivisionError("no rows a day")

    with pytest.raises(
        PredictionError,
        match=r"'m' version 1 raised ZeroDivisionError on a batch of 7 rows: .*no r",
    ) as caught:
        score_batch(Predict(fail), ROWS, X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_model_that_would_end_the_worker_is_named() -> None:
    with pytest.raises(PredictionError, match="'m' version 1 raised SystemExit on a batch of 7"):
        score_batch(Predict(lambda _: sys.exit(3)), ROWS, X)


def test_error_of_ours_in_the_model_keeps_its_class() -> None:
    def fail(_: pa.RecordBatch) -> object:
        raise UntrustedCodeError("no")

    with pytest.raises(UntrustedCodeError):
        score_batch(Predict(fail), ROWS, X)


def test_model_that_answers_another_number_of_rows_is_refused() -> None:
    with pytest.raises(PredictionError, match="answered 1 values in column 'p' for a batch of 7"):
        score_batch(Predict(lambda _: [1.0]), ROWS, X)


class SmallMemory:
    """Answers twice x, but runs out of memory on more than `max_rows` rows at once."""

    def __init__(self, max_rows: int, error: Exception | None = None) -> None:
        self.max_rows = max_rows
        self.error = error or MemoryError("Unable to allocate 9.00 GiB")
        self.n_rows: list[int] = []

    def predict(self, batch: pa.RecordBatch) -> object:
        self.n_rows.append(batch.num_rows)
        if batch.num_rows > self.max_rows:
            raise self.error
        return DOUBLED.predict(batch)


@pytest.mark.parametrize(
    ("max_rows", "tries"),
    [(7, [7]), (6, [7, 3, 4]), (3, [7, 3, 4, 2, 2]), (1, [7, 3, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1])],
)
def test_batch_that_memory_runs_out_on_is_halved_until_it_fits(
    max_rows: int, tries: list[int]
) -> None:
    model = SmallMemory(max_rows)
    scored = score_batch(model, ROWS, X)
    assert model.n_rows == tries
    assert scored.n_splits == len(tries) - len([n for n in tries if n <= max_rows])
    assert scored.predictions.equals(score_batch(DOUBLED, ROWS, X).predictions)


def test_batch_says_how_large_it_may_be_for_memory_to_suffice() -> None:
    assert score_batch(SmallMemory(7), ROWS, X).max_bytes is None
    assert score_batch(SmallMemory(4), ROWS, X).max_bytes == 7 * 8 // 2
    assert score_batch(SmallMemory(2), ROWS, X).max_bytes == 3 * 8 // 2


def test_halves_keep_rejected_rows_at_their_places() -> None:
    asked = task(WHOLE, on_invalid=InvalidRows.QUARANTINE)
    scored = score_batch(SmallMemory(1), NULLS, asked)
    assert scored.n_splits > 0
    assert scored.n_rejected == 3
    assert scored.predictions.equals(score_batch(DOUBLED, NULLS, asked).predictions)


def caused_by(error: BaseException) -> Exception:
    """An error of a library's own, raised from another one."""
    own = RuntimeError("prediction failed")
    own.__cause__ = error
    return own


@pytest.mark.parametrize(
    "error",
    [
        pa.ArrowMemoryError("malloc of size 64 failed"),
        RuntimeError("std::bad_alloc"),
        caused_by(MemoryError()),
    ],
    ids=["arrow", "c++", "wrapped"],
)
def test_lack_of_memory_is_known_in_the_words_of_other_libraries(error: Exception) -> None:
    assert score_batch(SmallMemory(4, error), ROWS, X).n_splits == 1


def test_memory_that_converting_the_answer_takes_counts_too() -> None:
    class Answer(dict[str, list[float]]):
        def __getitem__(self, name: str) -> list[float]:
            values = super().__getitem__(name)
            if len(values) == N_ROWS:
                raise MemoryError
            return values

    model = Predict(lambda batch: Answer(p=[1.0] * batch.num_rows))
    scored = score_batch(model, ROWS, X)
    assert scored.n_splits == 1
    assert scored.predictions.field("p").to_pylist() == [1.0] * N_ROWS


def test_row_that_does_not_fit_is_an_error_with_model_and_rows() -> None:
    with pytest.raises(ModelTooLargeError) as caught:
        score_batch(SmallMemory(0), ROWS, X)
    text = str(caught.value)
    for part in ("'m' version 1", "a batch of 1 row of 8 bytes", "9.00 GiB", "more memory"):
        assert part in text


def test_other_errors_of_a_model_split_nothing() -> None:
    model = SmallMemory(3, ValueError("no"))
    with pytest.raises(PredictionError):
        score_batch(model, ROWS, X)
    assert model.n_rows == [N_ROWS]
