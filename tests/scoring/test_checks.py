from __future__ import annotations

import json

import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.checks import (
    Checks,
    Profile,
    check_failed_error,
    failed_checks,
    last_profile,
    profile_metadata,
)
from sparkscore.scoring.plan import RunIdentity
from sparkscore.scoring.sketch import ColumnSketch
from sparkscore.scoring.target import HistoryEntry


def profile(values: list[float | None]) -> Profile:
    sketch = ColumnSketch()
    sketch.add(pa.array(values, pa.float64()))
    return Profile(len(values), {"score": sketch})


BEFORE = profile([0.1, 0.2, 0.3, 0.4])
NOW = profile([0.1, None, 0.3, 0.9])


def failed(checks: Checks, now: Profile = NOW, before: Profile | None = BEFORE) -> list[str]:
    return failed_checks(checks, now, before)


@pytest.mark.parametrize(
    ("passing", "failing", "said"),
    [
        (Checks(min_rows=4), Checks(min_rows=5), "min_rows: 4 rows"),
        (Checks(max_rows=4), Checks(max_rows=3), "max_rows: 4 rows"),
        (
            Checks(max_null_share={"score": 0.25}),
            Checks(max_null_share={"score": 0.2}),
            "max_null_share.score: 1 of 4 rows are null (0.25), the bound is 0.2",
        ),
        (
            Checks(min_value={"score": 0.1}),
            Checks(min_value={"score": 0.11}),
            "min_value.score: the least value is 0.1",
        ),
        (
            Checks(max_value={"score": 0.9}),
            Checks(max_value={"score": 0.89}),
            "max_value.score: the greatest value is 0.9",
        ),
        (
            Checks(max_drift={"score": 9.0}),
            Checks(max_drift={"score": 0.01}),
            "max_drift.score: 0.3679 against the last run, the bound is 0.01",
        ),
    ],
)
def test_each_bound_holds_what_is_outside(passing: Checks, failing: Checks, said: str) -> None:
    assert failed(passing) == []
    (line,) = failed(failing)
    assert line.startswith(said)


def test_all_failed_checks_are_named() -> None:
    checks = Checks(min_rows=5, max_null_share={"score": 0.0}, max_value={"score": 0.5})
    assert [line.split(":")[0] for line in failed(checks)] == [
        "min_rows",
        "max_null_share.score",
        "max_value.score",
    ]


def test_rows_change_by_share_of_the_last_run_up_and_down() -> None:
    checks = Checks(max_row_change=0.5)
    for n_rows, n_failed in ((6, 0), (7, 1), (2, 0), (1, 1)):
        assert len(failed(checks, profile([0.5] * n_rows))) == n_failed
    assert failed(checks, profile([0.5] * 99), None) == []
    assert len(failed(checks, profile([0.5]), profile([]))) == 1


def test_nan_is_in_no_range_and_no_row_fails_no_range() -> None:
    checks = Checks(min_value={"score": 0.0})
    assert "1 values are NaN" in failed(checks, profile([0.5, float("nan")]))[0]
    assert failed(checks, Profile(0)) == []


def test_a_first_run_has_nothing_to_drift_from() -> None:
    assert failed(Checks(max_drift={"score": 0.0}), NOW, None) == []
    assert failed(Checks(max_drift={"score": 0.0}), NOW, Profile(4)) == []


def test_the_last_profile_is_of_the_same_job_and_of_another_run() -> None:
    def commit(version: int, **facts: object) -> HistoryEntry:
        return HistoryEntry(version, "WRITE", json.dumps({"sparkscore": 1, **facts}), {})

    told = profile_metadata(BEFORE)
    history = [
        commit(4, job="nightly", app_id="me", **profile_metadata(NOW)),
        commit(3, job="nightly", app_id="a"),
        commit(2, job="weekly", app_id="b", **profile_metadata(NOW)),
        commit(1, job="nightly", app_id="c", **told),
        HistoryEntry(0, "WRITE", "by hand", {}),
    ]
    identity = RunIdentity("me", "key", {})
    assert last_profile(history, "nightly", identity) == BEFORE
    assert last_profile(history[:3], "nightly", identity) is None


def test_columns_of_checks_are_answers_of_a_fitting_type() -> None:
    answers = pa.schema(
        [("score", pa.float64()), ("label", pa.string()), ("all", pa.list_(pa.float32()))]
    )
    Checks(max_drift={"score": 1, "label": 1, "all": 1}, max_null_share={"label": 0}).check_columns(
        answers
    )
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        Checks(max_null_share={"scor": 0}).check_columns(answers)
    with pytest.raises(ConfigError, match="compares numbers"):
        Checks(min_value={"label": 0}).check_columns(answers)


def test_the_error_names_all_and_the_ways_out() -> None:
    error = check_failed_error(failed(Checks(min_rows=5, max_rows=3)), "Look at them")
    assert (error.code, error.exit_code) == ("CHECK_FAILED", 3)
    first, *lines, last = str(error).splitlines()
    assert "fail 2 of" in first
    assert [line.split(":")[0] for line in lines] == ["  min_rows", "  max_rows"]
    assert last == "Look at them"
