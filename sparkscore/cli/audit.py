"""`sparkscore audit`: who changed what at a server, in a trail that only grows."""

from __future__ import annotations

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, utc
from sparkscore.errors import DataError
from sparkscore.stores.audit_chain import all_entries, broken_at

_COLUMNS = ("number", "time", "actor", "action", "subject", "status")


@click.group()
def command() -> None:
    """The audit trail of the server whose database tracking.uri names."""


@command.command("list")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Entries above this number.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@output_option
def list_entries(after: int, limit: int, output: Output) -> None:
    """Entries in order; an actor that is empty is this command line."""
    rows = [
        {
            "number": entry.number,
            "time": utc(entry.time_ms),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "status": entry.status,
        }
        for entry in open_workspace().accounts.audit(after=after, limit=limit)
    ]
    show(rows, _COLUMNS, output)


@command.command("verify")
def verify() -> None:
    """Compute the chain of digests anew; says the last one, to be kept elsewhere."""
    trail = list(all_entries(open_workspace().accounts))
    place = broken_at(trail)
    if place is not None:
        raise DataError(
            f"entry {place} of the audit trail is not what was written: it, or one before it, was "
            "changed or removed in the database; compare with a backup"
        )
    note(f"{len(trail)} entries are as they were written")
    if trail:
        click.echo(trail[-1].chain)
