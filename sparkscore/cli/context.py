"""What every command starts from: the workspace that the global options name, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from sparkscore.cli import GlobalOptions
from sparkscore.errors import ConfigError, shown
from sparkscore.workspace import Workspace


def open_workspace(settings: Mapping[str, object] | None = None) -> Workspace:
    """The workspace that the options before the command's name describe.

    Args:
        settings: Dotted key to value, from options of the command itself; they win.

    Raises:
        ConfigError: The settings do not hold together.
    """
    options = _options()
    return Workspace.open(options.conf, options.target, all_overrides(settings), note)


def all_overrides(settings: Mapping[str, object] | None = None) -> dict[str, object]:
    """Dotted key to value, of `--set` and, over that, of a command's own options.

    Raises:
        ConfigError: A `--set` is not of its form.
    """
    return _assigned(_options().assignments) | dict(settings or {})


def conf_options() -> tuple[Path | None, str | None]:
    """The folder and the name that `--conf` and `--conf-target` gave."""
    options = _options()
    return options.conf, options.target


def note(text: str) -> None:
    """Tell the user something on stderr, unless --quiet was given."""
    if not _options().quiet:
        click.echo(text, err=True)


def noted_by_any_thread() -> Callable[[str], None]:
    """`note`, for work that goes on in other threads: these do not know the command's options."""
    is_quiet = _options().quiet

    def note(text: str) -> None:
        if not is_quiet:
            click.echo(text, err=True)

    return note


def is_debug() -> bool:
    """Whether tracebacks were asked for."""
    return _options().debug


def _options() -> GlobalOptions:
    options = click.get_current_context().find_object(GlobalOptions)
    assert options is not None
    return options


def _assigned(texts: Iterable[str]) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {shown(text)} is not of the form section.key=value")
        pairs[key.strip()] = value
    return pairs
