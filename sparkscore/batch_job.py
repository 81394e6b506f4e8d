"""The batch scoring job: resolve, plan, score, commit, record; the whole way in one place.

The commit comes before the record: a tracking store that is down must not lose finished scores.
"""

from __future__ import annotations

import datetime as dt
import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sparkscore.environments.remote import load_remotely
from sparkscore.errors import (
    EngineUnfitError,
    EnvironmentMismatchError,
    SparkscoreError,
    StoreUnavailableError,
)
from sparkscore.flavors import load_predictor
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_result import JobResult
from sparkscore.names import RunId, parse_run_id, parse_run_key
from sparkscore.package import open_package
from sparkscore.package.params import plain_params, resolved_params
from sparkscore.provenance import environment, run_origin
from sparkscore.records import Metric, Run, RunStatus
from sparkscore.scoring.comparison import InvalidRows
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.incremental import (
    Deletes,
    SinceLast,
    check_since_last,
    last_mark,
    nothing_new_text,
)
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, WriteMode, plan_scoring
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.environments.build import BuiltEnvironment
    from sparkscore.files.sink import FilesSink
    from sparkscore.scoring.engine import Crossing
    from sparkscore.scoring.facts import ModelFacts, SourceTable
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.files_engine import FilesEngine

Announce = Callable[[str], None]

_APP_ID_TAG = "sparkscore.app_id"
_OUTCOME_TAG = "sparkscore.outcome"
_RUNTIME_TAG = "sparkscore.runtime"
_THREADS_TAG = "sparkscore.threads_per_task"
_WHY_FILES = "auto: Python reads and writes the files itself, so that no row crosses the JVM"
_WHY_PIPELINE = "Spark itself applies pipelines of Spark ML"
_INFERRED = ("csv", "json")
_MAX_SERIES_POINTS = 1000
_MAX_LEVELS_TOLD = 5
"""Points of the per-batch series that are logged; a longer series is thinned evenly."""


@dataclass(frozen=True)
class PreparedJob:
    """A job whose model is pinned, whose source is open and whose plan is made."""

    plan: ScoringPlan
    engine: SparkEngine | FilesEngine
    sink: DeltaSink | FilesSink
    engine_reason: str
    crossing: Crossing
    environment: BuiltEnvironment | None
    run: Callable[[RunFacts], Outcome]
    nothing_new: bool
    seconds: Mapping[str, float]


def prepare(
    workspace: Workspace, job: JobSettings, run_key: str | None, announce: Announce
) -> PreparedJob:
    """Pin the model, open the source and plan; no table is changed.

    Args:
        workspace: What the settings name.
        job: The job with all flags applied.
        run_key: Name of the logical run; None derives one from the inputs.
        announce: Told each step in one line.

    Raises:
        SparkscoreError: The model, the source or their fit is refused.
    """
    if run_key is not None:
        parse_run_key(run_key)
    check_since_last(WriteMode(job.mode), _deletes(job), run_key)
    started = time.perf_counter()
    announce(f"Resolving {job.model}")
    model = workspace.model(job.model, job.predict)
    resolved = time.perf_counter()
    announce("Opening Spark")
    workspace.spark  # noqa: B018 - opened here, so that its time is told from the plan's
    opened = time.perf_counter()
    environment = None
    if job.env_manager == "virtualenv":
        from sparkscore.spark.shipping import check_takes_environments

        check_takes_environments(workspace.spark)  # Building one takes minutes.
        environment = workspace.environment(model)
    else:
        _check_environment(workspace, model, announce)
    prepared = _planned(workspace, job, model, run_key, environment)
    planned = time.perf_counter()
    table = prepared.plan.source
    announce(f"Planned {model.label} over {table.uri} version {table.version}")
    if job.source.ddl is None and table.format in _INFERRED:
        announce(
            "Spark read all rows once to infer their types; on large input save that by "
            f"--source-schema {shlex.quote(_ddl(table))}"
        )
    seconds = {
        "resolve": resolved - started,
        "open_spark": opened - resolved,
        "plan": planned - opened,
    }
    return replace(prepared, seconds=seconds)


