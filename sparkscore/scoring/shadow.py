"""A model in the shadow: it answers for the same rows, its scores are kept apart and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.scoring.sketch import is_number

if TYPE_CHECKING:
    from sparkscore.scoring.plan import ScoringPlan

SHADOW_LABEL = "shadow"


@dataclass(frozen=True)
class Shadow:
    """Where the shadow's scores of a run go.

    Attributes:
        plan: What it would be to score with the shadow alone: its table, columns and identity.
    """

    plan: ScoringPlan

    @property
    def uri(self) -> str:
        """The table."""
        return self.plan.request.target


@dataclass(frozen=True)
class Compared:
    """How the answers of two models differ; by the first column that both have.

    Attributes:
        n_rows: Rows that both have an answer to.
        n_different: Those of them whose answers are not equal.
        difference: Sum of the second's numbers less the first's; of other values 0.
        absolute: Sum of the sizes of these differences.
    """

    n_rows: int = 0
    n_different: int = 0
    difference: float = 0.0
    absolute: float = 0.0


def compared(first: pa.StructArray, second: pa.StructArray) -> Compared:
    """The answers of two models to the same rows, compared where both have one.

    Lists are not compared, nor are columns of two types that have no common one.
    """
    shared = [name for name in first.type.names if name in second.type.names]
    if not shared:
        return Compared()
    one, other = (
        struct.flatten()[struct.type.names.index(shared[0])] for struct in (first, second)
    )
    if is_number(one.type) and is_number(other.type):
        return _compared_numbers(one.cast(pa.float64()), other.cast(pa.float64()))
    if one.type != other.type or pa.types.is_nested(one.type):
        return Compared()
    differs = pc.not_equal(one, other)
    return Compared(len(differs) - differs.null_count, _count(differs))


def _compared_numbers(one: pa.Array, other: pa.Array) -> Compared:
    differs = pc.not_equal(one, other)
    difference = pc.subtract(other, one)
    difference = difference.filter(pc.fill_null(pc.is_finite(difference), False))
    return Compared(
        n_rows=len(differs) - differs.null_count,
        n_different=_count(differs),
        difference=pc.sum(difference, min_count=0).as_py(),
        absolute=pc.sum(pc.abs(difference), min_count=0).as_py(),
    )


def _count(differs: pa.Array) -> int:
    n: int = pc.sum(differs, min_count=0).as_py()
    return n
