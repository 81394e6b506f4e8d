from __future__ import annotations

import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.duplicates import Duplicates, KeyRule, key_rule
from sparkscore.scoring.plan import WriteMode


def test_a_row_is_chosen_by_keys_and_order() -> None:
    rule = key_rule(Duplicates.LAST, ["id"], "at", WriteMode.MERGE)
    assert rule == KeyRule(Duplicates.LAST, ("id",), "at")
    for other in (None, Duplicates.KEEP, Duplicates.FAIL):
        assert key_rule(other, ["id"], None, WriteMode.APPEND) is None


@pytest.mark.parametrize(
    ("rule", "keys", "order_by", "mode", "said"),
    [
        (Duplicates.KEEP, ["id"], None, WriteMode.MERGE, "keep cannot be"),
        (Duplicates.FAIL, [], None, WriteMode.APPEND, "--key"),
        (Duplicates.FIRST, [], "at", WriteMode.APPEND, "--key"),
        (Duplicates.FIRST, ["id"], None, WriteMode.APPEND, "--order-by"),
        (Duplicates.FAIL, ["id"], "at", WriteMode.APPEND, "first or last"),
        (None, ["id"], "at", WriteMode.APPEND, "first or last"),
    ],
)
def test_what_does_not_go_together_is_refused(
    rule: Duplicates | None, keys: list[str], order_by: str | None, mode: WriteMode, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        key_rule(rule, keys, order_by, mode)
