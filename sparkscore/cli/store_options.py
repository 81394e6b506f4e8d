"""Options that name stores, as `mlflow server` and `mlflow gc` do, and what settings they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import click

_SETTINGS = {
    "backend_store_uri": "tracking.uri",
    "registry_store_uri": "registry.uri",
    "artifacts_destination": "artifacts.uri",
}
_OPTIONS = (
    click.option(
        "--backend-store-uri",
        envvar="MLFLOW_BACKEND_STORE_URI",
        help="Database of runs. Default: setting tracking.uri.",
    ),
    click.option(
        "--registry-store-uri",
        envvar="MLFLOW_REGISTRY_STORE_URI",
        help="Database of models. Default: setting registry.uri, or that of runs.",
    ),
    click.option(
        "--artifacts-destination",
        envvar="MLFLOW_ARTIFACTS_DESTINATION",
        help="Where the server keeps files. Default: setting artifacts.uri.",
    ),
)


def store_options(command: Callable[..., object]) -> Callable[..., object]:
    """The options that name the stores of runs, models and files."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def store_settings(flags: Mapping[str, str | None]) -> dict[str, object]:
    """The settings that those of the options mean which were given, by their dotted keys."""
    return {_SETTINGS[name]: value for name, value in flags.items() if value is not None}