def run_batch_job(
    workspace: Workspace, job: JobSettings, run_key: str | None, announce: Announce
) -> JobResult:
    """Score a job's rows into its target, once per run key, on record.

    Args:
        workspace: What the settings name.
        job: The job with all flags applied.
        run_key: Name of the logical run; None derives one from the inputs.
        announce: Told each step in one line.

    Returns:
        A result with status `succeeded`, or `skipped` where the run key was committed before.

    Raises:
        SparkscoreError: Nothing was committed, unless it is a BooksError.
    """
    started = dt.datetime.now(dt.UTC)
    workspace.outbox.replay()  # Records of earlier runs that the store could not take then.
    prepared = prepare(workspace, job, run_key, announce)
    if prepared.nothing_new:
        return _nothing_new(prepared, started)
    done = prepared.sink.find(prepared.plan.identity)
    if done is not None:
        outcome = Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        _close_interrupted(workspace, outcome)
        return _result(prepared, outcome, started, attempt=1)
    earlier = _earlier_attempts(workspace, prepared.plan)
    experiment = job.experiment or workspace.settings.tracking.experiment
    tags = {
        _APP_ID_TAG: prepared.plan.identity.app_id,
        "sparkscore.job": job.name,
        "sparkscore.run_key": prepared.plan.identity.run_key,
        "sparkscore.spark_application_id": prepared.engine.application_id or "",
    }
    started_run = workspace.tracking.start_run(
        job.name,
        experiment,
        experiment_id=None if job.experiment else workspace.settings.tracking.experiment_id,
        origin=run_origin(),
        tags=tags,
    )
    with started_run as run:
        run.log_params(_params(prepared, workspace))
        announce(f"Scoring into {prepared.sink.uri}")
        facts = RunFacts(run_id=run.run_id, scored_at=dt.datetime.now(dt.UTC))
        outcome = prepared.run(facts)
        _record(run, prepared, outcome)
        outcome.check_books()
    workspace.outbox.replay()  # The store may be back since the run began.
    announce(_message(outcome))
    return _result(prepared, outcome, started, attempt=len(earlier) + 1)


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
        },
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
        "columns": [
            {
                "model": binding.model_column,
                "source": binding.source.name if binding.source else None,
                "type": str(binding.type),
                "cast": binding.cast.value if binding.cast else None,
            }
            for binding in plan.bindings
        ],
        "differences": [
            {"kind": item.kind.value, "column": item.column, "detail": item.detail}
            for item in plan.differences
        ],
        "score_columns": list(plan.score_columns),
    }


def runtime_facts(prepared: PreparedJob) -> dict[str, object]:
    """Who would score the model on this machine, and why; the model is loaded to find out."""
    package = open_package(prepared.plan.model.folder)
    engine, built = prepared.engine, prepared.environment
    predict = prepared.plan.model.predict
    try:
        if built is None:
            loaded = load_predictor(package, engine.trust, engine.tree_runtime, predict)
        else:
            loaded = load_remotely(
                built.python, built.source, package, engine.trust, engine.tree_runtime, predict
            )
    except SparkscoreError as exc:
        return {"name": "unknown", "reason": f"the model cannot be loaded here: {exc}"}
    return {"name": loaded.runtime.name, "reason": loaded.runtime.reason}


