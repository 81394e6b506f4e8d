"""`sparkscore aliases`: names that point at versions of a model."""

from __future__ import annotations

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show
from sparkscore.names import parse_alias, parse_model_name


@click.group()
def command() -> None:
    """Aliases of registered models: list, set, delete."""


@command.command("list")
@click.argument("model")
@output_option
def list_aliases(model: str, output: Output) -> None:
    """Aliases of MODEL, and the version that each points at."""
    found = open_workspace().models.get_model(parse_model_name(model))
    rows = [{"alias": alias, "version": n} for alias, n in sorted(found.aliases.items())]
    show(rows, ("alias", "version"), output)


@command.command("set")
@click.argument("model")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1))
def set_alias(model: str, alias: str, version: int) -> None:
    """Point ALIAS of MODEL at VERSION, away from any other version."""
    open_workspace().registry.set_alias(parse_model_name(model), parse_alias(alias), version)
    note(f"models:/{model}@{alias} is now version {version}")


@command.command("delete")
@click.argument("model")
@click.argument("alias")
def delete_alias(model: str, alias: str) -> None:
    """Remove ALIAS of MODEL; nothing happens where there is none."""
    open_workspace().models.delete_alias(parse_model_name(model), parse_alias(alias))
    note(f"models:/{model}@{alias} is gone")
