"""Rejected rows of a run scored again, into the same table and once."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sparkscore.batch_job import run_prepared
from sparkscore.errors import (
    InvalidStateError,
    RecordNotFoundError,
    StoreUnavailableError,
    UsageError,
    shown,
)
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_planning import PreparedJob
from sparkscore.names import RunId, parse_run_id, same_place
from sparkscore.package import open_package
from sparkscore.scoring.engine import SourceSpec
from sparkscore.scoring.facts import input_columns
from sparkscore.scoring.panel import Challenger, ModelsAs, PanelSpec, label_of, plan_panel
from sparkscore.scoring.plan import (
    RunIdentity,
    ScoringRequest,
    WriteMode,
    plan_scoring,
    run_identity,
)
from sparkscore.scoring.rejects import INLINE, InvalidRows, NanAnswers, RejectBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

    from sparkscore.job_result import JobResult
    from sparkscore.records import Run
    from sparkscore.scoring.facts import ModelFacts
    from sparkscore.spark.source import OpenedSource
    from sparkscore.workspace import Workspace

_REPLAY_OF_TAG = "sparkscore.replay_of"
_PARENT_TAG = "mlflow.parentRunId"
_ENGINE = "arrow"
_NOT_COMMITTED = "not committed"


@dataclass(frozen=True)
class ReplayRequest:
    """Which rejected rows are scored again, and by which model.

    Attributes:
        run_id: The run that rejected them; None: the one of `run_key` in `rejects`.
        run_key: Its run key.
        rejects: Their table; None: as the tracking store has it.
        model: URI of the model; None: the one that could not score them.
    """

    run_id: str | None = None
    run_key: str | None = None
    rejects: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class RejectsOfRun:
    """One run's rows in a rejects table, or those of one batch of a stream's run.

    Attributes:
        state: `open`, `replayed`, or `not committed`: the run has no scores, and so these rows
            do not count; the job's next attempt removes them.
        replay_run_id: The run that scored them again.
    """

    run_id: str
    job: str
    run_key: str
    n_rows: int
    state: str
    replay_run_id: str | None


def replay_run(
    workspace: Workspace, request: ReplayRequest, announce: Callable[[str], None]
) -> JobResult:
    """Score the rejected rows of a run into its score table, once, on record below that run.

    Rows that get no prediction this time either are rejected rows of the new run.

    Args:
        workspace: What the settings name.
        request: Which rows, and by which model.
        announce: Told each step in one line.

    Returns:
        A result with status `skipped` where they were scored again before.

    Raises:
        UsageError: There is no such run, or it has no rejected rows.
        InvalidStateError: The run committed no scores, or they have been replaced since.
        SparkscoreError: What a scoring job refuses; nothing was committed, unless it is a
            BooksError.
    """
    started = dt.datetime.now(dt.UTC)
    workspace.outbox.replay()
    run_id = parse_run_id(request.run_id or _run_of_key(workspace, request))
    parent = _recorded(workspace, run_id, is_needed=request.rejects is None)
    uri = request.rejects or _rejects_uri(parent, run_id)
    announce(f"Opening the rejected rows of run {run_id} in {uri}")
    where = f"run_id = '{run_id}'"
    rejects = workspace.spark_engine(_ENGINE).open(SourceSpec(uri, "delta", where=where))
    uri = rejects.table.uri  # However it was written.
    recipes = _recipes(rejects, run_id)
    job = _joined(recipes)
    sink = workspace.delta_sink(job["target"])
    if sink.find(_known(job, _replay_key(run_id))) is None:
        for recipe in recipes:
            _check_scores(workspace, recipe, run_id)
    model = workspace.model(_model_uri(request, job), job["predict"])
    announce(f"Planning {model.label} over {job['rows']} rows")
    spec = _panel(workspace, job, model)
    is_pipeline = spec is None and flavor_of(open_package(model.folder)) == SPARK
    engine = workspace.pipeline_engine if is_pipeline else workspace.spark_engine(_ENGINE)
    from sparkscore.spark.rejected_rows import as_source

    source = as_source(rejects, job["inputs"], _given_way(workspace, job), job["keys"])
    request_of = partial(_request, workspace, job, uri, run_id)
    if spec is None:
        plan = plan_scoring(model, source.table, request_of((model,)))
    else:
        plan = plan_panel(spec, source.table, request_of(spec.models))
    replayed = replace(plan, is_replay=True, identity=_identity(job, uri, run_id))
    prepared = PreparedJob(
        plan=replayed,
        engine=engine,
        sink=sink,
        engine_reason="the rejected rows are columns of Spark's",
        crossing=engine.crossing(replayed, source, sink),
        environment=None,
        run=partial(engine.run, replayed, source, sink),
        seconds={},
    )
    tags = {_PARENT_TAG: run_id, _REPLAY_OF_TAG: run_id}
    return run_prepared(
        workspace,
        prepared,
        started,
        announce,
        experiment_id=None if parent is None else parent.experiment_id,
        tags=tags,
    )


def list_rejects(workspace: Workspace, uri: str) -> list[RejectsOfRun]:
    """The runs that have rows in a rejects table, and what became of them.

    Args:
        workspace: What the settings name.
        uri: The rejects table.

    Raises:
        SourceError: There is no such table.
    """
    from sparkscore.spark.rejected_rows import rows_by_run

    opened = workspace.spark_engine(_ENGINE).open(SourceSpec(uri, "delta"))
    found = []
    for run_id, text, n_rows in rows_by_run(opened):
        job = json.loads(text)
        sink = workspace.delta_sink(job["target"])
        commit = sink.find(_of_recipe(job))
        replay = sink.find(_known(job, _replay_key(run_id)))
        state = "open"
        if commit is None or commit.run_id != run_id:
            state = _NOT_COMMITTED
        elif replay is not None:
            state = "replayed"
        found.append(
            RejectsOfRun(
                run_id=run_id,
                job=job["job"],
                run_key=job["run_key"],
                n_rows=n_rows,
                state=state,
                replay_run_id=None if replay is None else replay.run_id,
            )
        )
    return found


def _run_of_key(workspace: Workspace, request: ReplayRequest) -> str:
    if request.run_key is None or request.rejects is None:
        raise UsageError(
            "no run is named; give its id (--run), or its run key and the table that holds its "
            "rejected rows (--run-key and --rejects)"
        )
    found = [
        one.run_id
        for one in list_rejects(workspace, request.rejects)
        if one.run_key == request.run_key and one.state != _NOT_COMMITTED
    ]
    if len(found) != 1:
        raise RecordNotFoundError(
            f"{len(found)} runs with the key {request.run_key!r} have scores, and rejected rows in "
            f"{request.rejects!r}; sparkscore score rejects lists them: name one by --run"
        )
    return found[0]


def _recorded(workspace: Workspace, run_id: RunId, *, is_needed: bool) -> Run | None:
    """The record of a run; None where there is none, and none is needed."""
    try:
        return workspace.runs.get_run(run_id)
    except (RecordNotFoundError, StoreUnavailableError) as exc:
        if not is_needed:
            return None
        raise type(exc)(
            f"{exc}; name the table that holds its rejected rows: --rejects URI"
        ) from exc


def _rejects_uri(run: Run | None, run_id: str) -> str:
    uri = "" if run is None else run.params.get("rejects", "")
    if uri in ("", INLINE):
        kept = "in its score table" if uri else "nowhere"
        raise UsageError(
            f"run {run_id} keeps rejected rows {kept}, since it was not made with --on-invalid "
            "quarantine and a rejects table; there is nothing to replay"
        )
    return uri


def _recipes(rejects: OpenedSource, run_id: str) -> list[dict[str, Any]]:
    """The job that rejected the rows, as each of its commits has it, and how many they are."""
    from sparkscore.spark.rejected_rows import rows_by_run

    found = rows_by_run(rejects)
    if not found:
        raise RecordNotFoundError(
            f"run {run_id} has no rejected rows in {rejects.table.uri!r}; sparkscore score rejects "
            "lists the runs that have some there"
        )
    return [json.loads(text) | {"rows": n_rows} for _, text, n_rows in found]


def _joined(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One job for the batches of a stream, whose models may have read other columns."""
    inputs = {name: kind for recipe in recipes for name, kind in recipe["inputs"].items()}
    return {**recipes[0], "inputs": inputs, "rows": sum(recipe["rows"] for recipe in recipes)}


