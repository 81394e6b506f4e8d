"""`sparkscore score`: run a job over a table or a stream, or show its plan."""

from __future__ import annotations

import datetime as dt
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparkscore.batch_job import run_batch_job
from sparkscore.cli.context import is_debug, note, noted_by_any_thread, open_workspace
from sparkscore.cli.job_options import (
    job_keys,
    job_options,
    stream_options,
    without_batch_options,
)
from sparkscore.cli.output import Output, output_option, show, show_record
from sparkscore.cli.scoring_options import (
    code_options,
    scoring_settings,
)
from sparkscore.errors import (
    ConfigError,
    InternalError,
    SparkscoreError,
    TemporaryError,
    is_interrupt,
)
from sparkscore.job_planning import prepare, runtime_facts
from sparkscore.job_record import plan_facts
from sparkscore.job_result import JobResult, error_facts
from sparkscore.next_steps import NEXT_STEPS
from sparkscore.replaying import ReplayRequest, list_rejects, replay_run
from sparkscore.stream_job import run_stream_job
from sparkscore.tracking import run_of
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.conf import JobSettings

_INTERRUPTED = 130
_HOUR_S = 3600

_result_option = click.option(
    "--result-file", type=click.Path(path_type=Path), help="Also write the result to this file."
)
_skip_option = click.option(
    "--skip-code", type=int, default=0, help="Exit code where nothing was left to do (Airflow: 99)."
)


@click.group()
def command() -> None:
    """Score tables and streams with packaged models."""


@command.command()
@job_options
@_result_option
@_skip_option
def batch(
    *,
    job: Path | None,
    run_key: str | None,
    result_file: Path | None,
    skip_code: int,
    **flags: object,
) -> int:
    """Score rows of a table into a Delta table, once per run key, on record.

    The last line on stdout is the result as one JSON object.
    """
    result = _job_attempt(
        job, run_key, flags, lambda opened, values: run_batch_job(opened, values, run_key, note)
    )
    return _told(_skipped(result, skip_code), result_file)


@command.command()
@click.option("--run", "run_id", help="The run whose rejected rows are scored.")
@click.option("--run-key", help="Its run key, in the place of its id; with --rejects.")
@click.option("--rejects", metavar="URI", help="Their table. Default: as the run's record says.")
@click.option("--model", help="Another version. Default: the one that could not score them.")
@click.option(
    "--max-rejects", metavar="N|P%", help="Rows that may stay without a prediction again."
)
@code_options
@_result_option
@_skip_option
def replay(
    *,
    run_id: str | None,
    run_key: str | None,
    rejects: str | None,
    model: str | None,
    max_rejects: str | None,
    result_file: Path | None,
    skip_code: int,
    **flags: object,
) -> int:
    """Score the rejected rows of a run again, into the same table and once.

    Rows that get no prediction this time either are rejected rows of the new run. The last line on
    stdout is the result as one JSON object.
    """
    settings = scoring_settings(flags)
    if max_rejects is not None:
        settings["scoring.max_rejects"] = max_rejects
    request = ReplayRequest(run_id, run_key, rejects, model)
    result = _attempt(lambda ws: replay_run(ws, request, note), settings, "replay", run_key)
    return _told(_skipped(result, skip_code), result_file)


@command.command()
@click.argument("uri")
@output_option
def rejects(uri: str, *, output: Output) -> None:
    """List the runs that have rows in the rejects table URI, and what became of these.

    open: to be replayed; replayed: by the run that is named; not committed: the run has no
    scores, and the next attempt of its job removes these rows.
    """
    workspace = open_workspace({})
    try:
        rows = [asdict(one) for one in list_rejects(workspace, uri)]
    finally:
        workspace.close()
    show(rows, ("run_id", "job", "run_key", "n_rows", "state", "replay_run_id"), output)


def _skipped(result: JobResult, skip_code: int) -> JobResult:
    return replace(result, code=skip_code) if result.status == "skipped" else result


def _told(result: JobResult, result_file: Path | None) -> int:
    """Give the result to whoever waits for it, and return the exit code."""
    if result_file is not None:
        result.write(result_file)  # First: when spark-submit's JVM is gone, so are our streams.
    if result.error is not None:
        click.echo(f"error [{result.error['code']}]: {result.message}", err=True)
        click.echo(f"next: {result.error['next_step']}", err=True)
    # Under spark-submit stderr and stdout are one stream, and the result must be its last line.
    sys.stderr.flush()
    click.echo(result.to_json())
    return result.code


@without_batch_options
@command.command()
@job_options
@stream_options
@click.option(
    "--start-over",
    is_flag=True,
    help="Begin with an empty checkpoint, though the target knows an earlier stream of the job.",
)
@click.option(
    "--moved-checkpoint", is_flag=True, help="The checkpoint was moved here, and not copied."
)
@_result_option
def stream(
    *,
    job: Path | None,
    run_key: str | None,
    result_file: Path | None,
    start_over: bool,
    moved_checkpoint: bool,
    **flags: object,
) -> int:
    """Score the rows that come to a source, each once, until they end or a signal comes.

    The same plan, worker and table as `score batch`; each micro-batch is one commit. The last line
    on stdout is the result as one JSON object.
    """
    announce = noted_by_any_thread()

    def run(workspace: Workspace, settings: JobSettings) -> JobResult:
        return run_stream_job(
            workspace, settings, announce, start_over=start_over, has_moved=moved_checkpoint
        )

    if run_key is not None:
        raise ConfigError("a stream names its batches itself; leave --run-key out")
    if job is None and flags["name"] is None:
        flags["name"] = "score-stream"
    return _told(_job_attempt(job, None, flags, run), result_file)


