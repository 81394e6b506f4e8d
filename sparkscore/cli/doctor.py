"""`sparkscore doctor`: what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show
from sparkscore.conf.settings import masked
from sparkscore.errors import (
    JarsUnavailableError,
    MissingExtraError,
    SparkscoreError,
    TemporaryError,
    UsageError,
)
from sparkscore.names import ArtifactPath
from sparkscore.package.environment import installed_version
from sparkscore.spark.jars import KAFKA, find_jars
from sparkscore.spark.java import find_java, spark_home
from sparkscore.workspace import Workspace

_COLUMNS = ("part", "status", "required", "detail", "code")
_EXTRAS = {
    "scikit-learn": "sklearn",
    "skops": "sklearn",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
    "catboost": "catboost",
    "onnxruntime": "onnx",
    "statsmodels": "statsmodels",
    "prophet": "prophet",
    "torch": "pytorch",
    "transformers": "transformers",
    "keras": "tensorflow",
}


@dataclass(frozen=True)
class Finding:
    """What was seen of one part; `detail` says where it is, or what to do."""

    part: str
    status: str
    required: bool
    detail: str
    code: str | None
    exit_code: int


@click.command()
@output_option
@click.pass_context
def command(context: click.Context, output: Output) -> None:
    """Check Java, Spark, Delta's jars, the stores and the cache; fetches and creates none of them.

    Exit code 0: all that is required is there; 75: what is missing may come by itself or by
    `sparkscore setup`; 2: a person must mend something.
    """
    findings = list(_findings(open_workspace()))
    show([asdict(finding) for finding in findings], _COLUMNS, output)
    faults = {finding.exit_code for finding in findings if finding.required}
    if faults - {0, TemporaryError.exit_code}:
        context.exit(UsageError.exit_code)
    context.exit(max(faults))


def _findings(workspace: Workspace) -> Iterator[Finding]:
    # A Spark Connect server has a Java, a Spark and jars of its own.
    here = workspace.settings.spark.remote is None
    yield _look("java", lambda: _java(workspace), required=here)
    yield _look("spark", _spark, required=here)
    yield _look("delta jars", lambda: _jars(workspace), required=here)
    yield _look("tracking store", lambda: _tracking(workspace))
    yield _look("artifact store", lambda: _artifacts(workspace))
    yield _look("cache folder", lambda: _writable(workspace.settings.cache.folder))
    yield _look("kafka jars", lambda: _kafka_jars(workspace), required=False)
    for library, extra in _EXTRAS.items():
        yield _look(library, partial(_library, library, extra), required=False)


def _look(part: str, check: Callable[[], str], *, required: bool = True) -> Finding:
    try:
        return Finding(part, "ok", required, check(), None, 0)
    except SparkscoreError as exc:
        return Finding(part, "missing", required, str(exc), exc.code, exc.exit_code)


def _java(workspace: Workspace) -> str:
    java = find_java(workspace.jar_source.cache, os.environ)
    return f"{java.version} from {java.origin}: {java.home}"


def _spark() -> str:
    return f"{importlib.metadata.version('pyspark')}: {spark_home()}"


def _jars(workspace: Workspace) -> str:
    jars = find_jars(workspace.jar_source)
    if jars is None:
        version = workspace.jar_source.version
        raise JarsUnavailableError(
            f"the jars of Delta {version} are not cached; run: sparkscore setup"
        )
    return f"{len(jars)} in {jars[0].parent}"


def _kafka_jars(workspace: Workspace) -> str:
    jars = find_jars(workspace.jar_source, bundle=KAFKA)
    if jars is None:
        raise JarsUnavailableError(
            "fetched by the first stream that reads a topic; or now by: sparkscore setup --kafka"
        )
    return f"{len(jars)} in {jars[0].parent}"


def _tracking(workspace: Workspace) -> str:
    uri = workspace.settings.tracking.uri
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        return f"{_writable(file.absolute().parent)}/{file.name}, made by the first run"
    workspace.runs.list_experiments(limit=1)
    return str(masked("tracking.uri", uri))


def _artifacts(workspace: Workspace) -> str:
    uri = workspace.artifacts.root_uri
    workspace.artifacts.list(ArtifactPath(""))
    root = urlsplit(uri)
    if root.scheme == "file":
        _writable(Path(unquote(root.path)))
    return uri


def _writable(folder: Path) -> str:
    """`folder`, where it or the nearest parent that exists can be written to."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise UsageError(f"{str(place)!r} cannot be written to; make it a writable folder")
    return str(folder)


def _library(library: str, extra: str) -> str:
    installed = installed_version(library)
    if installed is None:
        raise MissingExtraError(f"for its models run: pip install 'sparkscore[{extra}]'")
    return installed
