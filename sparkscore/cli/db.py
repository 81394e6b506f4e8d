"""`sparkscore db`: the schema of the databases that records are kept in."""

from __future__ import annotations

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show
from sparkscore.errors import UsageError
from sparkscore.workspace import Workspace

_COLUMNS = ("setting", "revision", "newest", "state")


@click.group()
def command() -> None:
    """Databases of runs and models: status, upgrade."""


@command.command("status")
@output_option
def status(output: Output) -> None:
    """The schema of each database; nothing is changed."""
    show(_rows(open_workspace()), _COLUMNS, output)


@command.command("upgrade")
@output_option
def upgrade(output: Output) -> None:
    """Bring each database to this release's schema, at once and not with its first call.

    Make a copy before: an older release cannot read the newer schema.
    """
    workspace = open_workspace()
    for stores in workspace.databases.values():
        stores.upgrade()
    show(_rows(workspace), _COLUMNS, output)


def _rows(workspace: Workspace) -> list[dict[str, object]]:
    databases = workspace.databases
    if not databases:
        raise UsageError(
            "records are kept by a server, which looks after its own database: run this on its "
            "machine"
        )
    rows: list[dict[str, object]] = []
    for key, stores in databases.items():
        found, newest = stores.revision(), stores.newest_revision
        is_empty, is_newest = found is None, found == newest
        state = "empty" if is_empty else "current" if is_newest else "to be upgraded"
        rows.append({"setting": key, "revision": found, "newest": newest, "state": state})
    return rows
