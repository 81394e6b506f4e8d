"""`sparkscore artifacts`: the files of runs, and of any place that a URI names."""

from __future__ import annotations

from pathlib import Path

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show
from sparkscore.errors import UsageError
from sparkscore.names import parse_artifact_path, parse_run_id
from sparkscore.stores.base import ArtifactStore

_COLUMNS = ("path", "is_folder", "n_bytes")
_run_option = click.option("--run", metavar="ID", help="The run whose files they are.")
_uri_option = click.option(
    "--uri", help="Their place: runs:/ID/PATH, a folder, or the URI of a store."
)


@click.group()
def command() -> None:
    """Files of runs: list, download, log."""


@command.command("list")
@click.argument("path", default="")
@_run_option
@_uri_option
@output_option
def list_artifacts(path: str, run: str | None, uri: str | None, output: Output) -> None:
    """What lies directly in the artifact folder PATH; the root where none is given."""
    rows = [
        {"path": info.path, "is_folder": info.is_folder, "n_bytes": info.n_bytes}
        for info in _place(run, uri).list(parse_artifact_path(path.strip("/")))
    ]
    show(rows, _COLUMNS, output)


@command.command("download")
@click.argument("path", default="")
@_run_option
@_uri_option
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="The copy, which must not exist. Default: the name of PATH, in this folder.",
)
def download(path: str, run: str | None, uri: str | None, to: Path | None) -> None:
    """Copy the file or folder PATH, or all files, to this machine."""
    parsed = parse_artifact_path(path.strip("/"))
    local = to or Path(Path(parsed).name or "artifacts")
    copied = _place(run, uri).get(parsed, local)
    click.echo(str(copied))


@command.command("log")
@click.argument("local", type=click.Path(path_type=Path))
@_run_option
@_uri_option
@click.option("--as", "path", metavar="PATH", help="Default: the name of LOCAL.")
def log(local: Path, run: str | None, uri: str | None, path: str | None) -> None:
    """Keep the local file or folder LOCAL."""
    place = parse_artifact_path(local.resolve().name if path is None else path.strip("/"))
    store = _place(run, uri)
    store.put(local, place)
    note(f"{local} is kept as {store.root_uri}/{place}".rstrip("/"))


def _place(run: str | None, uri: str | None) -> ArtifactStore:
    workspace = open_workspace()
    if (run is None) == (uri is None):
        raise UsageError("give --run ID, or --uri URI, and not both")
    if run is not None:
        return workspace.artifacts_at(workspace.runs.get_run(parse_run_id(run)).artifact_uri)
    return workspace.artifacts_at(uri or "")
