"""Opening a stream: source, table, checkpoint and models, or a refusal before a row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import (
    ConfigError,
    EngineUnfitError,
    UsageError,
    listed,
    shown,
)
from sparkscore.feeding import spark_places, stream_spec
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.files.stream_admission import admitted
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_models import the_model
from sparkscore.job_planning import Announce, check_environment, scoring_request
from sparkscore.model_watch import ServingModel, try_model
from sparkscore.names import are_one_place, kafka_topic
from sparkscore.outlets.base import ScoreShape
from sparkscore.package import open_package
from sparkscore.publishing import open_outlets
from sparkscore.scoring.features import Features
from sparkscore.scoring.plan import ScoringPlan, plan_scoring, score_schema
from sparkscore.scoring.table_write import score_write
from sparkscore.stream_alerts import alert_bounds, alert_hook
from sparkscore.stream_drift import check_drift_columns, drift_columns
from sparkscore.stream_models import (
    StreamModels,
    shadow_job,
    split_of,
)
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings
    from sparkscore.files.sink import FilesSink
    from sparkscore.outlets.base import Outlet
    from sparkscore.scoring.streams import StreamFacts
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.source import OpenedSource

_SHADOW = "the workers write a shadow's scores beside the published ones"
_WHY_ARROW = "Spark feeds the model of a stream"


@dataclass(frozen=True)
class OpenedStream:
    """A stream whose parts are open, and whose first model is planned."""

    workspace: Workspace
    job: JobSettings
    engine: SparkEngine
    source: OpenedSource
    sink: DeltaSink
    files: FilesSink
    first: ServingModel
    models: StreamModels
    checkpoint: Checkpoint
    facts: StreamFacts
    outlets: Sequence[Outlet]
    shape: ScoreShape

    @property
    def features(self) -> Features:
        """What is computed before scoring."""
        return self.source.table.features or Features()


def open_stream_job(
    workspace: Workspace,
    job: JobSettings,
    announce: Announce,
    *,
    start_over: bool,
    has_moved: bool,
) -> OpenedStream:
    """Open all that a stream needs; nothing is scored.

    Args:
        workspace: What the settings name.
        job: The stream's.
        announce: Told each step in one line.
        start_over: See `stream_admission.admitted`.
        has_moved: See `stream_admission.admitted`.

    Raises:
        SparkscoreError: The job does not go together, or not with what is there.
    """
    _refuse_unasked(workspace, job)
    outlets = open_outlets(workspace, job)
    spec = stream_spec(workspace, job)
    announce("Opening Spark")
    from sparkscore.spark.delta import files_sink
    from sparkscore.spark.stream_source import open_stream

    engine = workspace.spark_engine("arrow")
    workspace.check_clients(spark_places(spec, job), _WHY_ARROW)
    if kafka_topic(job.source.uri) is not None:
        workspace.load_kafka()
    source = open_stream(workspace.spark, spec)
    sink = workspace.delta_sink(job.target.uri)
    announce(f"Resolving {the_model(job)}")
    plan = _planned(workspace, job, the_model(job), source, sink)
    _check_event_time(job, source)
    check_environment(workspace, [plan.model], announce)
    try_model(workspace, plan)
    first = ServingModel(plan, engine.ship(plan.model))

    def served(uri: str) -> ServingModel:
        """A model planned for this stream, and sent to the nodes."""
        fresh = _planned(workspace, job, uri, source, sink)
        _check_same_table(plan, fresh)
        return ServingModel(fresh, engine.ship(fresh.model))

    beside = shadow_job(job)
    if beside is not None:
        _refuse_unfit(sink, plan, _SHADOW)
    if drift_columns(job):
        check_drift_columns(plan, drift_columns(job))
        _refuse_unfit(sink, plan, "drift is told of by the workers that write the scores")

    def shadowed(uri: str) -> ServingModel:
        """A model planned for the shadow's table, and sent to the nodes."""
        assert beside is not None
        shadow_sink = workspace.delta_sink(beside.target.uri)
        fresh = _planned(workspace, beside, uri, source, shadow_sink)
        _refuse_unfit(shadow_sink, fresh, _SHADOW)
        return ServingModel(fresh, engine.ship(fresh.model))

    models = StreamModels(workspace, job, first, served, shadowed, announce)
    trials = models.current.facts[1:]
    if trials:  # It asks the workers, by a job of Spark's.
        check_environment(workspace, trials, announce)
    scores = score_schema(models.current.plan)
    shape = ScoreShape(scores, plan.request.keys, job.stream.event_time)
    for outlet in outlets:
        outlet.check(shape)
    files = files_sink(workspace.spark, job.target.uri)
    assert job.stream.checkpoint is not None
    root = workspace.table_path(job.stream.checkpoint)
    checkpoint = Checkpoint(root.absolute() if isinstance(root, Path) else root)
    _refuse_shared_folder(checkpoint, source.table.uri, sink.uri)
    facts = admitted(
        checkpoint,
        plan,
        files,
        start_over=start_over,
        has_moved=has_moved,
    )
    return OpenedStream(
        workspace=workspace,
        job=job,
        engine=engine,
        source=source,
        sink=sink,
        files=files,
        first=first,
        models=models,
        checkpoint=checkpoint,
        facts=facts,
        outlets=outlets,
        shape=shape,
    )


