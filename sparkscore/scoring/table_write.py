"""What a sink is told of a write: which columns, how they enter a table, and whose they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from sparkscore.errors import ConfigError, shown
from sparkscore.package.params import plain_params
from sparkscore.scoring.checks import (
    Profile,
    check_failed_error,
    failed_checks,
    last_profile,
    profile_metadata,
)
from sparkscore.scoring.plan import (
    RECORD_COLUMNS,
    RunIdentity,
    ScoringPlan,
    WriteMode,
    score_schema,
)
from sparkscore.scoring.rejects import REASON_COLUMNS

if TYPE_CHECKING:
    from sparkscore.scoring.target import HistoryEntry

REJECT_PARTITIONS = ("app_id", "run_id")
"""So that each file of rejected rows says of which run and which attempt at it they are."""

_REJECT_FACTS = pa.schema(
    [
        *REASON_COLUMNS,
        pa.field("reject_inputs", pa.string()),
        pa.field("reject_job", pa.string()),
        *(f for f in RECORD_COLUMNS if f.name.startswith("model_")),
        pa.field("rejected_at", pa.timestamp("us", tz="UTC")),
        pa.field("app_id", pa.string()),
        pa.field("run_id", pa.string()),
    ]
)
"""What a rejected row says, after its keys."""


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
        unless: A table that has this commit takes the write no more; None: any does.
    """

    schema: pa.Schema
    identity: RunIdentity
    mode: WriteMode
    replace_where: str | None
    partition_by: tuple[str, ...]
    keys: tuple[str, ...]
    about: Mapping[str, object]
    unless: RunIdentity | None = None


def score_write(plan: ScoringPlan) -> TableWrite:
    """How a plan's scores enter their table."""
    request = plan.request
    appends = plan.is_replay and request.mode is WriteMode.REPLACE
    return TableWrite(
        schema=score_schema(plan),
        identity=plan.identity,
        mode=WriteMode.APPEND if appends else request.mode,
        replace_where=None if appends else request.replace_where,
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


def reject_schema(plan: ScoringPlan) -> pa.Schema:
    """The columns of the table of rejected rows: keys, which may be null there, and why.

    Raises:
        ConfigError: A key is called as one of its own columns.
    """
    keys = [column for column in plan.carried if column.name in plan.request.keys]
    own = {name.casefold() for name in _REJECT_FACTS.names}
    taken = [column.name for column in keys if column.name.casefold() in own]
    if taken:
        raise ConfigError(
            f"key column {shown(taken[0])} is called as a column of the rejects table; rename it "
            "in a view, or keep rejected rows in the score table (--rejects inline)"
        )
    return pa.schema([*(pa.field(key.name, key.type) for key in keys), *_REJECT_FACTS])


def reject_write(plan: ScoringPlan, run_id: str) -> TableWrite:
    """How the rejected rows of one attempt at a plan enter their table: they are appended.

    Each attempt has a commit of its own. Which attempt's rows count is said by the score table,
    whose commit comes after; the others are swept away then, and no attempt commits any more.

    Raises:
        ConfigError: See `reject_schema`.
    """
    write = _of_rejects(plan, f"of {run_id}", WriteMode.APPEND, None)
    return replace(write, unless=_closing(plan.identity))


def reject_sweep(plan: ScoringPlan, run_id: str) -> TableWrite:
    """A write of no rows that removes the rejected rows of all attempts but one, once for all.

    Args:
        plan: The run.
        run_id: The attempt whose scores were committed.
    """
    others = f"{rejects_of(plan)} AND run_id <> '{run_id}'"
    write = _of_rejects(plan, "", WriteMode.REPLACE, others)
    return replace(write, identity=_closing(plan.identity))


def rejects_of(plan: ScoringPlan) -> str:
    """Which rows of the rejects table are those of a run, of whatever attempt."""
    return f"app_id = '{reject_run(plan.identity)}'"


def reject_run(identity: RunIdentity) -> str:
    """What tells a run's rejected rows from those of others; each batch of a stream is a run."""
    version = identity.txn_version
    return identity.app_id if version == 1 else f"{identity.app_id}-{version}"


def recipe(plan: ScoringPlan) -> str:
    """The job as JSON, as far as it is needed to score its rejected rows again."""
    request, source = plan.request, plan.source
    names = [*(b.source.name for b in plan.bindings if b.source), *(c.name for c in plan.carried)]
    columns = [source.column(name) for name in dict.fromkeys(names)]
    panel = plan.panel
    in_table = None if panel is None or panel.is_one else panel
    return json.dumps(
        {
            "job": request.job,
            "target": request.target,
            "run_key": plan.identity.run_key,
            "app_id": plan.identity.app_id,
            "txn_version": plan.identity.txn_version,
            "model": plan.model.uri if panel is None or panel.has_one_head else None,
            "models_as": None if in_table is None else in_table.spec.models_as.value,
            "challengers": {one.label: one.model.uri for one in in_table.challengers}
            if in_table
            else {},
            "predict": plan.model.predict,
            "params": plain_params(plan.params),
            "on_nan": request.on_nan.value,
            "mode": request.mode.value,
            "replace_where": request.replace_where,
            "keys": request.keys,
            "keep": request.keep,
            "columns": dict(request.columns),
            "inputs": {column.name: column.type_name for column in columns if column},
        }
    )


def _of_rejects(
    plan: ScoringPlan, of: str, mode: WriteMode, replace_where: str | None
) -> TableWrite:
    identity = plan.identity
    return TableWrite(
        schema=reject_schema(plan),
        identity=_derived(identity, of),
        mode=mode,
        replace_where=replace_where,
        partition_by=REJECT_PARTITIONS,
        keys=(),
        about=origin_facts(plan) | {"rejects_of": identity.app_id},
    )


def _closing(identity: RunIdentity) -> RunIdentity:
    return _derived(identity, "closed")


def _derived(identity: RunIdentity, of: str) -> RunIdentity:
    """The identity of one of the commits that a run makes to its rejects table."""
    name = json.dumps([reject_run(identity), "rejects", of])
    app_id = f"sparkscore-{hashlib.sha256(name.encode()).hexdigest()[:40]}"
    return replace(identity, app_id=app_id, txn_version=1)


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
