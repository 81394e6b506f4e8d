"""Options that commands share which score rows, and the settings that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import cast

import click

from sparkscore.errors import ConfigError, shown
from sparkscore.package.params import ParamText

SOURCE_FORMATS = ("auto", "delta", "parquet", "csv", "json", "orc")
_ON_INVALID = click.option(
    "--on-invalid",
    type=click.Choice(["fail", "null", "quarantine"]),
    help="What becomes of rows that the model cannot score.",
)
_CODE_OPTIONS = (
    click.option("--trust", multiple=True, metavar="TYPE", help="Type that a package may load."),
    click.option("--trust-code", is_flag=True, help="Let packages run code: pickles, scripts."),
)


def code_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that say what a model may load."""
    return reduce(lambda made, option: option(made), reversed(_CODE_OPTIONS), command)


def trust_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that say what a model may load, and what becomes of rows that it cannot take."""
    return _ON_INVALID(code_options(command))


def scoring_settings(flags: Mapping[str, object]) -> dict[str, object]:
    """Those flags that are settings, by their dotted keys."""
    settings: dict[str, object] = {}
    if flags.get("on_invalid") is not None:
        settings["scoring.on_invalid"] = flags["on_invalid"]
    if flags["trust_code"]:
        settings["trust.allow_code"] = True
    if flags["trust"]:
        settings["trust.types"] = flags["trust"]
    if flags.get("preload"):
        settings["spark.preload"] = True
    return settings


def column_names(texts: Iterable[str]) -> dict[str, str]:
    """Model column to source column, from each `--column MODEL=SOURCE`.

    Raises:
        ConfigError: One is not of that form.
    """
    pairs = dict(_pairs(texts, "--column", "MODEL=SOURCE"))
    empty = next((name for name, source in pairs.items() if not source), None)
    if empty is not None:
        raise ConfigError(f"--column {shown(empty + '=')} is not of the form MODEL=SOURCE")
    return pairs


def check_bounds(flags: Mapping[str, object]) -> dict[str, str]:
    """Bound by the name of its check, from each `--check NAME=BOUND`.

    Raises:
        ConfigError: One is not of that form.
    """
    return dict(_pairs(cast(tuple[str, ...], flags["check"]), "--check", "NAME=BOUND"))


def canary_keys(text: str | None) -> dict[str, str]:
    """Model and share by the keys of a job's file, from `--canary URI=SHARE`.

    Raises:
        ConfigError: It is not of that form.
    """
    if text is None:
        return {}
    model, equals, share = text.rpartition("=")
    if not (model and equals and share):
        raise ConfigError(f"--canary {shown(text)} is not of the form URI=SHARE")
    return {"stream.canary.model": model, "stream.canary.share": share}


def alert_keys(texts: Iterable[str]) -> dict[str, str]:
    """Bounds by the keys of a job's file, from each `--alert NAME=BOUND`.

    Raises:
        ConfigError: One is not of that form.
    """
    pairs = _pairs(texts, "--alert", "NAME=BOUND")
    return {f"stream.alerts.{name}": bound for name, bound in pairs}


def reader_options(texts: Iterable[str]) -> dict[str, str]:
    """Value by name, from each `--source-option KEY=VALUE`; a value may be empty.

    Raises:
        ConfigError: One is not of that form.
    """
    return dict(_pairs(texts, "--source-option", "KEY=VALUE"))


def param_texts(texts: Iterable[str]) -> dict[str, ParamText]:
    """Value by name, from each `--param NAME=VALUE`.

    Raises:
        ConfigError: One is not of that form.
    """
    return {name: ParamText(value) for name, value in _pairs(texts, "--param", "NAME=VALUE")}


def _pairs(texts: Iterable[str], option: str, form: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"{option} {shown(text)} is not of the form {form}")
        yield name, value