def _refuse_unasked(workspace: Workspace, job: JobSettings) -> None:
    """Refuse what a stream cannot do, before Spark is opened.

    Raises:
        ConfigError: The job has no checkpoint, or asks for what only a batch has.
        EngineUnfitError: It asks for another engine.
        UsageError: The session would be a Connect one.
    """
    the_model(job)
    split_of(job)
    shadow_job(job)
    alert_bounds(job)
    alert_hook(job)
    if job.stream.checkpoint is None:
        raise ConfigError(
            "a stream keeps its progress in a folder, and the job names none; give one of its own "
            "with --checkpoint, or as stream.checkpoint in the job's file"
        )
    if job.mode == "replace":
        raise ConfigError(
            "mode 'replace' would have each batch of a stream replace the one before; take "
            "--mode append, or merge by key"
        )
    batch_only = {
        "since_last": job.since_last,
        "duplicates": job.duplicates is not None,
        "checks": job.checks != type(job.checks)() or job.accept_checks,
        "deletes": job.deletes != "ignore",
    }
    asked = [name for name, is_asked in batch_only.items() if is_asked]
    if asked:
        raise ConfigError(
            f"only a batch job has {listed(asked)}, since it knows all rows of its run; leave that "
            "out: a stream scores each row once, as it comes"
        )
    if job.engine not in (None, "auto", "arrow"):
        raise EngineUnfitError(_WHY_ARROW, job.engine, "take --engine auto")
    if job.env_manager != "local":
        raise EngineUnfitError(_WHY_ARROW, "arrow", "take --env-manager local")
    if workspace.settings.spark.remote is not None:
        raise UsageError(
            "a Connect server would run the batches of a stream in a process of its own; run the "
            "stream in a classic session (spark.master)"
        )


def _refuse_shared_folder(checkpoint: Checkpoint, source: str, target: str) -> None:
    """Refuse a checkpoint among the files of a table.

    Raises:
        ConfigError: It is the folder of the source or of the target.
    """
    for what, uri in (("source", source), ("target", target)):
        if are_one_place(str(checkpoint.root), uri):
            raise ConfigError(
                f"checkpoint {shown(checkpoint.place)} is the folder of the {what} itself, whose "
                "files it would lie among; give a folder of its own with --checkpoint"
            )


def _planned(
    workspace: Workspace, job: JobSettings, uri: str, source: OpenedSource, sink: DeltaSink
) -> ScoringPlan:
    model = workspace.model(uri, job.predict)
    if flavor_of(open_package(model.folder)) == SPARK:
        raise EngineUnfitError("a stream scores in Python workers, and the model is Spark ML's")
    request = scoring_request(workspace, job, None, sink.uri)
    request = replace(request, sketched=drift_columns(job))
    plan = plan_scoring(model, source.table, request)
    sink.check(score_write(plan))
    return plan


def _refuse_unfit(sink: DeltaSink, plan: ScoringPlan, what: str) -> None:
    """Refuse what only workers can do that write the files themselves.

    Raises:
        ConfigError: It does.
    """
    try:
        sink.as_files(score_write(plan))
    except EngineUnfitError as exc:
        raise ConfigError(
            f"{what}, but the files of {sink.uri!r} are Spark's to write: {exc.reason}; take "
            "--mode append and a table that Python writes, or leave that out"
        ) from exc


def _check_same_table(first: ScoringPlan, fresh: ScoringPlan) -> None:
    """Refuse a version whose scores have other columns than those before it.

    Raises:
        ConfigError: They have.
    """
    before, now = score_schema(first), score_schema(fresh)
    if before != now:
        differing = sorted({str(f) for f in before} ^ {str(f) for f in now})
        raise ConfigError(
            f"{fresh.model.label} answers with other columns than {first.model.label}: "
            f"{listed(differing)}; score it into a table of its own"
        )


def _check_event_time(job: JobSettings, source: OpenedSource) -> None:
    name = job.stream.event_time
    column = None if name is None else source.table.column(name)
    if name is not None and (column is None or column.type_name != "timestamp"):
        raise ConfigError(
            f"event time {name!r} is no timestamp of {source.table.uri!r}; name a column of that "
            "type with --event-time, or leave it out"
        )
