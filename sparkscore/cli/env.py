"""`sparkscore env`: what a shell must know before it calls `spark-submit`."""

from __future__ import annotations

import os

import click

from sparkscore.cli.context import open_workspace
from sparkscore.spark.java import export_line, find_java


@click.command()
def command() -> None:
    """Print an export line for a POSIX shell: eval "$(sparkscore env)"."""
    java = find_java(open_workspace().jar_source.cache, os.environ)
    click.echo(export_line(java, os.environ))