def _model_uri(request: ReplayRequest, job: Mapping[str, Any]) -> str:
    uri = request.model or job["model"]
    if uri is None:
        raise UsageError(
            f"job {job['job']!r} has several models in one scan; name the one that is to score its "
            "rejected rows (--model)"
        )
    return str(uri)


def _panel(workspace: Workspace, job: Mapping[str, Any], model: ModelFacts) -> PanelSpec | None:
    """The model and what stands beside it in the score table; None: nothing does.

    Where each model has rows of its own, the challengers' are there: they took the row.

    Raises:
        UsageError: The model has been a challenger whose rows are there.
    """
    challengers, models_as = job.get("challengers", {}), job.get("models_as")
    if models_as == ModelsAs.LONG:
        if label_of(model) in challengers:
            raise UsageError(
                f"model {shown(label_of(model))} scored all rows of the run as a challenger, and "
                "those are in the table; name another one (--model)"
            )
        return PanelSpec((model,), models_as=ModelsAs.LONG)
    if not challengers:
        return None
    beside = (
        Challenger(workspace.model(uri, job["predict"]), label)
        for label, uri in challengers.items()
    )
    return PanelSpec((model,), tuple(beside))


def _check_scores(workspace: Workspace, job: Mapping[str, Any], run_id: str) -> None:
    """Refuse rows that do not belong to scores that are there.

    Raises:
        InvalidStateError: They do not.
    """
    commit = workspace.delta_sink(job["target"]).find(_of_recipe(job))
    if commit is None or commit.run_id != run_id:
        raise InvalidStateError(
            f"the scores of run {run_id} under run key {job['run_key']!r} were never committed to "
            f"{job['target']!r}, so their rejected rows do not count; run job {job['job']!r} again"
        )
    if job["mode"] != WriteMode.REPLACE:
        return
    if commit.n_rows:
        is_replaced = _rows(workspace, job, f"run_id = '{run_id}'").isEmpty()
    else:  # By keys it is told row by row.
        is_replaced = not job["keys"] and not _rows(workspace, job, job["replace_where"]).isEmpty()
    if is_replaced:
        raise InvalidStateError(
            f"the scores of run {run_id} in {job['target']!r} have been replaced since, together "
            "with those of its rejected rows; there is nothing to add to them"
        )