def _planned(
    workspace: Workspace,
    job: JobSettings,
    model: ModelFacts,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    """The job planned for the engine that is asked for, or for the fastest that can do it."""
    if flavor_of(open_package(model.folder)) == SPARK:
        return _planned_for_pipeline(workspace, job, model, run_key, environment)
    wanted = job.engine or workspace.settings.scoring.engine
    reason = "asked for by name"
    if wanted in ("auto", "files"):
        try:
            prepared = _planned_for_files(workspace, job, model, run_key, environment)
        except EngineUnfitError as exc:
            if wanted == "files":
                raise
            wanted, reason = "arrow", f"auto: not the files engine, since {exc.reason}"
        else:
            return prepared if wanted == "files" else replace(prepared, engine_reason=_WHY_FILES)
    return _planned_for_spark(workspace, job, model, run_key, environment, wanted, reason)


def _check_environment(workspace: Workspace, model: ModelFacts, announce: Announce) -> None:
    """Tell of workers whose libraries are not those of the package, or refuse them.

    Raises:
        EnvironmentMismatchError: There are such, and the settings do not admit that.
    """
    policy = workspace.settings.scoring.environment_check
    if policy == "off":
        return
    lines = [f"\n  {mismatch}" for mismatch in workspace.environment_mismatches(model)]
    if not lines:
        return
    text = f"model {model.label} was made with other libraries than its workers have:"
    if policy == "fail":
        raise EnvironmentMismatchError(
            f"{text}{''.join(lines)}\nInstall those, score in an environment of the model's own "
            "(--env-manager virtualenv), or set scoring.environment_check=warn"
        )
    announce(text + "".join(lines))


def _planned_for_files(
    workspace: Workspace,
    job: JobSettings,
    model: ModelFacts,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    engine = replace(workspace.files_engine, environment=environment)
    sink = workspace.files_sink(job.target.uri)
    source = engine.open(_spec(job, sink))
    plan = plan_scoring(model, source.table, _request(workspace, job, run_key, sink.uri))
    engine.refuse_unfit(plan, source, sink)
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, "asked for by name", crossing, environment, run, source.nothing_new, {}
    )


def _planned_for_spark(
    workspace: Workspace,
    job: JobSettings,
    model: ModelFacts,
    run_key: str | None,
    environment: BuiltEnvironment | None,
    name: str,
    reason: str,
) -> PreparedJob:
    workspace.check_clients((job.source.uri, job.target.uri), reason)
    engine = replace(workspace.spark_engine(name), environment=environment)
    sink = workspace.delta_sink(job.target.uri)
    source = engine.open(_spec(job, sink))
    plan = plan_scoring(model, source.table, _request(workspace, job, run_key, sink.uri))
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, reason, crossing, environment, run, source.nothing_new, {}
    )


def _planned_for_pipeline(
    workspace: Workspace,
    job: JobSettings,
    model: ModelFacts,
    run_key: str | None,
    environment: BuiltEnvironment | None,
) -> PreparedJob:
    """The job planned for Spark itself, whatever engine the settings prefer for other models.

    Raises:
        EngineUnfitError: The job asks for Python workers, or for an environment of theirs.
    """
    if job.engine not in (None, "auto"):
        raise EngineUnfitError(_WHY_PIPELINE, job.engine, "take --engine auto")
    if environment is not None:
        raise EngineUnfitError(_WHY_PIPELINE, "spark", "take --env-manager local")
    workspace.check_clients((job.source.uri, job.target.uri), _WHY_PIPELINE)
    engine, sink = workspace.pipeline_engine, workspace.delta_sink(job.target.uri)
    source = engine.open(_spec(job, sink))
    plan = plan_scoring(model, source.table, _request(workspace, job, run_key, sink.uri))
    run = partial(engine.run, plan, source, sink)
    crossing = engine.crossing(plan, source, sink)
    return PreparedJob(
        plan, engine, sink, f"auto: {_WHY_PIPELINE}", crossing, None, run, source.nothing_new, {}
    )


def _spec(job: JobSettings, sink: DeltaSink | FilesSink) -> SourceSpec:
    since = None
    if job.since_last:
        mark = last_mark(sink.history(), job.name, sink.uri)
        since = SinceLast(mark, _deletes(job) or Deletes.IGNORE, job.key)
    return SourceSpec(
        job.source.uri,
        job.source.format,
        job.source.version,
        job.where,
        options=job.source.options,
        schema=job.source.ddl,
        since=since,
    )


def _deletes(job: JobSettings) -> Deletes | None:
    """The rule for deletes of a job that scores what is new; None where it is no such job."""
    return Deletes(job.deletes) if job.since_last else None


def _ddl(table: SourceTable) -> str:
    """The columns of a source as a schema is given."""
    names = ("`" + column.name.replace("`", "``") + "`" for column in table.columns)
    types = (column.type_name for column in table.columns)
    return ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))


