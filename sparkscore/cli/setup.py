"""`sparkscore setup`: everything that a Spark session needs, brought here once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show_record
from sparkscore.spark.class_archive import make_class_archive
from sparkscore.spark.jars import KAFKA, JarSource, keep_jars, resolve_jars
from sparkscore.spark.java import Java, find_java


@click.command()
@click.option(
    "--jars-folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Copy Delta's jars from this folder; nothing is fetched, no network is needed.",
)
@click.option(
    "--class-archive/--no-class-archive",
    default=True,
    show_default=True,
    help="Archive Spark's classes, so that every JVM starts faster: takes a minute and 200 MB.",
)
@click.option(
    "--kafka", is_flag=True, help="Fetch the jars by which streams read topics of Kafka as well."
)
@output_option
def command(jars_folder: Path | None, output: Output, *, class_archive: bool, kafka: bool) -> None:
    """Find a Java and fetch Delta's jars; after this, sessions start fast and without a network."""
    workspace = open_workspace()
    source = workspace.jar_source
    java = find_java(source.cache, os.environ)
    note(f"Java {java.version} from {java.origin}: {java.home}")
    if jars_folder is not None:
        jars = keep_jars(source, jars_folder)
    else:
        jars = resolve_jars(source, java, os.environ, note)
    folder = replace(source, folder=jars_folder or source.folder)
    of_kafka = resolve_jars(folder, java, os.environ, note, bundle=KAFKA) if kafka else ()
    archive = _archive(java, source) if class_archive else None
    record = {
        "java_home": str(java.home),
        "java_version": java.version,
        "java_origin": java.origin,
        "jars_folder": str(jars[0].parent),
        "jars": [jar.name for jar in jars],
        "kafka_jars": [jar.name for jar in of_kafka],
        "class_archive": str(archive) if archive else None,
    }
    show_record(record, output)


def _archive(java: Java, source: JarSource) -> Path | None:
    note("Archiving Spark's classes, in about a minute")
    archive = make_class_archive(java, source, os.environ)
    if archive is None:
        note("Spark's classes could not be archived; sessions work, and start slower")
    return archive
