"""Archives the classes of Spark and Delta; a JVM then maps them instead of reading each again.

Java calls this class data sharing. It changes nothing but the time that a JVM takes to start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sparkscore.spark.jars import JarSource
from sparkscore.spark.java import Java, spark_home
from sparkscore.spark.launch import (
    ARCHIVE_OPTION,
    LAUNCH_OPTIONS,
    archive_files,
    archive_option,
    prepare_environment,
)

_LIMIT_S = 600
# Quick code is not wanted of a JVM that only shows which classes there are.
_RECORDING = "-XX:TieredStopAtLevel=1 -Xlog:cds*=off -XX:ArchiveClassesAtExit="


def make_class_archive(java: Java, source: JarSource, environ: Mapping[str, str]) -> Path | None:
    """Archive the classes that a small job loads, unless that was done before.

    Args:
        java: The Java that will run Spark.
        source: Where Delta's jars are; the archive is kept in its cache.
        environ: The environment of the small job, usually `os.environ`.

    Returns:
        The archive, or None where this Java cannot make one or the folder cannot be written.

    Raises:
        MissingExtraError: PySpark is not installed.
    """
    *bases, archive = archive_files(java, source.cache)
    if archive.is_file():
        return archive
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".draft-") as scratch:
            for base in bases:
                draft = Path(scratch) / base.name
                _run([str(java.executable), "-Xshare:dump", f"{ARCHIVE_OPTION}{draft}"], environ)
                draft.rename(base)
            draft = Path(scratch) / archive.name
            _record(java, source, bases, draft, environ)
            draft.rename(archive)
    except (OSError, subprocess.SubprocessError):
        return None
    return archive


def _record(
    java: Java, source: JarSource, bases: list[Path], draft: Path, environ: Mapping[str, str]
) -> None:
    own = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    prepared = {**environ, **own}
    prepare_environment(java, prepared, source.cache)
    on_base = archive_option(*bases) if bases else ""
    given = environ.get(LAUNCH_OPTIONS, "")
    prepared[LAUNCH_OPTIONS] = f"{given} {on_base} {_RECORDING}{draft}".strip()
    script = draft.with_name("job.py")
    script.write_text("from sparkscore.spark.warm_up import main\n\nmain()\n", encoding="utf-8")
    places = [str(source.cache), str(source.folder or ""), str(draft.with_name("table"))]
    # Submitted, the JVM is the process that is waited for, and may take its time to write.
    launcher = str(spark_home() / "bin" / "spark-submit")
    _run([launcher, "--master", "local[2]", str(script), *places], prepared)


def _run(command: list[str], environ: Mapping[str, str]) -> None:
    subprocess.run(  # noqa: S603 - programs of the Java and the Spark that were found
        command, env=dict(environ), capture_output=True, check=True, timeout=_LIMIT_S
    )
