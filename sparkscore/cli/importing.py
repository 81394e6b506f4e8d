"""`sparkscore import`: a team's records and files, from where they were before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.moved import LEFT_OUT, show_tally
from sparkscore.cli.output import Output, output_option
from sparkscore.errors import UsageError, shown

if TYPE_CHECKING:
    from sparkscore.stores.copies_base import RecordSource


@click.group()
def command() -> None:
    """Copy the records and files of MLflow's stores into ours."""


@command.command("mlflow")
@click.option(
    "--from",
    "place",
    metavar="SOURCE",
    required=True,
    help="A folder mlruns, or the URL of MLflow's database; it is only read.",
)
@click.option(
    "--no-artifacts", is_flag=True, help="Leave files where they are, and copy records alone."
)
@click.option(
    "--artifacts-at",
    "moved",
    metavar="FROM=TO",
    multiple=True,
    help="Files whose URI begins with FROM lie at TO now, such as mlflow-artifacts:/=/srv/files.",
)
@output_option
def mlflow(place: str, moved: tuple[str, ...], output: Output, *, no_artifacts: bool) -> int:
    """Copy all of SOURCE with its ids; run again, it goes on where it was.

    The exit code is 3 if something did not come over that should be mended; the table says what.
    """
    from sparkscore.moving.importing import ARTIFACT_ROOT, BY_DESIGN, Importer
    from sparkscore.moving.tally import Tally

    workspace = replace(open_workspace(), artifact_root=ARTIFACT_ROOT)
    databases = workspace.databases
    if "tracking.uri" not in databases:
        raise UsageError(
            "an import writes to the database itself, but tracking.uri names a server: run it on "
            "the server's machine, with that server's settings"
        )
    records = databases["tracking.uri"].copies
    registry = databases["registry.uri"].copies if "registry.uri" in databases else records
    tally = Tally()
    importer = Importer(
        source=_source(place),
        records=records,
        registry=registry,
        artifacts=None if no_artifacts else workspace.artifacts,
        open_at=workspace.artifacts_at,
        moved=_places(moved),
        announce=note,
        tally=tally,
    )
    try:
        importer.run()
    finally:
        for stores in databases.values():
            stores.close()
    show_tally(tally, output)
    return 0 if tally.is_whole(BY_DESIGN) else LEFT_OUT


def _source(place: str) -> RecordSource:
    if "://" in place and not place.startswith("file:"):
        from sparkscore.stores.sql.mlflow_database import MlflowDatabase

        return MlflowDatabase(place)
    from sparkscore.moving.files import local_path
    from sparkscore.moving.mlruns import MlrunsFolder

    folder = Path(local_path(place) or place)
    if folder.is_file():
        raise UsageError(f"{place!r} is a file: name a database as sqlite:///{place}")
    return MlrunsFolder(folder)


def _places(texts: Sequence[str]) -> dict[str, str]:
    places: dict[str, str] = {}
    for text in texts:
        former, equals, now = text.partition("=")
        if not (former and equals and now):
            raise UsageError(f"--artifacts-at {shown(text)} is not of the form FROM=TO")
        places[former] = now
    return places