def _given_way(workspace: Workspace, job: Mapping[str, Any]) -> DataFrame | None:
    """Scores whose rows are told by keys, and of which a later run's are not to be outdone."""
    if job["mode"] == WriteMode.APPEND or not job["keys"]:
        return None
    return _rows(workspace, job, job["replace_where"])


def _rows(workspace: Workspace, job: Mapping[str, Any], where: str | None) -> DataFrame:
    """Rows of the job's score table."""
    scores = SourceSpec(job["target"], "delta", where=where)
    return workspace.spark_engine(_ENGINE).open(scores).frame


def _request(
    workspace: Workspace,
    job: Mapping[str, Any],
    rejects: str,
    run_id: str,
    models: Sequence[ModelFacts],
) -> ScoringRequest:
    """What is asked of the models; those of the job may have had other inputs and params."""
    scoring = workspace.settings.scoring
    inputs = {name for model in models for name in input_columns(model)}
    params = {param.name for model in models for param in model.signature.params}
    return ScoringRequest(
        job=job["job"],
        target=job["target"],
        run_key=_replay_key(run_id),
        keys=tuple(job["keys"]),
        keep=tuple(job["keep"]),
        columns={name: column for name, column in job["columns"].items() if name in inputs},
        params={name: value for name, value in job["params"].items() if name in params},
        mode=WriteMode(job["mode"]),
        replace_where=job["replace_where"],
        on_invalid=InvalidRows.QUARANTINE,
        on_nan=NanAnswers(job["on_nan"]),
        rejects=rejects,
        max_rejects=RejectBudget.parse(scoring.max_rejects, "max_rejects"),
    )


def _identity(job: Mapping[str, Any], rejects: str, run_id: str) -> RunIdentity:
    """One for all replays of a run, by whatever model: its rows are to be scored once."""
    inputs = {"rejects": same_place(rejects), "replay_of": run_id}
    return replace(_known(job, _replay_key(run_id)), fingerprint=inputs)


def _known(job: Mapping[str, Any], run_key: str) -> RunIdentity:
    """A run of the job by its key alone, whatever its inputs were."""
    return run_identity(job["job"], job["target"], run_key, {})


def _of_recipe(job: Mapping[str, Any]) -> RunIdentity:
    """The run, or the batch of a stream, that rejected the rows, whatever its inputs were."""
    return RunIdentity(job["app_id"], job["run_key"], {}, job["txn_version"])


def _replay_key(run_id: str) -> str:
    return f"replay-{run_id}"
