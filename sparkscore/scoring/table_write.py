"""What a sink is told of a write: which columns, how they enter a table, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from sparkscore.scoring.checks import (
    Profile,
    check_failed_error,
    failed_checks,
    last_profile,
    profile_metadata,
)
from sparkscore.scoring.plan import RunIdentity, ScoringPlan, WriteMode, score_schema

if TYPE_CHECKING:
    from sparkscore.scoring.target import HistoryEntry


class HasHistory(Protocol):
    """A table that tells what was done to it."""

    def history(self) -> Iterator[HistoryEntry]:
        """Its commits, the newest first."""
        ...


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


def checked_write(
    plan: ScoringPlan, sink: HasHistory, profile: Profile, ways_out: str
) -> TableWrite:
    """How scores enter their table once they have passed the checks.

    The commit tells what the next run is compared with, and which failed checks were accepted.

    Args:
        plan: The run.
        sink: The table; its history is read where something is compared with the last run.
        profile: The scores as a whole.
        ways_out: What to do with scores that were held, for the error's message.

    Raises:
        CheckFailedError: They have not passed, and the job does not accept that.
    """
    write, request = score_write(plan), plan.request
    if not request.checks.are_there:
        return write
    before = None
    if request.checks.compares:
        before = last_profile(sink.history(), request.job, plan.identity)
    failed = failed_checks(request.checks, profile, before)
    if failed and not request.accept_checks:
        raise check_failed_error(failed, ways_out)
    about = {**write.about, **profile_metadata(profile)}
    if failed:
        about["accepted_checks"] = failed
    return replace(write, about=about)


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
