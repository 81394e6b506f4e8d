"""`sparkscore runs`: what was run, and what each run recorded."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, seconds_between, show, show_record, utc
from sparkscore.errors import RecordNotFoundError, nearest, shown
from sparkscore.names import ArtifactPath, parse_experiment_name, parse_run_id
from sparkscore.records import Run
from sparkscore.stores.base import ArtifactStore, RunStore

_COLUMNS = ("run_id", "run_name", "experiment", "status", "started", "duration_s")


@click.group()
def command() -> None:
    """Runs of the tracking store."""


@command.command("list")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@output_option
def list_runs(experiment: str | None, limit: int, output: Output) -> None:
    """Active runs, newest start first."""
    store = open_workspace().runs
    ids = () if experiment is None else (_experiment_id(store, experiment),)
    names: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    for run in store.list_runs(experiment_ids=ids, limit=limit):
        if run.experiment_id not in names:
            names[run.experiment_id] = store.get_experiment(run.experiment_id).name
        rows.append(_row(run, names[run.experiment_id]))
    show(rows, _COLUMNS, output)


@command.command("show")
@click.argument("run")
@output_option
def show_run(run: str, output: Output) -> None:
    """One run with its params, latest metrics, tags and artifacts."""
    workspace = open_workspace()
    found = workspace.runs.get_run(parse_run_id(run))
    experiment = workspace.runs.get_experiment(found.experiment_id).name
    artifacts = workspace.artifacts_at(found.artifact_uri)
    record = _row(found, experiment) | {
        "ended": utc(found.end_time_ms),
        "user": found.user_id,
        "stage": found.lifecycle_stage.value,
        "artifact_uri": found.artifact_uri,
        "params": dict(sorted(found.params.items())),
        "metrics": {key: found.metrics[key].value for key in sorted(found.metrics)},
        "tags": dict(sorted(found.tags.items())),
        "artifacts": list(_files(artifacts, ArtifactPath(""))),
    }
    show_record(record, output)


def _row(run: Run, experiment: str) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "experiment": experiment,
        "status": run.status.value,
        "started": utc(run.start_time_ms),
        "duration_s": seconds_between(run.start_time_ms, run.end_time_ms),
    }


def _experiment_id(store: RunStore, name: str) -> str:
    experiment = store.find_experiment(parse_experiment_name(name))
    if experiment is None:
        known = [experiment.name for experiment in store.list_experiments()]
        raise RecordNotFoundError(
            f"there is no experiment {shown(name)}{nearest(name, known)}; "
            "`sparkscore experiments list` shows them"
        )
    return experiment.experiment_id


def _files(store: ArtifactStore, folder: ArtifactPath) -> Iterator[str]:
    for item in store.list(folder):
        if item.is_folder:
            yield from _files(store, ArtifactPath(item.path))
        else:
            yield item.path
