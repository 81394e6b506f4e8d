"""`sparkscore tables`: the upkeep of Delta tables."""

from __future__ import annotations

from dataclasses import asdict

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show

_COLUMNS = ("table", "name", "status", "n_files", "n_bytes", "seconds", "detail")


@click.group()
def command() -> None:
    """Keep Delta tables fit."""


@command.command()
@click.argument("tables", nargs=-1, required=True)
@click.option("--optimize/--no-optimize", default=True, help="Join small files.")
@click.option("--where", help="Optimize these partitions alone: a predicate over their columns.")
@click.option("--zorder", multiple=True, metavar="COLUMN", help="Lay out rows by it; repeatable.")
@click.option("--vacuum/--no-vacuum", default=True, help="Remove files that no version names.")
@click.option(
    "--retain-hours",
    type=float,
    default=168.0,
    show_default=True,
    help="Age from which these are removed; a table's own retention wins where it is longer.",
)
@click.option("--checkpoint/--no-checkpoint", default=True, help="Write the log as a checkpoint.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@output_option
def maintain(
    tables: tuple[str, ...],
    *,
    optimize: bool,
    where: str | None,
    zorder: tuple[str, ...],
    vacuum: bool,
    retain_hours: float,
    checkpoint: bool,
    dry_run: bool,
    output: Output,
) -> int:
    """Join small files, remove those that no version names, and shorten the log.

    TABLES are paths or names of the catalog. A table that fails does not keep the others from their
    upkeep; the exit code is the worst one. It may run beside jobs that write the tables; in S3 and
    its like not, since Spark's commits there may overwrite those of others.
    """
    from sparkscore.spark.maintenance import Upkeep, maintain

    upkeep = Upkeep(
        optimize=optimize,
        where=where,
        zorder=zorder,
        vacuum_hours=retain_hours if vacuum else None,
        checkpoint=checkpoint,
        is_dry=dry_run,
    )
    workspace = open_workspace()
    try:
        steps = maintain(workspace.spark, tables, upkeep)
    finally:
        workspace.close()
    show([asdict(step) for step in steps], _COLUMNS, output)
    for step in steps:
        if step.code is not None:
            text = f"error [{step.code}]: {step.name} of {step.table}: {step.detail}"
            click.echo(text, err=True)
    return max(step.exit_code for step in steps)
