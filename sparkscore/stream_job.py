"""The streaming job: the same plan, worker and table as in batch, one commit a micro-batch."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.errors import ConfigError, EngineUnfitError, UsageError, listed
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.files.committed import committed_rows
from sparkscore.files.stream_admission import admitted
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_models import the_model
from sparkscore.job_planning import Announce, check_environment, scoring_request, source_spec
from sparkscore.job_result import JobResult
from sparkscore.model_watch import ServingModel, try_model
from sparkscore.names import kafka_topic
from sparkscore.outlets.base import CommittedBatch, ScoreShape
from sparkscore.package import open_package
from sparkscore.provenance import environment, run_origin
from sparkscore.publishing import Patience, Publisher, open_outlets
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.features import Features, joined_text
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan, plan_scoring, score_schema
from sparkscore.scoring.streams import plan_of_batch
from sparkscore.scoring.table_write import score_write
from sparkscore.stream_alerts import AlertWatch, alert_bounds, alert_hook
from sparkscore.stream_models import ServedModels, StreamModels, split_of
from sparkscore.stream_record import StreamPages, StreamRecord
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from sparkscore.conf import JobSettings
    from sparkscore.errors import OutletAwayError
    from sparkscore.files.sink import FilesSink
    from sparkscore.outlets.base import Outlet
    from sparkscore.scoring.streams import StreamFacts
    from sparkscore.spark.delta import DeltaSink
    from sparkscore.spark.engine import SparkEngine
    from sparkscore.spark.features import PinnedJoin
    from sparkscore.spark.source import OpenedSource
    from sparkscore.tracking import ActiveRun

_WHY_ARROW = "Spark feeds the model of a stream"


@dataclass(frozen=True)
class _Stream:
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


def run_stream_job(
    workspace: Workspace,
    job: JobSettings,
    announce: Announce,
    *,
    start_over: bool = False,
    has_moved: bool = False,
) -> JobResult:
    """Score the rows that come to a source, each once, until the trigger or a signal ends it.

    Args:
        workspace: What the settings name.
        job: The job with all flags applied; `job.stream` says the rest.
        announce: Told each step in one line.
        start_over: See `stream_admission.admitted`.
        has_moved: See `stream_admission.admitted`.

    Returns:
        A result with status `succeeded`, or `skipped` where no row had come.

    Raises:
        SparkscoreError: Batches before the one that failed are committed, and it is not.
    """
    from sparkscore.spark.stream import parse_trigger, run_stream

    started = dt.datetime.now(dt.UTC)
    trigger = parse_trigger(job.stream.trigger)
    workspace.outbox.replay()
    stream = _opened(workspace, job, announce, start_over=start_over, has_moved=has_moved)
    with _started_run(stream) as run:
        alerts = AlertWatch(job.name, run, alert_bounds(job), alert_hook(job), announce)
        record = StreamRecord(run, job.name, job.stream.health_file, alerts)
        pages = _pages(record, job, announce)
        publisher = _publisher(stream, record, announce)
        announce(f"Scoring {stream.source.table.uri} into {stream.sink.uri} as rows come")
        # A service that is told to end has done its work; a night that is cut off has not.
        ends_well = nullcontext() if "availableNow" in trigger else suppress(SystemExit)
        try:
            with stream.models, alerts, ends_well:
                run_stream(
                    stream.source.frame,
                    _BatchScorer(stream, record, publisher, run.run_id),
                    trigger=trigger,
                    checkpoint=str(stream.checkpoint.root),
                    name=job.name,
                    on_progress=record.progress,
                    what=f"scoring {stream.source.table.uri!r} into {stream.sink.uri!r}",
                )
        finally:
            run.log_metrics(record.totals.as_metrics() | record.totals.latest)
            if pages is not None:
                pages.close()
            for outlet in stream.outlets:
                outlet.close()
    workspace.outbox.replay()
    return _result(stream, record, run, started)


@dataclass(frozen=True)
class _BatchScorer:
    """Scores one micro-batch after the other with its models, commits and publishes it."""

    stream: _Stream
    record: StreamRecord
    publisher: Publisher
    run_id: str
    checked: dict[str, int] = field(default_factory=dict)
    """Joined tables and the versions of them that were found to have one row a key."""

    def __call__(self, frame: DataFrame, number: int) -> None:
        """Score a batch, or find that it was committed before; then publish it."""
        from sparkscore.spark.stream import kept, read_through

        stream = self.stream
        models = self._models_of(number)
        tables = self._tables_of(number, frame)
        versions = {each.join.table: each.version for each in tables}
        plan = plan_of_batch(models.plan, stream.facts.stream_id, number, joined_text(versions))
        done = stream.sink.find(plan.identity)
        if done is None:
            # A merge reads its rows several times, and Spark's state is to be made but once.
            is_kept = stream.features.in_query and plan.request.refuses_duplicates
            with kept(frame) if is_kept else nullcontext():
                outcome = self._scored(frame, plan, models, tables)
            outcome.check_books()
        else:
            outcome = Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
            if stream.features.in_query:
                read_through(frame)  # Spark's state of the batch is made by reading its rows.
        outcome = self._published(outcome, number)
        is_replay = outcome.status is OutcomeStatus.ALREADY_SCORED
        self.stream.models.batch(outcome)
        self.record.batch(number, outcome, models.batch_models, is_replay=is_replay)

    def _models_of(self, number: int) -> ServedModels:
        """The models that the batch was begun with, however long ago; else the newest."""
        checkpoint, models = self.stream.checkpoint, self.stream.models
        known = checkpoint.models_of(number)
        if known is not None:
            return models.of(known)
        current = models.current
        checkpoint.keep_models(number, current.batch_models)
        return current

    def _published(self, outcome: Outcome, number: int) -> Outcome:
        """Hand the rows to the outlets, out of the commit: also those of an earlier attempt."""
        stream = self.stream
        if not stream.outlets:
            return outcome
        started = time.monotonic()

        def rows() -> Iterator[pa.RecordBatch]:
            return committed_rows(stream.files.root, outcome.commit.version, stream.shape.schema)

        batch = CommittedBatch(stream.shape, stream.facts.stream_id, number, rows)
        self.record.published(self.publisher.publish(batch))
        seconds = {**outcome.seconds, "publish": time.monotonic() - started}
        return replace(outcome, seconds=seconds)

    def _tables_of(self, number: int, frame: DataFrame) -> tuple[PinnedJoin, ...]:
        """The tables that the batch is joined with: at the versions that it was begun with."""
        from sparkscore.spark.features import check_one_match, pinned_joins

        stream = self.stream
        if not stream.features.joins:
            return ()
        known = stream.checkpoint.tables_of(number)
        pinned = pinned_joins(frame.sparkSession, stream.features, known or {})
        for each in pinned:
            if self.checked.get(each.join.table) != each.version:
                check_one_match(each)
                self.checked[each.join.table] = each.version
        if known is None:
            stream.checkpoint.keep_tables(number, {p.join.table: p.version for p in pinned})
        return pinned

    def _scored(
        self,
        frame: DataFrame,
        plan: ScoringPlan,
        models: ServedModels,
        tables: tuple[PinnedJoin, ...],
    ) -> Outcome:
        from sparkscore.spark.features import joined
        from sparkscore.spark.source import OpenedSource
        from sparkscore.spark.stream import EventTimes

        stream = self.stream
        made = joined(frame, tables)
        column = stream.job.stream.event_time
        times = None if column is None else EventTimes(made.frame, column)
        rows = made.frame if times is None else times.frame
        source = OpenedSource(rows, stream.source.table, given=made.given)
        # Spark runs each batch in a session of its own, with settings of its own.
        session = frame.sparkSession
        engine = replace(stream.engine, spark=session, packed=models.packed)
        facts = RunFacts(run_id=self.run_id, scored_at=dt.datetime.now(dt.UTC))
        outcome = engine.run(plan, source, replace(stream.sink, spark=session), facts)
        # Nothing was observed where another attempt was faster.
        if outcome.status is OutcomeStatus.SUCCEEDED:
            if times is not None:
                self.record.latency(times.ages(time.time()))
            self.record.unmatched(made.n_unmatched())
        return outcome


def _opened(
    workspace: Workspace,
    job: JobSettings,
    announce: Announce,
    *,
    start_over: bool,
    has_moved: bool,
) -> _Stream:
    _refuse_unfit(workspace, job)
    outlets = open_outlets(workspace, job)
    announce("Opening Spark")
    from sparkscore.spark.delta import files_sink
    from sparkscore.spark.stream_source import open_stream

    engine = workspace.spark_engine("arrow")
    workspace.check_clients((job.source.uri, job.target.uri), _WHY_ARROW)
    if kafka_topic(job.source.uri) is not None:
        workspace.load_kafka()
    source = open_stream(workspace.spark, source_spec(job))
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

    models = StreamModels(workspace, job, first, served, announce)
    check_environment(workspace, models.current.facts[1:], announce)
    scores = score_schema(models.current.plan)
    shape = ScoreShape(scores, plan.request.keys, job.stream.event_time)
    for outlet in outlets:
        outlet.check(shape)
    files = files_sink(workspace.spark, job.target.uri)
    assert job.stream.checkpoint is not None
    root = workspace.table_path(job.stream.checkpoint)
    checkpoint = Checkpoint(root.absolute() if isinstance(root, Path) else root)
    facts = admitted(
        checkpoint,
        plan,
        files,
        start_over=start_over,
        has_moved=has_moved,
    )
    return _Stream(
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


def _refuse_unfit(workspace: Workspace, job: JobSettings) -> None:
    """Refuse what a stream cannot do, before Spark is opened.

    Raises:
        ConfigError: The job has no checkpoint, or asks for what only a batch has.
        EngineUnfitError: It asks for another engine.
        UsageError: The session would be a Connect one.
    """
    the_model(job)
    split_of(job)
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
        "checks": job.checks != type(job.checks)(),
    }
    asked = [name for name, is_asked in batch_only.items() if is_asked]
    if asked:
        raise ConfigError(
            f"{listed(asked)} go with a batch job, which knows all rows of its run; leave them "
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


def _planned(
    workspace: Workspace, job: JobSettings, uri: str, source: OpenedSource, sink: DeltaSink
) -> ScoringPlan:
    model = workspace.model(uri, job.predict)
    if flavor_of(open_package(model.folder)) == SPARK:
        raise EngineUnfitError("a stream scores in Python workers, and the model is Spark ML's")
    plan = plan_scoring(model, source.table, scoring_request(workspace, job, None, sink.uri))
    sink.check(score_write(plan))
    return plan


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


def _started_run(stream: _Stream) -> ActiveRun:
    workspace, job = stream.workspace, stream.job
    run = workspace.tracking.start_run(
        job.name,
        job.experiment or workspace.settings.tracking.experiment,
        experiment_id=None if job.experiment else workspace.settings.tracking.experiment_id,
        origin=run_origin(),
        tags={
            "sparkscore.job": job.name,
            "sparkscore.stream_id": stream.facts.stream_id,
            "sparkscore.spark_application_id": stream.engine.application_id or "",
        },
    )
    plan = stream.first.plan
    run.log_params(
        {
            "model_uri": the_model(job),
            "model_version": str(plan.model.version or ""),
            "model_digest": plan.model.digest,
            **_canary_params(job),
            "source": plan.source.uri,
            "where": plan.source.where or "",
            "target": stream.sink.uri,
            "mode": plan.request.mode.value,
            "on_invalid": plan.request.on_invalid.value,
            "rejects": plan.request.rejects_uri or plan.request.rejects or "",
            "trigger": job.stream.trigger,
            "checkpoint": str(stream.checkpoint.root),
            "publish": " ".join(outlet.name for outlet in stream.outlets),
            "features": stream.features.digest if stream.features.are_there else "",
        }
    )
    run.log_json(environment(), "environment.json")
    if stream.features.are_there:
        run.log_json(asdict(stream.features), "features.json")
    return run


def _publisher(stream: _Stream, record: StreamRecord, announce: Announce) -> Publisher:
    def wait(reason: OutletAwayError | None) -> None:
        record.waits(reason)
        announce("publishing goes on" if reason is None else f"publishing waits: {reason}")

    patience = Patience(stream.job.stream.publish_retry_s)
    return Publisher(stream.outlets, stream.checkpoint, patience, wait)


def _canary_params(job: JobSettings) -> dict[str, str]:
    split = split_of(job)
    if split is None:
        return {}
    canary = job.stream.canary
    return {
        "canary_uri": str(canary.model),
        "canary_share": str(canary.share),
        "canary_where": split.sql,
    }


def _pages(record: StreamRecord, job: JobSettings, announce: Announce) -> StreamPages | None:
    if job.stream.metrics_port is None:
        return None
    pages = StreamPages(record, job.stream.metrics_port, job.stream.metrics_host)
    announce(f"Telling /metrics and /healthz of {job.stream.metrics_host} at port {pages.port}")
    return pages


def _result(
    stream: _Stream, record: StreamRecord, run: ActiveRun, started: dt.datetime
) -> JobResult:
    totals, table = record.totals, stream.source.table
    has_scored = totals.n_batches > 0
    message = (
        f"scored {totals.n_scored} rows in {totals.n_batches} batches, the last at table version "
        f"{totals.table_version}; {totals.n_rejected} rejected, {totals.n_nulled} without a "
        "prediction"
        if has_scored
        else "no row had come"
    )
    return JobResult(
        status="succeeded" if has_scored else "skipped",
        code=0,
        message=message,
        job=stream.job.name,
        started=started.isoformat(),
        ended=dt.datetime.now(dt.UTC).isoformat(),
        run_id=run.run_id,
        model=stream.first.plan.model.as_facts(),
        input={"uri": table.uri, "rows": totals.n_read},
        output={
            "uri": stream.sink.uri,
            "version": totals.table_version,
            "rows": totals.n_scored,
            "rejected": totals.n_rejected,
            "nulled": totals.n_nulled,
            "rejects": stream.first.plan.request.rejects_uri,
            "published_to": [outlet.name for outlet in stream.outlets],
        },
        metrics=totals.as_metrics() | totals.latest,
    )
