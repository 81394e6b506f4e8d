"""`sparkscore config`: the settings in force."""

from __future__ import annotations

from dataclasses import asdict

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show


@click.group()
def command() -> None:
    """Settings in force, and where each came from."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Also where each value came from.")
@output_option
def show_settings(origin: bool, output: Output) -> None:
    """Every setting in force; passwords are masked."""
    rows = [asdict(line) for line in open_workspace().resolved.described()]
    columns = ("key", "value", "origin") if origin else ("key", "value")
    show(rows, columns, output)
