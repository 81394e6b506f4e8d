from __future__ import annotations

import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.predicate import PinnedValue, pinned_values


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("d = '2013-10-01'", PinnedValue("d", "2013-10-01", "string")),
        (" d='x' ", PinnedValue("d", "x", "string")),
        ("d = ''", PinnedValue("d", "", "string")),
        ("d = 'it''s'", PinnedValue("d", "it's", "string")),
        ("`a b` = 'x'", PinnedValue("a b", "x", "string")),
        ("d = DATE '2013-10-01'", PinnedValue("d", "2013-10-01", "date")),
        ("d = date'2013-10-01'", PinnedValue("d", "2013-10-01", "date")),
        ("n = 5", PinnedValue("n", "5", "int")),
        ("n = -2147483648", PinnedValue("n", "-2147483648", "int")),
        ("n = 2147483648", PinnedValue("n", "2147483648", "bigint")),
        ("Größe = 1", PinnedValue("Größe", "1", "int")),
    ],
)
def test_equality_pins_a_column(predicate: str, expected: PinnedValue) -> None:
    assert pinned_values(predicate) == (expected,)


def test_each_part_of_a_conjunction_pins() -> None:
    assert pinned_values("a = 1 AND b = 'x' and c = DATE '2013-10-01'") == (
        PinnedValue("a", "1", "int"),
        PinnedValue("b", "x", "string"),
        PinnedValue("c", "2013-10-01", "date"),
    )


@pytest.mark.parametrize(
    "predicate",
    [
        "",
        "a > 1",
        "a = 1 OR b = 2",
        "a = b",
        "a = 1.5",
        "a = 1 AND b > 2",
        "a = 1 AND",
        "a = 'x' || 'y'",
        "(a = 1)",
        "a = 'x\\'",
        "a IN (1)",
        "a = 1 ANDb = 2",
        "a.b = 1",
        "a == 1",
    ],
)
def test_any_other_predicate_pins_nothing(predicate: str) -> None:
    assert pinned_values(predicate) == ()


@pytest.mark.parametrize("second", ["a", "A", "`a`"])
def test_column_that_is_pinned_twice_is_refused(second: str) -> None:
    with pytest.raises(ConfigError, match="sets one column twice"):
        pinned_values(f"a = 1 AND {second} = 2")
