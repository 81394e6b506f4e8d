"""What Spark's launchers are told: which Java, Spark and Python to start, with which classes."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from sparkscore.spark.java import Java, spark_home

LAUNCH_OPTIONS = "SPARK_SUBMIT_OPTS"
"""Variable whose words Spark's launcher gives to every driver's JVM before its own."""

ARCHIVE_OPTION = "-XX:SharedArchiveFile="
# Without it, a JVM that finds the archive unfit says so on stdout, where a job's result goes.
_SILENT = "-Xlog:cds*=off"
_EXPORTED = (
    "JAVA_HOME",
    "SPARK_HOME",
    "PYSPARK_PYTHON",
    "PYSPARK_DRIVER_PYTHON",
    LAUNCH_OPTIONS,
)


def prepare_environment(java: Java, environ: MutableMapping[str, str], cache: Path) -> None:
    """Tell Spark's launchers which Java, Spark and Python to start; starts nothing itself.

    Sets JAVA_HOME and SPARK_HOME, and PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON where they are
    not set: workers must run the driver's Python unless somebody chose another. Where `sparkscore
    setup` has archived Spark's classes, SPARK_SUBMIT_OPTS names the archive too.

    Args:
        java: What `find_java` found.
        environ: Is changed; usually `os.environ`.
        cache: Folder of sparkscore's own files.

    Raises:
        MissingExtraError: PySpark is not installed.
    """
    environ["JAVA_HOME"] = str(java.home)
    environ["SPARK_HOME"] = str(spark_home())
    environ.setdefault("PYSPARK_PYTHON", sys.executable)
    environ.setdefault("PYSPARK_DRIVER_PYTHON", environ["PYSPARK_PYTHON"])
    archives = archive_files(java, cache)
    given = environ.get(LAUNCH_OPTIONS, "")
    if all(file.is_file() for file in archives) and ARCHIVE_OPTION not in given:
        environ[LAUNCH_OPTIONS] = f"{given} {archive_option(*archives)}".strip()


def export_line(java: Java, environ: Mapping[str, str], cache: Path) -> str:
    """The line that gives a POSIX shell what `prepare_environment` sets, and `spark-submit`.

    Raises:
        MissingExtraError: PySpark is not installed.
    """
    prepared = dict(environ)
    prepare_environment(java, prepared, cache)
    words = [f"{name}={shlex.quote(prepared[name])}" for name in _EXPORTED if name in prepared]
    return f'export {" ".join(words)} PATH={shlex.quote(str(spark_home() / "bin"))}:"$PATH"'


def archive_files(java: Java, cache: Path) -> tuple[Path, ...]:
    """Where the archives of this Java's and Spark's classes lie, or would lie.

    One of Spark's classes, and before it one of Java's own where the Java came without.
    """
    jars = spark_home() / "jars"
    # An archive fits the very files that were there when it was made.
    facts = (str(java.home), str(java.version), str(jars), str(jars.stat().st_mtime_ns))
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    own = (java.home / "lib" / "server" / "classes.jsa").is_file()
    names = [f"spark-{digest}.jsa"] if own else [f"java-{digest}.jsa", f"spark-{digest}.jsa"]
    return tuple(cache / "classes" / name for name in names)


def archive_option(*archives: Path) -> str:
    """The words that let a JVM map classes from `archives`, or do without if they do not fit."""
    return f"{ARCHIVE_OPTION}{':'.join(map(str, archives))} {_SILENT}"