@command.command()
@job_options
@output_option
def plan(*, job: Path | None, run_key: str | None, output: Output, **flags: object) -> None:
    """Show what a job would do, and how model and table differ; no row is scored."""
    workspace = open_workspace(scoring_settings(flags))
    try:
        resolved = workspace.job(job, job_keys(flags), run_key=run_key)
        prepared = prepare(workspace, resolved.values, run_key, note)
        facts = plan_facts(prepared) | {"runtime": runtime_facts(prepared)}
    finally:
        workspace.close()
    if output is Output.TABLE:
        _show_plan(facts)
    else:
        show_record(facts, output)


@command.command()
@click.argument("target")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Younger files may belong to a job that still runs.",
)
@click.option("--remove", is_flag=True, help="Remove them; otherwise they are only listed.")
@output_option
def clean(target: str, *, older_than: float, remove: bool, output: Output) -> None:
    """List files that killed jobs left in the folder of a score table, or remove them.

    They are in no commit, and no reader sees them. The same command as the killed job's would go
    on with those of its run; they are as old as the last sign of life of the run. VACUUM would
    remove the data files as well. TARGET is a path, or a URI such as s3a://BUCKET/FOLDER.
    """
    from sparkscore.files.filesystem import below
    from sparkscore.files.leftovers import leftovers, remove_leftovers

    root = open_workspace({}).table_path(target)
    found = [each for each in leftovers(root) if each.age_s >= older_than * _HOUR_S]
    removed = remove_leftovers(root, found) if remove else []
    rows = [
        {
            "file": below(root.resolve() if isinstance(root, Path) else root, each.path),
            "bytes": each.n_bytes,
            "hours": round(each.age_s / _HOUR_S, 2),
            "run": each.run or "",
            "status": "removed" if each in removed else "left",
        }
        for each in found
    ]
    show(rows, ("file", "bytes", "hours", "run", "status"), output)


def _job_attempt(
    job: Path | None,
    run_key: str | None,
    flags: Mapping[str, object],
    run: Callable[[Workspace, JobSettings], JobResult],
) -> JobResult:
    """The result of a job that flags describe, whatever happens on the way."""

    def attempt(workspace: Workspace) -> JobResult:
        resolved = workspace.job(job, job_keys(flags), run_key=run_key)
        return run(workspace, resolved.values)

    name = str(flags["name"] or (job.stem if job else "score-batch"))
    return _attempt(attempt, scoring_settings(flags), name, run_key)


def _attempt(
    run: Callable[[Workspace], JobResult],
    settings: Mapping[str, object],
    name: str,
    run_key: str | None,
) -> JobResult:
    """The job's result, whatever happens on the way."""
    started = dt.datetime.now(dt.UTC).isoformat()
    workspace: Workspace | None = None
    try:
        workspace = open_workspace(settings)
        return run(workspace)
    except BaseException as exc:  # noqa: BLE001 - an orchestrator needs a result whatever was raised
        ended = _ended_driver(exc, name) or exc
        return _failed(ended, _exit_code(ended), name, run_key, started)
    finally:
        if workspace is not None:
            workspace.close()


def _ended_driver(exc: BaseException, name: str) -> SparkscoreError | None:
    """The error of a job whose driver's JVM has gone, as Spark's own signal leaves it."""
    if isinstance(exc, SparkscoreError) or is_interrupt(exc) or "py4j" not in sys.modules:
        return None
    from sparkscore.spark.failures import of_ended_driver

    ended = of_ended_driver(exc, f"job {name!r}")
    if ended is not None:
        ended.__cause__ = exc
    return ended


def _exit_code(exc: BaseException) -> int:
    if isinstance(exc, SystemExit):
        return int(exc.code or 0)
    if is_interrupt(exc):
        return _INTERRUPTED
    return exc.exit_code if isinstance(exc, SparkscoreError) else InternalError.exit_code


def _failed(
    exc: BaseException, code: int, name: str, run_key: str | None, started: str
) -> JobResult:
    facts = error_facts(exc)
    if isinstance(exc, SystemExit) or is_interrupt(exc):
        facts |= {
            "code": "INTERRUPTED",
            "message": "stopped by a signal",
            "retryable": True,
            "next_step": NEXT_STEPS[TemporaryError.code],
        }
    if is_debug():
        traceback.print_exception(exc)
    return JobResult(
        status="failed",
        code=code,
        message=str(facts["message"]),
        job=name,
        started=started,
        ended=dt.datetime.now(dt.UTC).isoformat(),
        run_id=run_of(exc),
        batch_id=run_key,
        error=facts,
    )


def _show_plan(facts: Mapping[str, Any]) -> None:
    keys = ("model", "source", "target", "engine", "runtime", "run_key", "predict", "params")
    record = {k: facts[k] for k in keys if facts[k] or k not in ("predict", "params")}
    show_record(record, Output.TABLE)
    click.echo()
    if facts["panel"]:
        show(facts["panel"]["models"], ("label", "role", "name", "version", "digest"), Output.TABLE)
        click.echo()
    show(facts["columns"], ("model", "source", "type", "cast"), Output.TABLE)
    click.echo()
    show(facts["differences"], ("kind", "column", "detail"), Output.TABLE)
