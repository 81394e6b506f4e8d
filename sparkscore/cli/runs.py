"""`sparkscore runs`: what was run, what each run recorded, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record, utc
from sparkscore.cli.records import found_experiment, run_row, search_options
from sparkscore.names import ArtifactPath, parse_run_id
from sparkscore.records import Run
from sparkscore.search import Query, View
from sparkscore.stores.base import ArtifactStore, RunStore

_COLUMNS = ("run_id", "run_name", "experiment", "status", "started", "duration_s")
_DIFFERENCE_COLUMNS = ("field", "a", "b", "change")
_MAX_EXPERIMENTS = 50_000


@click.group()
def command() -> None:
    """Runs of the tracking store."""


@command.command("list")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@search_options
@output_option
def list_runs(
    experiment: str | None,
    where: str | None,
    order_by: tuple[str, ...],
    limit: int,
    view: View,
    output: Output,
) -> None:
    """Runs, newest start first."""
    from sparkscore.client import SparkscoreClient

    workspace = open_workspace()
    store = workspace.runs
    ids = (
        _all_experiment_ids(store)
        if experiment is None
        else [found_experiment(store, experiment).experiment_id]
    )
    client = SparkscoreClient(workspace=workspace)
    names: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    for run in client.search_runs(ids, where or "", view, limit, order_by):
        if run.experiment_id not in names:
            names[run.experiment_id] = store.get_experiment(run.experiment_id).name
        rows.append(run_row(run, names[run.experiment_id]))
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
    record = run_row(found, experiment) | {
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


@command.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--all", "is_all", is_flag=True, help="Also what is the same in both.")
@output_option
def compare_runs(a: str, b: str, *, is_all: bool, output: Output) -> None:
    """What differs between runs A and B: params, latest metrics with their change, tags, status."""
    store = open_workspace().runs
    left, right = (_fields(store.get_run(parse_run_id(run))) for run in (a, b))
    names = sorted(left.keys() | right.keys(), key=_place)
    rows = [
        _difference(name, left.get(name), right.get(name))
        for name in names
        if is_all or not _is_same(left.get(name), right.get(name))
    ]
    show(rows, _DIFFERENCE_COLUMNS, output)
    if not rows:
        note(f"runs {a} and {b} do not differ")


@command.command("delete")
@click.argument("run")
def delete_run(run: str) -> None:
    """Mark RUN as deleted; `restore` takes it back."""
    open_workspace().runs.delete_run(parse_run_id(run))
    note(f"run {run} is deleted; `sparkscore runs restore` takes it back")


@command.command("restore")
@click.argument("run")
def restore_run(run: str) -> None:
    """Make a deleted RUN active again."""
    open_workspace().runs.restore_run(parse_run_id(run))
    note(f"run {run} is active")


def _all_experiment_ids(store: RunStore) -> list[str]:
    query = Query(view=View.ALL, limit=_MAX_EXPERIMENTS)
    return [found.experiment_id for found in store.search_experiments(query).items]


def _fields(run: Run) -> dict[str, object]:
    fields: dict[str, object] = {"status": run.status.value}
    if run.end_time_ms is not None:
        fields["duration_s"] = (run.end_time_ms - run.start_time_ms) / 1000
    fields |= {f"params.{key}": value for key, value in run.params.items()}
    fields |= {f"metrics.{key}": point.value for key, point in run.metrics.items()}
    for used in run.datasets:
        fields[f"datasets.{used.dataset.name}"] = used.dataset.digest
    return fields | {f"tags.{key}": value for key, value in run.tags.items()}


def _place(name: str) -> tuple[int, str]:
    kinds = ("params.", "metrics.", "datasets.", "tags.")
    return next((n for n, kind in enumerate(kinds, 1) if name.startswith(kind)), 0), name


def _is_same(a: object, b: object) -> bool:
    return a == b or repr(a) == repr(b)  # NaN is what it was


def _difference(name: str, a: object, b: object) -> dict[str, object]:
    """Both values, and how much larger B's is where they are numbers."""
    change = b - a if isinstance(a, float) and isinstance(b, float) else None
    return {"field": name, "a": a, "b": b, "change": change}


def _files(store: ArtifactStore, folder: ArtifactPath) -> Iterator[str]:
    for item in store.list(folder):
        if item.is_folder:
            yield from _files(store, ArtifactPath(item.path))
        else:
            yield item.path
