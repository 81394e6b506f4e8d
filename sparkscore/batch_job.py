"""The batch scoring job: plan, score, commit, record; the whole way in one place.

The commit comes before the record: a tracking store that is down must not lose finished scores.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import TYPE_CHECKING

from sparkscore.errors import SparkscoreError
from sparkscore.job_planning import Announce, prepare
from sparkscore.job_record import (
    APP_ID_TAG,
    close_interrupted,
    earlier_attempts,
    job_result_of,
    nothing_new_result,
    outcome_text,
    record_outcome,
    run_params,
)
from sparkscore.provenance import run_origin
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import Outcome, OutcomeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparkscore.conf import JobSettings
    from sparkscore.job_planning import PreparedJob
    from sparkscore.job_result import JobResult
    from sparkscore.workspace import Workspace


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
        return nothing_new_result(prepared, started)
    return run_prepared(workspace, prepared, started, announce, experiment=job.experiment)


def run_prepared(
    workspace: Workspace,
    prepared: PreparedJob,
    started: dt.datetime,
    announce: Announce,
    *,
    experiment: str | None = None,
    experiment_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> JobResult:
    """Score and commit what was planned, on record, unless that was done before.

    Args:
        workspace: What the settings name.
        prepared: The job.
        started: When it was begun.
        announce: Told each step in one line.
        experiment: Name of the run's experiment; None, and no id: that of the settings.
        experiment_id: In the place of a name.
        tags: Further ones of the run.

    Raises:
        SparkscoreError: Nothing was committed, unless it is a BooksError.
    """
    from sparkscore.spark.cancellation import ended_driver_told

    done = prepared.sink.find(prepared.plan.identity)
    if done is not None:
        prepared.engine.sweep(prepared.plan, done)
        with suppress(SparkscoreError, OSError):  # The scores are there; `score clean` comes later.
            prepared.sink.clear(prepared.plan.identity)
        outcome = Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=done)
        close_interrupted(workspace, outcome)
        return job_result_of(prepared, outcome, started, attempt=1)
    earlier = earlier_attempts(workspace, prepared.plan)
    own_tags = {
        APP_ID_TAG: prepared.plan.identity.app_id,
        "sparkscore.job": prepared.plan.request.job,
        "sparkscore.run_key": prepared.plan.identity.run_key,
        "sparkscore.spark_application_id": prepared.engine.application_id or "",
    }
    started_run = workspace.tracking.start_run(
        prepared.plan.request.job,
        experiment or workspace.settings.tracking.experiment,
        experiment_id=experiment_id
        or (None if experiment else workspace.settings.tracking.experiment_id),
        origin=run_origin(),
        tags=own_tags | dict(tags or {}),
    )
    with started_run as run:
        run.log_params(run_params(prepared, workspace))
        announce(f"Scoring into {prepared.sink.uri}")
        facts = RunFacts(run_id=run.run_id, scored_at=dt.datetime.now(dt.UTC))
        with ended_driver_told(prepared.engine.spark, f"job {prepared.plan.request.job!r}"):
            outcome = prepared.run(facts)
        record_outcome(run, prepared, outcome)
        outcome.check_books()
        if prepared.plan.panel is not None:
            prepared.plan.panel.check_books(outcome)
    workspace.outbox.replay()  # The store may be back since the run began.
    announce(outcome_text(outcome, prepared.plan))
    return job_result_of(prepared, outcome, started, attempt=len(earlier) + 1)
