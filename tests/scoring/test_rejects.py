from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from sparkscore.errors import ConfigError, RejectBudgetError
from sparkscore.scoring.rejects import (
    ReasonCount,
    RejectBudget,
    RejectCode,
    RejectCounts,
    added_reasons,
    check_budgets,
    counted,
    json_rows,
    moved,
    reasons,
    reasons_by_row,
    together,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("0", RejectBudget(0)),
        ("100", RejectBudget(100)),
        ("0.5%", RejectBudget(None, 0.005)),
        ("100, 0.5%", RejectBudget(100, 0.005)),
        ("100%", RejectBudget(None, 1.0)),
    ],
)
def test_a_budget_is_a_number_a_share_or_both(text: str, budget: RejectBudget) -> None:
    assert RejectBudget.parse(text, "max_rejects") == budget


@pytest.mark.parametrize("text", ["", "-1", "1e3", "101%", "%", "1.5", "1,", "many"])
def test_a_text_that_is_no_budget_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^max_rejects .* give such as 100, 0.5%"):
        RejectBudget.parse(text, "max_rejects")


@pytest.mark.parametrize(
    ("budget", "n_rejected", "n_read", "excess"),
    [
        (RejectBudget(), 10, 10, None),
        (RejectBudget(3), 3, 10, None),
        (RejectBudget(3), 4, 10, "more than 3"),
        (RejectBudget(None, 0.005), 5, 1000, None),
        (RejectBudget(None, 0.005), 6, 1000, "more than 0.5%"),
        (RejectBudget(None, 0.1), 2, 10, "more than 10%"),
        (RejectBudget(None, 0.0), 1, 10, "more than 0%"),
        (RejectBudget(None, 1.0), 10, 10, None),
        (RejectBudget(5, 0.1), 2, 10, "more than 10%"),
    ],
)
def test_a_budget_says_which_bound_is_passed(
    budget: RejectBudget, n_rejected: int, n_read: int, excess: str | None
) -> None:
    assert budget.excess(n_rejected, n_read) == excess


def test_a_partition_over_its_budget_is_named_with_the_reasons() -> None:
    why = [ReasonCount("NULL_VALUE", "x", 3, "is null"), ReasonCount("MODEL_RAISED", None, 1, "no")]
    found = RejectCounts(100, 4, why, {"a": (50, 1), "b": (50, 3)})
    check_budgets(found, RejectBudget(4), RejectBudget(3))
    with pytest.raises(RejectBudgetError) as caught:
        check_budgets(found, RejectBudget(4), RejectBudget(2))
    text = str(caught.value)
    for part in ("3 of 50 rows of partition b", "more than 2", "3 x NULL_VALUE in 'x' ('is null')"):
        assert part in text
    assert "--max-partition-rejects" in text


def test_values_come_back_from_json_as_they_were() -> None:
    at = dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)
    batch = pa.record_batch(
        {
            "n": pa.array([2**63 - 1, None], pa.int64()),
            "x": [5e-324, NAN],
            "y": [float("inf"), -float("inf")],
            "d": pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
            "at": pa.array([at, None], pa.timestamp("us", "UTC")),
            "raw": [b"\x00\xff", None],
            "m": pa.array([[("a", NAN)], None], pa.map_(pa.string(), pa.float64())),
            "s": [{"l": [1, None]}, None],
            "w": pa.array(["ü", None]).dictionary_encode(),
        }
    )
    first, second = map(json.loads, json_rows(batch))
    assert first == {
        "n": 2**63 - 1,
        "x": 5e-324,
        "y": "Infinity",
        "d": "1.50",
        "at": "0001-01-01T00:00:00.000001+00:00",
        "raw": "AP8=",
        "m": {"a": "NaN"},
        "s": {"l": [1, None]},
        "w": "ü",
    }
    assert second == dict.fromkeys(first) | {"x": "NaN", "y": "-Infinity"}


def test_text_that_is_none_is_shown_with_its_bytes() -> None:
    odd = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xff"]).buffers())
    assert json_rows(pa.record_batch({"w": odd})) == ['{"w": "a\\\\xff"}']


def test_rows_without_columns_are_rows_all_the_same() -> None:
    empty = pa.record_batch({"x": [1, 2]}).select([])
    assert json_rows(empty) == ["{}", "{}"]


def test_reasons_are_put_together_in_the_order_of_their_rows() -> None:
    one = reasons(pa.array([0, 2]), RejectCode.NULL, "x", "is null")
    two = reasons(pa.array([0]), RejectCode.RAISED, None, ["no"])
    found = together([one, None, moved(two, pa.array([1]))])
    assert found is not None
    assert found["row"].to_pylist() == [0, 1, 2]
    assert reasons_by_row(found, 4)[0].to_pylist() == [
        "NULL_VALUE",
        "MODEL_RAISED",
        "NULL_VALUE",
        None,
    ]
    counts = counted(found)
    assert {one.code: one[1:3] for one in counts} == {
        "NULL_VALUE": ("x", 2),
        "MODEL_RAISED": (None, 1),
    }
    assert added_reasons([counts, counts])[0].n_rows == 4
    assert together([None, one.slice(0, 0)]) is None
