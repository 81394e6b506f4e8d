"""What every command starts from: the workspace that the global options name, and notes."""

from __future__ import annotations

from collections.abc import Iterable

import click

from sparkscore.cli import GlobalOptions
from sparkscore.errors import ConfigError, shown
from sparkscore.workspace import Workspace


def open_workspace() -> Workspace:
    """The workspace that the options before the command's name describe.

    Raises:
        ConfigError: The settings do not hold together.
    """
    options = _options()
    return Workspace.open(options.conf, options.target, _assigned(options.assignments))


def note(text: str) -> None:
    """Tell the user something on stderr, unless --quiet was given."""
    if not _options().quiet:
        click.echo(text, err=True)


def _options() -> GlobalOptions:
    options = click.get_current_context().find_object(GlobalOptions)
    assert options is not None
    return options


def _assigned(texts: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {shown(text)} is not of the form section.key=value")
        pairs[key.strip()] = value
    return pairs
