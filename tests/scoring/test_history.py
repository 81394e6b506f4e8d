"""What a row is told of the rows of its key before it."""

from __future__ import annotations

import math

import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.history import History, HistoryColumn, HistoryRule, Value

SECOND = 1_000_000


def told(
    text: str, values: list[Value], every_s: int = 10, forget_after_s: int = 60
) -> list[Value]:
    """What rows of one key are told, the history going through text in between."""
    rule = HistoryRule((HistoryColumn.parse(text, "m"),), forget_after_s)
    history, found = History.empty(), []
    for i, value in enumerate(values):
        history = History.from_json(history.to_json())
        found += rule.told(history, i * every_s * SECOND, {"x": value})
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lag(x, 1)", [None, 1.0, 2.0, None, 4.0]),
        ("lag(x, 3)", [None, None, None, 1.0, 2.0]),
        ("mean(x, 2)", [1.0, 1.5, 2.0, 4.0, 6.0]),
        ("sum(x, 3)", [1.0, 3.0, 3.0, 6.0, 12.0]),
        ("min(x, 2)", [1.0, 1.0, 2.0, 4.0, 4.0]),
        ("max( x , 9 )", [1.0, 2.0, 2.0, 4.0, 8.0]),
        ("std(x, 2)", [None, math.sqrt(0.5), None, None, math.sqrt(8)]),
        ("count(x, 3)", [1, 2, 2, 2, 2]),
        ("rows()", [1, 2, 3, 4, 5]),
        ("seconds_since_last()", [None, 10.0, 10.0, 10.0, 10.0]),
    ],
)
def test_rows_are_told_of_those_before(text: str, expected: list[Value]) -> None:
    assert told(text, [1.0, 2.0, None, 4.0, 8.0]) == expected


def test_rows_are_told_when_something_last_was() -> None:
    faults: list[Value] = [False, True, False, None, True, False]
    assert told("rows_since(x)", faults) == [None, 0, 1, 2, 0, 1]
    assert told("seconds_since(x)", faults) == [None, 0.0, 10.0, 20.0, 0.0, 10.0]


def test_values_that_are_not_numbers_are_no_values() -> None:
    assert told("mean(x, 3)", [math.nan, 2.0, 4.0]) == [None, 2.0, 3.0]
    assert told("max(x, 3)", ["a", None, "b"]) == ["a", "a", "b"]


def test_sums_are_rounded_once_and_know_infinity() -> None:
    assert told("sum(x, 11)", [0.1] * 10)[-1] == 1.0
    assert told("sum(x, 2)", [math.inf, 1.0]) == [math.inf, math.inf]
    assert told("mean(x, 2)", [1e308, 1e308])[-1] == math.inf
    assert math.isnan(float(told("std(x, 2)", [math.inf, -math.inf])[-1] or 0))


def test_a_history_begins_anew_after_a_longer_pause() -> None:
    assert told("rows()", [1.0] * 3, every_s=60) == [1, 2, 3]
    assert told("rows()", [1.0] * 3, every_s=61) == [1, 1, 1]
    assert told("lag(x, 1)", [1.0, 2.0], every_s=61) == [None, None]
    assert told("seconds_since(x)", [True, False], every_s=61) == [0.0, None]


def test_row_that_is_older_does_not_turn_time_back() -> None:
    rule = HistoryRule((HistoryColumn.parse("seconds_since_last()", "m"),), 60)
    history = History.empty()
    times = (100, 90, 110)
    assert [rule.told(history, t * SECOND, {})[0] for t in times] == [None, -10.0, 10.0]


def test_a_history_stays_small() -> None:
    rule = HistoryRule((HistoryColumn.parse("mean(x, 5)", "m"),), 10**6)
    history = History.empty()
    for i in range(1000):
        rule.told(history, i, {"x": 0.125})
    assert len(history.to_json()) < 100


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lga(x, 1)", "did you mean 'lag'"),
        ("lag(x)", r"write lag\(COLUMN, ROWS\)"),
        ("rows_since(x, 2)", r"write rows_since\(COLUMN\)"),
        ("rows(x)", r"write rows\(\)"),
        ("mean(x, 0)", "1 to 1000 rows"),
        ("mean(x, 1001)", "1 to 1000 rows"),
        ("x + 1", "write one of"),
        ("", "write one of"),
    ],
)
def test_what_nobody_knows_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        HistoryColumn.parse(text, "features.state.columns.m")
