"""What the demo leaves to its user: where everything lies, and the same job from a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from sparkscore.demo.play import NEXT_NIGHT
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import export_line

ENVIRONMENT_FILE = "env.sh"
_HEADER = "# Where spark-submit and sparkscore find Java, Spark and this demo's stores.\n"


def stores_in(folder: Path) -> dict[str, object]:
    """The settings that keep all records and files of a demo in its folder."""
    return {
        "tracking.uri": f"sqlite:///{folder / 'sparkscore.db'}",
        "tracking.outbox": str(folder / "outbox"),
        "registry.uri": None,
        "artifacts.uri": str(folder / "artifacts"),
    }


def write_environment_file(folder: Path, cache: Path) -> None:
    """Write the file that a shell reads before it calls `spark-submit` or `sparkscore`.

    Args:
        folder: The demo's folder, absolute.
        cache: Folder of Java's launcher and Delta's jars.

    Raises:
        JavaError: No usable Java.
        MissingExtraError: PySpark is not installed.
    """
    settings = stores_in(folder) | {"cache.folder": str(cache.absolute())}
    lines = [
        f"export SPARKSCORE__{key.upper().replace('.', '__')}={shlex.quote(str(value or ''))}"
        for key, value in settings.items()
    ]
    java = export_line(find_java(cache, os.environ), os.environ, cache)
    own = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
    text = "\n".join([java, own, *lines, ""])
    (folder / ENVIRONMENT_FILE).write_text(_HEADER + text, encoding="utf-8")


def same_job(folder: Path, job_file: Path, tables: Mapping[str, str]) -> dict[str, str]:
    """The demo's job for the next night: lines for a shell, a crontab and an Airflow DAG.

    Args:
        folder: The demo's folder, absolute.
        job_file: The job's file.
        tables: Options that the job file needs where its own tables are not the demo's.
    """
    start = f"{_begun(folder, 'spark-submit jobs/score_batch.py', job_file, tables)} --run-key"
    airflow = f"{start} {{{{ ds }}}} --skip-code 99"
    return {
        "spark-submit": f"{start} {NEXT_NIGHT}",
        # In a crontab a bare % ends the line.
        "cron": f'0 5 * * * {start} "$(date +\\%F)"',
        "Airflow": f'BashOperator(task_id="flights", bash_command={airflow!r})',
    }


def same_stream(folder: Path, job_file: Path, tables: Mapping[str, str]) -> dict[str, str]:
    """The demo's stream: lines for a shell, until all is scored, and until it is told to end.

    Args:
        folder: The demo's folder, absolute.
        job_file: The job's file.
        tables: Options that the job file needs where its own tables are not the demo's.
    """
    return {
        "what has come since": _begun(
            folder, "spark-submit jobs/score_stream.py", job_file, tables
        ),
        "as a service": _begun(folder, "sparkscore score stream", job_file, tables)
        + ' --trigger "10 seconds"',
    }


def _begun(folder: Path, launcher: str, job_file: Path, tables: Mapping[str, str]) -> str:
    options = "".join(f" {flag} {shlex.quote(value)}" for flag, value in tables.items())
    return (
        f"cd {shlex.quote(str(Path.cwd()))} && . {shlex.quote(str(folder / ENVIRONMENT_FILE))} && "
        f"{launcher} --job {shlex.quote(str(job_file))}{options}"
    )
