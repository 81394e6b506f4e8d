from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from sparkscore.errors import EngineUnfitError
from sparkscore.files.predicate import Bounds, columns_in, evaluate, possible
from sparkscore.files.sql import parse_predicate
from sparkscore.scoring.facts import SourceColumn

COLUMNS = (
    SourceColumn("n", pa.int32(), "int"),
    SourceColumn("x", pa.float64(), "double"),
    SourceColumn("word", pa.string(), "string"),
    SourceColumn("at", pa.timestamp("us", "UTC"), "timestamp"),
)
ROWS = pa.record_batch(
    {
        "n": pa.array([1, 2, None], pa.int32()),
        "x": [0.5, float("nan"), None],
        "word": ["a", None, "b"],
        "at": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 3, pa.timestamp("us", "UTC")),
    }
)


def said(sql: str) -> list[bool | None]:
    """What the filter says of each row."""
    found: list[bool | None] = evaluate(parse_predicate(sql, COLUMNS), ROWS).to_pylist()
    return found


def outcomes(sql: str, **bounds: Bounds) -> set[bool | None]:
    return set(possible(parse_predicate(sql, COLUMNS), bounds))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("n = 1", [True, False, None]),
        ("NOT n = 1", [False, True, None]),
        ("n = 1 OR word = 'b'", [True, None, True]),
        ("n = 2 AND word = 'b'", [False, None, None]),
        ("n IS NULL", [False, False, True]),
        ("n NOT IN (1, 5)", [False, True, None]),
        ("x > 100", [False, True, None]),
        ("x <= 100", [True, False, None]),
        ("1 = 0 OR n = 1", [True, False, None]),
        ("n > -1 AND n < 99999999999", [True, True, None]),
    ],
)
def test_logic_has_three_values_and_nan_is_the_greatest(
    sql: str, expected: list[bool | None]
) -> None:
    assert said(sql) == expected


def test_and_binds_tighter_than_or_and_not_tighter_than_and() -> None:
    assert said("n = 1 OR n = 2 AND NOT word IS NULL") == [True, False, None]
    assert said("(n = 1 OR n = 2) AND word IS NOT NULL") == [True, False, None]


def test_columns_are_found_in_any_case_and_named_as_in_the_table() -> None:
    assert columns_in(parse_predicate("N = 1 AND `WORD` = 'a'", COLUMNS)) == {"n", "word"}


def test_time_without_a_zone_is_understood_in_utc_only() -> None:
    sql = "at = '2026-01-01 00:00:00'"
    assert said(sql) == [True, True, True]
    with pytest.raises(EngineUnfitError, match="at against"):
        parse_predicate(sql, COLUMNS, "Europe/Berlin")
    zoned = parse_predicate("at = '2026-01-01 01:00:00+01:00'", COLUMNS, "Europe/Berlin")
    assert evaluate(zoned, ROWS).to_pylist() == [True, True, True]


@pytest.mark.parametrize(
    ("sql", "bounds", "expected"),
    [
        ("n > 5", Bounds(0, 5, may_be_null=False), {False}),
        ("n > 5", Bounds(6, 9, may_be_null=False), {True}),
        ("n > 5", Bounds(0, 9, may_be_null=False), {True, False}),
        ("n > 5", Bounds(6, 9), {True, None}),
        ("n = 5", Bounds(5, 5, may_be_null=False), {True}),
        ("n != 5", Bounds(5, 5, may_be_null=False), {False}),
        ("n = 5", Bounds(None, 4, may_be_null=False), {False}),
        ("n = 5", Bounds(may_be_value=False), {None}),
        ("NOT n = 5", Bounds(may_be_value=False), {None}),
        ("n IS NULL", Bounds(0, 9, may_be_null=False), {False}),
        ("n BETWEEN 3 AND 4", Bounds(5, 9, may_be_null=False), {False}),
        ("n IN (1, 2)", Bounds(1, 1, may_be_null=False), {True}),
    ],
)
def test_bounds_decide_where_they_can(sql: str, bounds: Bounds, expected: set[bool | None]) -> None:
    assert outcomes(sql, n=bounds) == expected


def test_what_is_unknown_of_a_column_leaves_everything_possible() -> None:
    assert outcomes("n = 1 AND x > 0") == {True, False, None}


def test_deep_nesting_is_left_to_spark() -> None:
    with pytest.raises(EngineUnfitError, match="depth"):
        parse_predicate("(" * 1000 + "n = 1" + ")" * 1000, COLUMNS)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        pytest.param("word = '${spark.app.name}'", r"\$\{", id="a-variable-in-a-text"),
        pytest.param(f"x < 1{'0' * 38}", "1000", id="more-digits-than-a-decimal"),
        pytest.param("at > '2026-01-01 00:00:00+18:01'", "at against", id="no-zone-of-java"),
    ],
)
def test_what_spark_replaces_or_refuses_is_left_to_spark(sql: str, what: str) -> None:
    with pytest.raises(EngineUnfitError, match=what):
        parse_predicate(sql, COLUMNS)
