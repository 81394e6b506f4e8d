"""What is told of a batch job: its plan as values, its run in the tracking store, its result."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from sparkscore.errors import StoreUnavailableError
from sparkscore.job_result import JobResult
from sparkscore.names import RunId, parse_run_id
from sparkscore.package.params import plain_params, resolved_params
from sparkscore.provenance import environment
from sparkscore.records import Metric, Run, RunStatus
from sparkscore.scoring.incremental import nothing_new_text
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.rejects import reasons_text

if TYPE_CHECKING:
    from sparkscore.job_planning import PreparedJob
    from sparkscore.scoring.comparison import Binding
    from sparkscore.scoring.facts import SourceTable
    from sparkscore.scoring.plan import ScoringPlan
    from sparkscore.tracking import ActiveRun
    from sparkscore.workspace import Workspace

APP_ID_TAG = "sparkscore.app_id"
_OUTCOME_TAG = "sparkscore.outcome"
_RESUMED_TAG = "sparkscore.resumed_from"
_RUNTIME_TAG = "sparkscore.runtime"
_THREADS_TAG = "sparkscore.threads_per_task"
_MAX_SERIES_POINTS = 1000
"""Points of the per-batch series that are logged; a longer series is thinned evenly."""
_MAX_LEVELS_TOLD = 5


def plan_facts(prepared: PreparedJob) -> dict[str, object]:
    """A plan as plain values, for `score plan` and for the run's artifacts."""
    plan = prepared.plan
    return {
        "model": plan.model.as_facts(),
        "source": {
            "uri": plan.source.uri,
            "format": plan.source.format,
            "version": plan.source.version,
            "where": plan.source.where,
            "since": plan.source.since,
            "joined": plan.source.joined,
        },
        "features": None if plan.source.features is None else asdict(plan.source.features),
        "target": {"uri": prepared.sink.uri, "mode": plan.request.mode.value},
        "engine": {
            "name": prepared.engine.name,
            "reason": prepared.engine_reason,
            "crossing": prepared.crossing.columns,
            "writing": prepared.crossing.scores,
        },
        "environment": None if prepared.environment is None else prepared.environment.key,
        "run_key": plan.identity.run_key,
        "predict": plan.model.predict,
        "params": _resolved_params(plan),
        "panel": None if plan.panel is None else plan.panel.as_facts(),
        "columns": [
            {
                "model": name,
                "source": binding.source.name if binding.source else None,
                "type": str(binding.type),
                "cast": binding.cast.value if binding.cast else None,
            }
            for name, binding in _named_bindings(plan)
        ],
        "differences": [
            {"kind": item.kind.value, "column": item.column, "detail": item.detail}
            for item in plan.differences
        ],
        "score_columns": list(plan.score_columns),
    }


def _named_bindings(plan: ScoringPlan) -> list[tuple[str, Binding]]:
    """How each column of the model, or of each of several, is filled."""
    if plan.panel is None:
        return [(b.model_column, b) for b in plan.bindings if not b.guards]
    return [
        (f"{member.label}: {binding.model_column}", binding)
        for member in plan.panel.all_members
        for binding in member.bindings
    ]


def run_params(prepared: PreparedJob, workspace: Workspace) -> dict[str, str]:
    """What was asked for, as the params of the run."""
    plan = prepared.plan
    spark = workspace.settings.spark
    recorded = {
        "model_uri": plan.model.uri,
        "model_name": plan.model.name,
        "model_version": str(plan.model.version or ""),
        "model_digest": plan.model.digest,
        "source": plan.source.uri,
        "source_version": plan.source.version,
        "where": plan.source.where or "",
        "source_since": plan.source.since,
        "target": prepared.sink.uri,
        "mode": plan.request.mode.value,
        "replace_where": plan.request.replace_where or "",
        "run_key": plan.identity.run_key,
        "engine": prepared.engine.name,
        "spark_master": spark.remote or spark.master,
        "max_rows_per_batch": str(prepared.engine.limits.max_rows),
        "max_bytes_per_batch": str(prepared.engine.limits.max_bytes),
        "on_invalid": plan.request.on_invalid.value,
        "rejects": plan.request.rejects_uri or plan.request.rejects or "",
        "tree_runtime": prepared.engine.tree_runtime.value,
        "environment": "" if prepared.environment is None else prepared.environment.key,
    }
    if plan.source.features is not None:
        recorded["features"] = plan.source.features.digest
        recorded["joined"] = plan.source.joined
    if plan.panel is not None:
        recorded["panel"] = json.dumps(plan.panel.commit_facts())
        recorded["models_as"] = plan.panel.spec.models_as.value
    if plan.model.predict is not None:
        recorded["predict"] = plan.model.predict
    params = _resolved_params(plan)
    if params:
        recorded["params"] = json.dumps(params)
    return recorded


