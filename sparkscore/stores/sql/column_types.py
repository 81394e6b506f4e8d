"""Column types that keep what was written, and compare it alike, in every database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, String, Text
from sqlalchemy.types import TypeEngine, UserDefinedType


class _PlainValue(UserDefinedType[float]):
    """SQLite's column without an affinity: one of REAL keeps -0.0 as 0."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "BLOB"


def exact_double() -> TypeEngine[float]:
    """A 64-bit float with its sign; NaN is none of them in SQLite, which makes it NULL."""
    return Double().with_variant(_PlainValue(), "sqlite")


def text(max_chars: int) -> TypeEngine[str]:
    """Text that is compared and ordered by its code points, as SQLite and Python do it."""
    return String(max_chars).with_variant(String(max_chars, collation="C"), "postgresql")


def long_text() -> TypeEngine[str]:
    """`text` of any length."""
    return Text().with_variant(Text(collation="C"), "postgresql")


def wide_id() -> TypeEngine[int]:
    """A whole number of 64 bits that a database may count up by itself; MLflow's ids need them."""
    return BigInteger().with_variant(Integer(), "sqlite")
