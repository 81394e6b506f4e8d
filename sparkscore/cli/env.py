"""`sparkscore env`: what a shell must know before it calls `spark-submit`."""

from __future__ import annotations

import os

import click

from sparkscore.cli.context import open_workspace
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import export_line


@click.command()
def command() -> None:
    """Print an export line for a POSIX shell: eval "$(sparkscore env)"."""
    cache = open_workspace().jar_source.cache
    click.echo(export_line(find_java(cache, os.environ), os.environ, cache))
