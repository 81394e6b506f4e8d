"""`sparkscore setup`: everything that a Spark session needs, brought here once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show_record
from sparkscore.spark.jars import keep_jars, resolve_jars
from sparkscore.spark.java import find_java


@click.command()
@click.option(
    "--jars-folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Copy Delta's jars from this folder; nothing is fetched, no network is needed.",
)
@output_option
def command(jars_folder: Path | None, output: Output) -> None:
    """Find a Java and fetch Delta's jars; after this, sessions start without a network."""
    workspace = open_workspace()
    source = workspace.jar_source
    java = find_java(source.cache, os.environ)
    note(f"Java {java.version} from {java.origin}: {java.home}")
    if jars_folder is not None:
        jars = keep_jars(source, jars_folder)
    else:
        jars = resolve_jars(source, java, os.environ, note)
    record = {
        "java_home": str(java.home),
        "java_version": java.version,
        "java_origin": java.origin,
        "jars_folder": str(jars[0].parent),
        "jars": [jar.name for jar in jars],
    }
    show_record(record, output)