def record_outcome(run: ActiveRun, prepared: PreparedJob, outcome: Outcome) -> None:
    """Metrics, tags and artifacts of a run that has committed."""
    metrics = outcome.as_metrics() | {
        f"seconds_{phase}": value for phase, value in prepared.seconds.items()
    }
    models = {label: counts.as_metrics() for label, counts in outcome.models.items()}
    for label, of_model in models.items():
        metrics |= {f"models/{label}/{name}": value for name, value in of_model.items()}
    run.log_metrics(metrics)
    run.log_points(_series(outcome))
    run.set_tags(
        {
            _OUTCOME_TAG: outcome.status.value,
            "sparkscore.target_version": str(outcome.commit.version),
            _RUNTIME_TAG: ", ".join(sorted({batch.runtime for batch in outcome.batches})),
            _THREADS_TAG: ", ".join(map(str, sorted({b.n_threads for b in outcome.batches}))),
        }
    )
    if outcome.resumed_from:
        run.set_tags({_RESUMED_TAG: ", ".join(outcome.resumed_from)})
    facts = {
        "status": outcome.status.value,
        "commit": {"uri": outcome.commit.uri, "version": outcome.commit.version},
        "metrics": metrics,
        "unknown_levels": _level_facts(outcome),
        "models": _model_facts(outcome),
    }
    if outcome.reasons:
        run.log_json(_reject_facts(prepared, outcome), "rejects.json")
    run.log_json(plan_facts(prepared), "plan.json")
    run.log_json(facts, "outcome.json")
    run.log_json(environment(), "environment.json")


