"""Options that commands share which score rows, and the settings that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce

import click

from sparkscore.errors import ConfigError, shown
from sparkscore.package.params import ParamText

SOURCE_FORMATS = ("auto", "delta", "parquet", "csv", "json", "orc")
_TRUST_OPTIONS = (
    click.option("--on-invalid", type=click.Choice(["fail", "reject"])),
    click.option("--trust", multiple=True, metavar="TYPE", help="Type that a package may load."),
    click.option("--trust-code", is_flag=True, help="Let packages run code: pickles, scripts."),
)


def trust_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that say what a model may load, and what becomes of rows that it cannot take."""
    return reduce(lambda made, option: option(made), reversed(_TRUST_OPTIONS), command)


def scoring_settings(flags: Mapping[str, object]) -> dict[str, object]:
    """Those flags that are settings, by their dotted keys."""
    settings: dict[str, object] = {}
    if flags["on_invalid"] is not None:
        settings["scoring.on_invalid"] = flags["on_invalid"]
    if flags["trust_code"]:
        settings["trust.allow_code"] = True
    if flags["trust"]:
        settings["trust.types"] = flags["trust"]
    if flags.get("preload"):
        settings["spark.preload"] = True
    return settings


def column_names(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Model column and source column of each `--column MODEL=SOURCE`.

    Raises:
        ConfigError: One is not of that form.
    """
    for text in texts:
        name, equals, source = text.partition("=")
        if not (name and equals and source):
            raise ConfigError(f"--column {shown(text)} is not of the form MODEL=SOURCE")
        yield name, source


def reader_options(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Name and value of each `--source-option KEY=VALUE`; a value may be empty.

    Raises:
        ConfigError: One is not of that form.
    """
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--source-option {shown(text)} is not of the form KEY=VALUE")
        yield name, value


def param_texts(texts: Iterable[str]) -> Iterable[tuple[str, ParamText]]:
    """Name and value of each `--param NAME=VALUE`.

    Raises:
        ConfigError: One is not of that form.
    """
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--param {shown(text)} is not of the form NAME=VALUE")
        yield name, ParamText(value)
