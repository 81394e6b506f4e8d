from __future__ import annotations

from dataclasses import replace

import pytest

from sparkscore.errors import BooksError
from sparkscore.fused.levels import UnknownLevels
from sparkscore.scoring.outcome import BatchReport, Commit, Outcome, OutcomeStatus
from sparkscore.scoring.rejects import ReasonCount

COMMIT = Commit(uri="/data/scores", version=4, run_id="r", n_rows=7, n_bytes=700)
OUTCOME = Outcome(
    status=OutcomeStatus.SUCCEEDED,
    commit=COMMIT,
    n_read=10,
    n_scored=7,
    n_rejected=2,
    n_skipped=1,
    seconds={"score_and_commit": 2.0},
    n_cores=2,
)
BATCH = BatchReport(
    worker="host:1",
    ended_ms=1,
    n_rows=5,
    n_rejected=1,
    n_bytes=50,
    convert_s=0.5,
    predict_s=1.0,
    load_s=0.25,
    n_loads=1,
    rss_bytes=100,
)


def test_balanced_books_pass() -> None:
    OUTCOME.check_books()


def test_speed_counts_no_rows_of_earlier_attempts() -> None:
    resumed = replace(OUTCOME, n_rows_resumed=5, n_chunks_resumed=2)
    assert resumed.as_metrics()["rows_per_second"] == 1.0
    assert resumed.as_metrics()["rows_resumed"] == 5


def test_books_of_another_attempts_commit_are_not_this_ones() -> None:
    Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=COMMIT).check_books()


def test_row_that_is_unaccounted_for_is_an_error_with_all_numbers() -> None:
    with pytest.raises(BooksError, match=r"11 rows were read, but 7 scored \+ 2 rejected \+ 0"):
        replace(OUTCOME, n_read=11).check_books()


def test_commit_of_another_number_of_rows_is_an_error() -> None:
    with pytest.raises(BooksError, match=r"version 4 .* says that 8 were written"):
        replace(OUTCOME, commit=replace(COMMIT, n_rows=8)).check_books()


def test_rows_without_a_prediction_are_written_where_they_are_kept() -> None:
    kept = replace(OUTCOME, n_rejected=0, n_nulled=2, commit=replace(COMMIT, n_rows=9))
    kept.check_books()
    inline = replace(OUTCOME, is_inline=True, commit=replace(COMMIT, n_rows=9))
    inline.check_books()
    for wrong in (replace(kept, commit=COMMIT), replace(inline, commit=COMMIT)):
        with pytest.raises(BooksError, match="says that 7 were written"):
            wrong.check_books()


def test_commit_of_another_number_of_rejected_rows_is_an_error() -> None:
    rejects = Commit(uri="/data/scores_rejects", version=0, run_id="r", n_rows=2)
    replace(OUTCOME, rejects=rejects).check_books()
    with pytest.raises(BooksError, match=r"2 rows were rejected, but .* says that 3"):
        replace(OUTCOME, rejects=replace(rejects, n_rows=3)).check_books()


def test_reasons_of_all_batches_are_counted_together() -> None:
    one = replace(BATCH, reasons=[ReasonCount("NULL_VALUE", "x", 1, "first")])
    # As JSON has them.
    two = replace(BATCH, reasons=[["NULL_VALUE", "x", 2, "later"], ["MODEL_RAISED", None, 5, "no"]])  # type: ignore[list-item]
    assert replace(OUTCOME, batches=[one, two]).reasons == [
        ReasonCount("MODEL_RAISED", None, 5, "no"),
        ReasonCount("NULL_VALUE", "x", 3, "first"),
    ]


def test_log_that_does_not_say_how_many_rows_it_wrote_is_no_error() -> None:
    replace(OUTCOME, commit=replace(COMMIT, n_rows=None)).check_books()


def test_metrics_name_rows_seconds_and_speed() -> None:
    assert OUTCOME.as_metrics() == {
        "rows_read": 10,
        "rows_scored": 7,
        "rows_rejected": 2,
        "rows_nulled": 0,
        "rows_skipped": 1,
        "rows_resumed": 0,
        "chunks_resumed": 0,
        "seconds_score_and_commit": 2.0,
        "bytes_written": 700,
        "rows_per_second": 3.5,
        "rows_per_second_per_core": 1.75,
    }


def test_run_that_wrote_nothing_has_no_speed() -> None:
    skipped = Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=replace(COMMIT, n_bytes=None))
    assert set(skipped.as_metrics().values()) == {0}


def test_what_no_model_knows_is_added_up_by_column() -> None:
    town, plan = UnknownLevels(2, "'Ulm'"), UnknownLevels(1, "7")
    batches = (
        replace(BATCH, n_not_finite=2, unknown_levels={"town": town}),
        replace(BATCH, n_not_finite=1, unknown_levels={"plan": plan, "town": town}),
    )
    outcome = replace(OUTCOME, batches=batches)
    assert outcome.unknown_levels == {"town": (4, "'Ulm'"), "plan": (1, "7")}
    assert outcome.as_metrics()["values_unknown"] == 5
    assert outcome.as_metrics()["predictions_not_finite"] == 3


def test_loads_are_counted_by_worker_and_by_model() -> None:
    batches = (
        BATCH,
        replace(BATCH, load_s=0.0),
        replace(BATCH, worker="host:2", rss_bytes=200),
        replace(BATCH, worker="host:2", n_loads=2, n_splits=3),
    )
    metrics = replace(OUTCOME, batches=batches).as_metrics()
    assert metrics["batches"] == 4
    assert metrics["predictions_not_finite"] == metrics["values_unknown"] == 0
    assert metrics["batches_split"] == 3
    assert metrics["python_workers"] == 2
    assert metrics["model_loads"] == 3
    assert metrics["model_loads_max_per_worker"] == 2
    assert metrics["worker_memory_peak_bytes"] == 200
    assert metrics["bytes_to_python"] == 200
    assert metrics["seconds_in_workers_predict"] == 4.0