def _request(
    workspace: Workspace, job: JobSettings, run_key: str | None, target: str
) -> ScoringRequest:
    return ScoringRequest(
        job=job.name,
        target=target,
        run_key=run_key,
        keys=job.key,
        keep=job.keep,
        columns=job.columns,
        params=job.params,
        mode=WriteMode(job.mode),
        replace_where=job.replace_where,
        partition_by=job.partition_by,
        on_invalid=InvalidRows(workspace.settings.scoring.on_invalid),
    )


def _params(prepared: PreparedJob, workspace: Workspace) -> dict[str, str]:
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
        "tree_runtime": prepared.engine.tree_runtime.value,
        "environment": "" if prepared.environment is None else prepared.environment.key,
    }
    if plan.model.predict is not None:
        recorded["predict"] = plan.model.predict
    params = _resolved_params(plan)
    if params:
        recorded["params"] = json.dumps(params)
    return recorded


def _resolved_params(plan: ScoringPlan) -> dict[str, object]:
    """All params that the model is given, defaults too, as plain values."""
    return plain_params(resolved_params(plan.model.signature.params, plan.params))


def _record(run: ActiveRun, prepared: PreparedJob, outcome: Outcome) -> None:
    metrics = outcome.as_metrics() | {
        f"seconds_{phase}": value for phase, value in prepared.seconds.items()
    }
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
    facts = {
        "status": outcome.status.value,
        "commit": {"uri": outcome.commit.uri, "version": outcome.commit.version},
        "metrics": metrics,
        "unknown_levels": _level_facts(outcome),
    }
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


def _earlier_attempts(workspace: Workspace, plan: ScoringPlan) -> list[Run]:
    """Runs of the same logical run; those that were cut off are closed as KILLED."""
    try:
        runs = list(workspace.runs.list_runs(tags={_APP_ID_TAG: plan.identity.app_id}))
        for run in runs:
            if run.status is RunStatus.RUNNING:
                workspace.runs.update_run(RunId(run.run_id), RunStatus.KILLED, _now_ms())
    except StoreUnavailableError:
        return []
    return runs


def _close_interrupted(workspace: Workspace, outcome: Outcome) -> None:
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


def _result(
    prepared: PreparedJob, outcome: Outcome, started: dt.datetime, attempt: int
) -> JobResult:
    plan = prepared.plan
    scored = outcome.status is OutcomeStatus.SUCCEEDED
    return JobResult(
        status=outcome.status.value,
        code=0,
        message=_message(outcome),
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
            "not_finite": outcome.n_not_finite,
            "unknown_levels": _level_facts(outcome),
        },
        metrics=outcome.as_metrics(),
        attempt=attempt,
    )


def _nothing_new(prepared: PreparedJob, started: dt.datetime) -> JobResult:
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


def _input_facts(source: SourceTable, n_rows: int) -> dict[str, object]:
    """What was read, for an orchestrator; `version_from` is the one that was read up to before."""
    return {
        "uri": source.uri,
        "version_from": source.since or source.version,
        "version_to": source.version,
        "rows": n_rows,
    }


def _message(outcome: Outcome) -> str:
    if outcome.status is OutcomeStatus.ALREADY_SCORED:
        return f"already scored at table version {outcome.commit.version}"
    said = [f"scored {outcome.n_scored} rows at table version {outcome.commit.version}"]
    if outcome.commit.n_deleted:
        said.append(f"{outcome.commit.n_deleted} deleted with their source")
    if outcome.n_rejected:
        said.append(f"{outcome.n_rejected} rejected")
    if outcome.n_not_finite:
        said.append(f"NaN or infinite predictions: {outcome.n_not_finite}")
    for name, (n_rows, first) in list(outcome.unknown_levels.items())[:_MAX_LEVELS_TOLD]:
        said.append(f"values of {name!r} unknown to the model: {n_rows}, such as {first}")
    return ", ".join(said)


def _level_facts(outcome: Outcome) -> dict[str, dict[str, object]]:
    return {name: levels._asdict() for name, levels in outcome.unknown_levels.items()}


def _now_ms() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp() * 1000)
