"""`sparkscore env`: what a shell must know before it calls `spark-submit`."""

from __future__ import annotations

import os
import shlex

import click

from sparkscore.cli.context import open_workspace
from sparkscore.spark.java import find_java, prepare_environment, spark_home

_NAMES = ("JAVA_HOME", "SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


@click.command()
def command() -> None:
    """Print an export line for a POSIX shell: eval "$(sparkscore env)"."""
    environ = dict(os.environ)
    java = find_java(open_workspace().jar_source.cache, environ)
    prepare_environment(java, environ)
    words = [f"{name}={shlex.quote(environ[name])}" for name in _NAMES]
    click.echo(f'export {" ".join(words)} PATH={shlex.quote(str(spark_home() / "bin"))}:"$PATH"')
