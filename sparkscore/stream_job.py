"""The streaming job: the same plan, worker and table as in batch, one commit a micro-batch."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from sparkscore.errors import (
    BatchDeadlineError,
    DataError,
    ModelTooLargeError,
    WorkerCrashError,
)
from sparkscore.feeding import feeding
from sparkscore.files.committed import committed_rows
from sparkscore.job_models import the_model
from sparkscore.job_planning import Announce
from sparkscore.job_result import JobResult
from sparkscore.outlets.base import CommittedBatch
from sparkscore.provenance import environment, run_origin
from sparkscore.publishing import Patience, Publisher
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.features import joined_text
from sparkscore.scoring.outcome import Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringPlan
from sparkscore.stream_alerts import AlertWatch, alert_bounds, alert_hook
from sparkscore.stream_drift import StreamDrift
from sparkscore.stream_models import (
    ServedModels,
    trial_params,
)
from sparkscore.stream_opening import OpenedStream, open_stream_job
from sparkscore.stream_record import StreamPages, StreamRecord
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from sparkscore.conf import JobSettings
    from sparkscore.errors import OutletAwayError
    from sparkscore.spark.features import PinnedJoin
    from sparkscore.tracking import ActiveRun


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
    stream = open_stream_job(workspace, job, announce, start_over=start_over, has_moved=has_moved)
    with _started_run(stream) as run:
        alerts = AlertWatch(job.name, run, alert_bounds(job), alert_hook(job), announce)
        record = StreamRecord(run, job.name, job.stream.health_file, alerts)
        drift = StreamDrift(stream.checkpoint, job.stream.drift.rows, announce)
        pages = _pages(record, job, announce)
        publisher = _publisher(stream, record, announce)
        announce(f"Scoring {stream.source.table.uri} into {stream.sink.uri} as rows come")
        # A service that is told to end has done its work; a night that is cut off has not.
        ends_well = nullcontext() if "availableNow" in trigger else suppress(SystemExit)
        try:
            feed = feeding(workspace, job, stream.facts, record, announce)
            with stream.models, alerts, feed, ends_well:
                run_stream(
                    stream.source.frame,
                    _BatchScorer(stream, record, drift, publisher, run.run_id),
                    trigger=trigger,
                    checkpoint=str(stream.checkpoint.root),
                    name=job.name,
                    on_progress=record.progress,
                    what=f"scoring {stream.source.table.uri!r} into {stream.sink.uri!r}",
                )
        finally:
            drift.close()
            run.log_metrics(record.metrics())
            if pages is not None:
                pages.close()
            for outlet in stream.outlets:
                outlet.close()
    workspace.outbox.replay()
    return _result(stream, record, run, started)


@dataclass(frozen=True)
class _BatchScorer:
    """Scores one micro-batch after the other with its models, commits and publishes it."""

    stream: OpenedStream
    record: StreamRecord
    drift: StreamDrift
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
        plan = models.plan_of(stream.facts.stream_id, number, joined_text(versions))
        done = stream.sink.find(plan.identity)
        if done is None:
            # A merge reads its rows several times, and so may a shadow that ends a worker; Spark's
            # state is to be made but once.
            is_read_again = plan.request.refuses_duplicates or models.shadow is not None
            is_kept = stream.features.in_query and is_read_again
            try:
                with kept(frame) if is_kept else nullcontext():
                    outcome = self._scored_whatever_the_shadow_does(frame, plan, models, tables)
            except DataError:
                # What is mended before the next try may be a joined table.
                stream.checkpoint.forget_tables(number)
                raise
            outcome.check_books()
        else:
            outcome = Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
            if stream.features.in_query:
                read_through(frame)  # Spark's state of the batch is made by reading its rows.
        outcome = self._published(outcome, number)
        is_replay = outcome.status is OutcomeStatus.ALREADY_SCORED
        self.stream.models.batch(models.batch_models, outcome)
        self.record.measured(self.drift.batch(models.champion.plan.model.digest, outcome))
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

    def _scored_whatever_the_shadow_does(
        self,
        frame: DataFrame,
        plan: ScoringPlan,
        models: ServedModels,
        tables: tuple[PinnedJoin, ...],
    ) -> Outcome:
        """Score a batch; where a worker ends, once more without the shadow: it may be its fault."""
        try:
            return self._scored(frame, plan, models, tables)
        except (WorkerCrashError, BatchDeadlineError, ModelTooLargeError) as exc:
            if models.shadow is None:
                raise
            failure = str(exc)
            self.stream.models.put_off_shadow(models.shadow, failure)
        alone = replace(models, shadow=None)
        plan = replace(alone.plan, identity=plan.identity)
        return replace(self._scored(frame, plan, alone, tables), shadow_failure=failure)

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


def _started_run(stream: OpenedStream) -> ActiveRun:
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
            **trial_params(job, stream.models.current),
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


def _publisher(stream: OpenedStream, record: StreamRecord, announce: Announce) -> Publisher:
    def wait(reason: OutletAwayError | None) -> None:
        record.waits("outlet", reason)
        announce("publishing goes on" if reason is None else f"publishing waits: {reason}")

    patience = Patience(stream.job.stream.publish_retry_s)
    return Publisher(stream.outlets, stream.checkpoint, patience, wait)


def _pages(record: StreamRecord, job: JobSettings, announce: Announce) -> StreamPages | None:
    if job.stream.metrics_port is None:
        return None
    pages = StreamPages(record, job.stream.metrics_port, job.stream.metrics_host)
    announce(f"Telling /metrics and /healthz of {job.stream.metrics_host} at port {pages.port}")
    return pages


def _result(
    stream: OpenedStream, record: StreamRecord, run: ActiveRun, started: dt.datetime
) -> JobResult:
    totals, table = record.totals, stream.source.table
    message = (
        f"scored {totals.n_scored} rows in {totals.n_batches} batches, the last at table version "
        f"{totals.table_version}; {totals.n_rejected} rejected, {totals.n_nulled} without a "
        "prediction"
        if totals.has_rows
        else "no row had come"
    )
    return JobResult(
        status="succeeded" if totals.has_rows else "skipped",
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
            "version": totals.table_version if totals.n_batches else None,
            "rows": totals.n_scored,
            "rejected": totals.n_rejected,
            "nulled": totals.n_nulled,
            "rejects": stream.first.plan.request.rejects_uri,
            "published_to": [outlet.name for outlet in stream.outlets],
        },
        metrics=totals.as_metrics() | totals.latest,
    )
