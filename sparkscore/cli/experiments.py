"""`sparkscore experiments`: the experiments that runs belong to.

An experiment is given by its name, or by its id where no experiment has such a name.
"""

from __future__ import annotations

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record, utc
from sparkscore.cli.records import (
    experiment_row,
    found_experiment,
    search_options,
    tag_pairs,
)
from sparkscore.names import parse_experiment_name
from sparkscore.records import Run
from sparkscore.search import View

_COLUMNS = ("experiment_id", "name", "created", "artifact_location")
_ALL = 1_000_000
_FURTHER = ("params.", "metrics.", "tags.")
_RUN_COLUMNS = ("run_id", "run_name", "status", "start_time", "end_time", "user", "artifact_uri")


@click.group()
def command() -> None:
    """Experiments of the tracking store."""


@command.command("list")
@search_options
@output_option
def list_experiments(
    where: str | None, order_by: tuple[str, ...], limit: int, view: View, output: Output
) -> None:
    """Experiments, newest first; --filter as in "name LIKE 'churn%'"."""
    from sparkscore.client import SparkscoreClient

    client = SparkscoreClient(workspace=open_workspace())
    found = client.search_experiments(view, limit, where, order_by)
    show([experiment_row(experiment) for experiment in found], _COLUMNS, output)


command.add_command(list_experiments, "search")


@command.command("get")
@click.argument("experiment")
@output_option
def get_experiment(experiment: str, output: Output) -> None:
    """One experiment with its tags."""
    found = found_experiment(open_workspace().runs, experiment)
    more = {
        "updated": utc(found.last_update_time_ms),
        "stage": found.lifecycle_stage.value,
        "tags": dict(sorted(found.tags.items())),
    }
    show_record(experiment_row(found) | more, output)


@command.command("create")
@click.argument("name")
@click.option("--artifact-location", metavar="URI", help="Where its runs keep files.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="May be given again.")
@output_option
def create_experiment(
    name: str, artifact_location: str | None, tag: tuple[str, ...], output: Output
) -> None:
    """A new experiment."""
    runs = open_workspace().runs
    created = runs.create_experiment(parse_experiment_name(name), artifact_location, tag_pairs(tag))
    show_record(experiment_row(created), output)


@command.command("rename")
@click.argument("experiment")
@click.argument("new_name")
def rename_experiment(experiment: str, new_name: str) -> None:
    """Give EXPERIMENT another name."""
    runs = open_workspace().runs
    found = found_experiment(runs, experiment)
    runs.rename_experiment(found.experiment_id, parse_experiment_name(new_name))
    note(f"experiment {found.experiment_id} is now {new_name!r}")


@command.command("delete")
@click.argument("experiment")
def delete_experiment(experiment: str) -> None:
    """Mark EXPERIMENT and its runs as deleted; `restore` takes it back."""
    runs = open_workspace().runs
    found = found_experiment(runs, experiment)
    runs.delete_experiment(found.experiment_id)
    note(f"experiment {found.name!r} is deleted; `sparkscore experiments restore` takes it back")


@command.command("restore")
@click.argument("experiment")
def restore_experiment(experiment: str) -> None:
    """Make a deleted EXPERIMENT active again, with the runs that were deleted with it."""
    runs = open_workspace().runs
    found = found_experiment(runs, experiment)
    runs.restore_experiment(found.experiment_id)
    note(f"experiment {found.name!r} is active")


@command.command("csv")
@click.argument("experiment")
def write_csv(experiment: str) -> None:
    """All runs of EXPERIMENT as CSV, with their params, latest metrics and tags."""
    runs = open_workspace().runs
    found = found_experiment(runs, experiment)
    rows = [
        _csv_row(run) for run in runs.list_runs(experiment_ids=[found.experiment_id], limit=_ALL)
    ]
    further = sorted({name for row in rows for name in row if name.startswith(_FURTHER)})
    columns = (*_RUN_COLUMNS, *further)
    show([{name: row.get(name) for name in columns} for row in rows], columns, Output.CSV)


def _csv_row(run: Run) -> dict[str, object]:
    row: dict[str, object] = {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "status": run.status.value,
        "start_time": utc(run.start_time_ms),
        "end_time": utc(run.end_time_ms),
        "user": run.user_id,
        "artifact_uri": run.artifact_uri,
    }
    row |= {f"params.{key}": value for key, value in run.params.items()}
    row |= {f"metrics.{key}": point.value for key, point in run.metrics.items()}
    return row | {f"tags.{key}": value for key, value in run.tags.items()}
