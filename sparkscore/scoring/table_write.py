"""What a sink is told of a write: which columns, how they enter a table, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from sparkscore.scoring.plan import RunIdentity, ScoringPlan, WriteMode, score_schema


@dataclass(frozen=True)
class TableWrite:
    """One commit to one table, as far as it is known before a row is there.

    Attributes:
        schema: The columns that are written, in order.
        identity: What finds the commit again in the table's history.
        mode: How the rows enter the table.
        replace_where: With mode replace: which rows give way.
        partition_by: Partition columns of a new table; empty: none are asked for.
        keys: Columns that are never null; what a merge matches rows by.
        about: What the commit's user metadata says beside the identity, as plain values.
    """

    schema: pa.Schema
    identity: RunIdentity
    mode: WriteMode
    replace_where: str | None
    partition_by: tuple[str, ...]
    keys: tuple[str, ...]
    about: Mapping[str, object]


def score_write(plan: ScoringPlan) -> TableWrite:
    """How a plan's scores enter their table."""
    request = plan.request
    return TableWrite(
        schema=score_schema(plan),
        identity=plan.identity,
        mode=request.mode,
        replace_where=request.replace_where,
        partition_by=request.partition_by,
        keys=plan.table_keys,
        about=origin_facts(plan),
    )


def origin_facts(plan: ScoringPlan) -> dict[str, object]:
    """Job and model, as the user metadata of a plan's commits name them."""
    model = plan.model
    facts: dict[str, object] = {
        "job": plan.request.job,
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
    }
    if plan.panel is not None:
        facts["panel"] = plan.panel.commit_facts()
    return facts
