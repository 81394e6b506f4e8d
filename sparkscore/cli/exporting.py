"""`sparkscore export`: experiments, runs and models to a server of MLflow's, or of ours."""

from __future__ import annotations

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.moved import LEFT_OUT, show_tally
from sparkscore.cli.output import Output, output_option
from sparkscore.cli.records import found_experiment
from sparkscore.errors import UsageError, shown
from sparkscore.names import parse_model_name


@click.command()
@click.option(
    "--to", "server", metavar="URL", required=True, help="The server, such as http://HOST:PORT."
)
@click.option(
    "--experiment",
    "experiments",
    metavar="NAME",
    multiple=True,
    help="Only this experiment; may be given again.",
)
@click.option(
    "--model",
    "models",
    metavar="NAME",
    multiple=True,
    help="Only this registered model, with the runs of its versions; may be given again.",
)
@output_option
def command(
    server: str, experiments: tuple[str, ...], models: tuple[str, ...], output: Output
) -> int:
    """Copy what is active here to a server, with all files; run again, it goes on where it was.

    Without --experiment and --model it is everything. The exit code is 3 if something did not go
    over; the table says what.
    """
    from sparkscore.moving.exporting import NO_LOGGED_MODELS, RunExporter, every
    from sparkscore.moving.exporting_models import OTHER_NUMBER, ModelExporter
    from sparkscore.moving.tally import Tally

    if not server.startswith(("http://", "https://")):
        raise UsageError(f"--to {shown(server)} is no server: give http://HOST:PORT")
    ours = open_workspace()
    theirs = open_workspace({"tracking.uri": server, "registry.uri": server})
    is_all = not experiments and not models
    tally = Tally()
    runs = RunExporter(ours, theirs, tally)
    for experiment in (
        every(ours.runs.search_experiments)
        if is_all
        else [found_experiment(ours.runs, name) for name in experiments]
    ):
        runs.export_experiment(experiment)
    for model in (
        every(ours.models.search_models)
        if is_all
        else [ours.models.get_model(parse_model_name(name)) for name in models]
    ):
        ModelExporter(ours, theirs, runs, tally).export(model)
    show_tally(tally, output)
    return 0 if tally.is_whole([NO_LOGGED_MODELS, OTHER_NUMBER]) else LEFT_OUT