def _series(outcome: Outcome) -> list[Metric]:
    """Rows a second of each batch in the order the batches ended, by the workers' clocks."""
    batches = sorted(outcome.batches, key=lambda batch: batch.ended_ms)
    stride = -(-len(batches) // _MAX_SERIES_POINTS) or 1
    return [
        Metric(
            key="batch_rows_per_second",
            value=batch.n_rows / max(batch.convert_s + batch.predict_s, 1e-9),
            timestamp_ms=batch.ended_ms,
            step=step,
        )
        for step, batch in enumerate(batches)
        if step % stride == 0
    ]


def earlier_attempts(workspace: Workspace, plan: ScoringPlan) -> list[Run]:
    """Runs of the same logical run; those that were cut off are closed as KILLED."""
    try:
        runs = list(workspace.runs.list_runs(tags={APP_ID_TAG: plan.identity.app_id}))
        for run in runs:
            if run.status is RunStatus.RUNNING:
                workspace.runs.update_run(RunId(run.run_id), RunStatus.KILLED, _now_ms())
    except StoreUnavailableError:
        return []
    return runs


def close_interrupted(workspace: Workspace, outcome: Outcome) -> None:
    """Finish the record of a run that was cut off between its commit and its end."""
    run_id = parse_run_id(outcome.commit.run_id)
    try:
        run = workspace.runs.get_run(run_id)
        # A signal may have come when the commit could not be stopped any more: KILLED, yet done.
        if run.status not in (RunStatus.RUNNING, RunStatus.KILLED):
            return
        written = outcome.commit.n_rows
        points = [] if written is None else [Metric("rows_scored", written, _now_ms())]
        tags = {
            _OUTCOME_TAG: OutcomeStatus.SUCCEEDED.value,
            "sparkscore.target_version": str(outcome.commit.version),
            "sparkscore.recorded_from": "the target's history, after the run was cut off",
        }
        workspace.runs.log_batch(run_id, metrics=points, tags=tags)
        workspace.runs.update_run(run_id, RunStatus.FINISHED, _now_ms())
    except (StoreUnavailableError, LookupError):
        # The run is in another store, or its record still waits in an outbox.
        return


def job_result_of(
    prepared: PreparedJob, outcome: Outcome, started: dt.datetime, attempt: int
) -> JobResult:
    """The result that the orchestrator is told."""
    plan = prepared.plan
    scored = outcome.status is OutcomeStatus.SUCCEEDED
    return JobResult(
        status=outcome.status.value,
        code=0,
        message=outcome_text(outcome, plan),
        job=plan.request.job,
        started=started.isoformat(),
        ended=dt.datetime.now(dt.UTC).isoformat(),
        run_id=outcome.commit.run_id,
        batch_id=plan.identity.run_key,
        model=plan.model.as_facts(),
        input=_input_facts(plan.source, outcome.n_read),
        output={
            "uri": outcome.commit.uri,
            "version": outcome.commit.version,
            "rows": outcome.n_scored if scored else 0,
            "rejected": outcome.n_rejected,
            "nulled": outcome.n_nulled,
            "rejects": None if outcome.rejects is None else outcome.rejects.uri,
            "skipped": outcome.n_skipped,
            "not_finite": outcome.n_not_finite,
            "unknown_levels": _level_facts(outcome),
            "models": _model_facts(outcome),
            "chunks_resumed": outcome.n_chunks_resumed,
            "resumed_from": list(outcome.resumed_from),
        },
        metrics=outcome.as_metrics(),
        attempt=attempt,
    )


def nothing_new_result(prepared: PreparedJob, started: dt.datetime) -> JobResult:
    """The result of a run without a new row: nothing is committed or on record."""
    plan = prepared.plan
    return JobResult(
        status=OutcomeStatus.ALREADY_SCORED.value,
        code=0,
        message=nothing_new_text(plan.source),
        job=plan.request.job,
        started=started.isoformat(),
        ended=dt.datetime.now(dt.UTC).isoformat(),
        batch_id=plan.identity.run_key,
        model=plan.model.as_facts(),
        input=_input_facts(plan.source, 0),
        output={"uri": prepared.sink.uri, "rows": 0},
    )


def outcome_text(outcome: Outcome, plan: ScoringPlan) -> str:
    """What became of the rows of a plan, in one line for people."""
    if outcome.status is OutcomeStatus.ALREADY_SCORED:
        return f"already scored at table version {outcome.commit.version}"
    said = [f"scored {outcome.n_scored} rows at table version {outcome.commit.version}"]
    if outcome.n_chunks_resumed:
        said.append(f"{outcome.n_rows_resumed} of them by earlier attempts")
    if outcome.commit.n_deleted:
        said.append(f"{outcome.commit.n_deleted} deleted with their source")
    if outcome.n_skipped:
        why = "by the rule for rows of one key or of no match"
        if plan.is_replay:
            why = "whose keys a later run has scored"
        said.append(f"{outcome.n_skipped} skipped, {why}")
    said += _without_text(outcome)
    if outcome.n_not_finite:
        said.append(f"NaN or infinite predictions: {outcome.n_not_finite}")
    for label, counts in outcome.models.items():
        if counts.n_failed:
            said.append(f"{label!r} failed on {counts.n_failed} rows: {counts.failure}")
    for name, (n_rows, first) in list(outcome.unknown_levels.items())[:_MAX_LEVELS_TOLD]:
        said.append(f"values of {name!r} unknown to the model: {n_rows}, such as {first}")
    return ", ".join(said) + _rejects_text(outcome, plan)


def _without_text(outcome: Outcome) -> list[str]:
    numbers = [(outcome.n_rejected, "rejected"), (outcome.n_nulled, "without a prediction")]
    return [f"{n_rows} {what}" for n_rows, what in numbers if n_rows]


def _rejects_text(outcome: Outcome, plan: ScoringPlan) -> str:
    """Why rows have no prediction, and what to do about it."""
    text = ""
    if outcome.reasons:
        text = f"; why: {reasons_text(outcome.reasons)}"
    if outcome.rejects is not None:
        has_one = plan.panel is None or plan.panel.has_one_head
        text += (
            f"; the rejected rows are in {outcome.rejects.uri!r}: mend what is wrong, and score "
            f"them again by sparkscore score replay --run {outcome.commit.run_id}"
            + ("" if has_one else " --model URI")
        )
    return text


def _reject_facts(prepared: PreparedJob, outcome: Outcome) -> dict[str, object]:
    request = prepared.plan.request
    return {
        "policy": request.on_invalid.value,
        "table": request.rejects_uri,
        "version": None if outcome.rejects is None else outcome.rejects.version,
        "rows": outcome.n_rejected + outcome.n_nulled,
        "reasons": [reason._asdict() for reason in outcome.reasons],
    }


def _input_facts(source: SourceTable, n_rows: int) -> dict[str, object]:
    """What was read, for an orchestrator; `version_from` is the one that was read up to before."""
    return {
        "uri": source.uri,
        "version_from": source.since or source.version,
        "version_to": source.version,
        "rows": n_rows,
    }


def _level_facts(outcome: Outcome) -> dict[str, dict[str, object]]:
    return {name: levels._asdict() for name, levels in outcome.unknown_levels.items()}


def _resolved_params(plan: ScoringPlan) -> dict[str, object]:
    """All params of a model, defaults too, as plain values; of several models, those given."""
    if plan.panel is not None:
        return plain_params(plan.params)
    return plain_params(resolved_params(plan.model.signature.params, plan.params))


def _model_facts(outcome: Outcome) -> dict[str, dict[str, object]]:
    return {
        label: {"rows_scored": counts.n_scored, **counts._asdict()}
        for label, counts in outcome.models.items()
    }


def _now_ms() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp() * 1000)
