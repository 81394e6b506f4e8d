"""What becomes of rows of the source that share a key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparkscore.scoring.plan import WriteMode


class Duplicates(StrEnum):
    """The rule for rows that share a key."""

    KEEP = "keep"
    FAIL = "fail"
    FIRST = "first"
    LAST = "last"

    @property
    def chooses(self) -> bool:
        """Whether one row of a key is scored, and the others are skipped."""
        return self in (Duplicates.FIRST, Duplicates.LAST)


@dataclass(frozen=True)
class KeyRule:
    """Which row of each key is read: the first or the last one by a column's order."""

    rule: Duplicates
    keys: tuple[str, ...]
    order_by: str


def key_rule(
    rule: Duplicates | None, keys: Sequence[str], order_by: str | None, mode: WriteMode
) -> KeyRule | None:
    """The rule by which one row of each key is read; None where all are.

    Raises:
        ConfigError: Rule, keys, order and mode do not go together.
    """
    if rule is Duplicates.KEEP and mode == "merge":
        raise ConfigError(
            "mode 'merge' keeps one row a key, so --duplicates keep cannot be; take fail, or first "
            "or last with --order-by"
        )
    if rule not in (None, Duplicates.KEEP) and not keys:
        raise ConfigError(f"--duplicates {rule} needs key columns (--key)")
    if rule is None or not rule.chooses:
        if order_by is not None:
            raise ConfigError(
                f"--order-by {order_by} goes with --duplicates first or last: it says which row of "
                "a key that is"
            )
        return None
    if order_by is None:
        raise ConfigError(
            f"--duplicates {rule} needs the column that orders the rows of a key (--order-by), "
            "such as the time at which they came"
        )
    return KeyRule(rule, tuple(keys), order_by)
