"""`sparkscore env`: what a shell must know, and the environments that packages ask for."""

from __future__ import annotations

import os

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record
from sparkscore.errors import EnvironmentMismatchError
from sparkscore.package import open_package
from sparkscore.package.environment import Mismatch, check_environment
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import export_line


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Print an export line for a POSIX shell: eval "$(sparkscore env)"; look after environments."""
    if context.invoked_subcommand is None:
        cache = open_workspace().jar_source.cache
        click.echo(export_line(find_java(cache, os.environ), os.environ, cache))


@command.command("check")
@click.argument("model")
@click.option("--spark", is_flag=True, help="Ask the workers of the Spark session as well.")
@output_option
def check(model: str, *, spark: bool, output: Output) -> None:
    """Compare what MODEL asks for with this interpreter; exit code 4 where it differs."""
    workspace = open_workspace()
    try:
        facts = workspace.model(model)
        found = check_environment(open_package(facts.folder))
        rows = [_row("here", mismatch) for mismatch in found]
        if spark:
            found = workspace.environment_mismatches([facts])
            rows += [_row("worker", mismatch) for mismatch in found]
    finally:
        workspace.close()
    show(rows, ("where", "name", "needed", "found"), output)
    if rows:
        raise EnvironmentMismatchError(
            f"model {facts.label} was made with other libraries; install those, or score in an "
            "environment of its own (--env-manager virtualenv)"
        )
    note(f"model {facts.label} finds all that it asks for")


@command.command("build")
@click.argument("model")
@output_option
def build(model: str, output: Output) -> None:
    """Make the environment that MODEL asks for; one that is there is taken again."""
    workspace = open_workspace()
    built = workspace.environment(workspace.model(model))
    show_record(
        {"key": built.key, "folder": str(built.folder), "python": str(built.python)}, output
    )


def _row(where: str, mismatch: Mismatch) -> dict[str, object]:
    found = mismatch.found if mismatch.is_checked else "not checked"
    return {
        "where": where,
        "name": mismatch.name,
        "needed": mismatch.needed,
        "found": found or "not installed",
    }
