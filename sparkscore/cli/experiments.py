"""`sparkscore experiments`: the experiments that runs belong to."""

from __future__ import annotations

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show, utc


@click.group()
def command() -> None:
    """Experiments of the tracking store."""


@command.command("list")
@output_option
def list_experiments(output: Output) -> None:
    """Active experiments, newest first."""
    rows = [
        {
            "experiment_id": experiment.experiment_id,
            "name": experiment.name,
            "created": utc(experiment.creation_time_ms),
            "artifact_location": experiment.artifact_location,
        }
        for experiment in open_workspace().runs.list_experiments()
    ]
    show(rows, ("experiment_id", "name", "created", "artifact_location"), output)
