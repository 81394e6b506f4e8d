"""`sparkscore server`: the tracking and registry server, for clients of MLflow's and our own.

Most options have the name, and the environment variable, of their twin of `mlflow server`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from sparkscore.cli.context import all_overrides, conf_options, note, open_workspace
from sparkscore.cli.store_options import store_options, store_settings
from sparkscore.errors import ConfigError, shown
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from sparkscore.server.settings import ServerSettings

_DEFAULT_PORT = 5000
_PROXIED = "mlflow-artifacts:"


@dataclass(frozen=True)
class _Opening:
    """What a worker process opens; it is pickled, and so holds plain values."""

    conf: Path | None
    target: str | None
    overrides: dict[str, object]
    artifact_root: str
    settings: ServerSettings
    asks_callers: bool
    webhook_hosts: tuple[str, ...]
    webhook_key: Path


@click.command()
@click.option("-h", "--host", default="127.0.0.1", show_default=True, envvar="MLFLOW_HOST")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULT_PORT,
    show_default=True,
    envvar="MLFLOW_PORT",
    help="0: any that is free.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    envvar="MLFLOW_WORKERS",
    help="Processes that answer; one is enough for some hundred requests a second.",
)
@store_options
@click.option(
    "--default-artifact-root",
    envvar="MLFLOW_DEFAULT_ARTIFACT_ROOT",
    help="Where clients keep the files of new experiments. Default: at this server.",
)
@click.option(
    "--serve-artifacts/--no-serve-artifacts",
    default=True,
    envvar="MLFLOW_SERVE_ARTIFACTS",
    help="Whether files of new experiments go through the server.",
)
@click.option(
    "--artifacts-only",
    is_flag=True,
    envvar="MLFLOW_ARTIFACTS_ONLY",
    help="Answer for files alone, beside a server for records.",
)
@click.option(
    "--static-prefix", default="", envvar="MLFLOW_STATIC_PREFIX", help="Such as /tracking."
)
@click.option(
    "--allowed-hosts",
    default="",
    envvar="MLFLOW_SERVER_ALLOWED_HOSTS",
    help="Further names by which it may be asked, with commas; * stands for any part.",
)
@click.option(
    "--cors-allowed-origins",
    default="",
    envvar="MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    help="Origins, with commas, whose pages may write.",
)
@click.option(
    "--disable-security-middleware",
    is_flag=True,
    envvar="MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
    help="Take any Host and any Origin.",
)
@click.option(
    "--expose-prometheus", is_flag=True, help="Answer /metrics.", envvar="MLFLOW_EXPOSE_PROMETHEUS"
)
@click.option(
    "--webhook-allowed-hosts",
    default="",
    envvar="SPARKSCORE_WEBHOOK_ALLOWED_HOSTS",
    help="Hosts, with commas, that webhooks may lead to though their addresses are not public.",
)
@click.option(
    "--webhook-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="SPARKSCORE_WEBHOOK_KEY_FILE",
    help="Key that webhooks' secrets are encrypted by, made at first use. Default: beside the "
    "SQLite file of models, else in this folder.",
)
@click.option(
    "--auth/--no-auth",
    default=None,
    help="Ask callers who they are. Default: if the address is one that others reach.",
)
@click.option(
    "--insecure-no-auth", is_flag=True, help="Listen on an address that others reach, as it is."
)
def command(
    *,
    host: str,
    port: int,
    workers: int,
    default_artifact_root: str | None,
    serve_artifacts: bool,
    artifacts_only: bool,
    static_prefix: str,
    allowed_hosts: str,
    cors_allowed_origins: str,
    disable_security_middleware: bool,
    expose_prometheus: bool,
    webhook_allowed_hosts: str,
    webhook_key_file: Path | None,
    auth: bool | None,
    insecure_no_auth: bool,
    **stores_named: str | None,
) -> None:
    """Answer MLflow's protocol over the stores of this workspace; stop with Ctrl-C."""
    from sparkscore.server.serve import Listen, is_loopback, serve
    from sparkscore.server.settings import ServerSettings

    any_one = ("*",) if disable_security_middleware else ()
    settings = ServerSettings(
        static_prefix=_prefix(static_prefix),
        allowed_hosts=(*_words(allowed_hosts), *any_one),
        allowed_origins=(*_words(cors_allowed_origins), *any_one),
        expose_metrics=expose_prometheus,
        artifacts_only=artifacts_only,
        serves_artifacts=serve_artifacts and default_artifact_root is None,
        lenient_sources=os.environ.get("SPARKSCORE_MODEL_SOURCE_CHECK") == "lenient",
        source_pattern=os.environ.get("MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX", ""),
        cut_long_values=_is_true(os.environ.get("MLFLOW_TRUNCATE_LONG_VALUES", "true")),
    )
    overrides = store_settings(stores_named)
    # Opened here too, so that a wrong setting is told before anything listens.
    workspace = open_workspace(overrides)
    _check_own_stores(workspace)
    asks = not (is_loopback(host) or insecure_no_auth) if auth is None else auth
    if asks and not _has_users(workspace):
        raise ConfigError(
            "callers are to be asked who they are, and there is no user yet: run `sparkscore users "
            "create NAME --admin` with the same tracking.uri first"
        )
    destination = workspace.artifacts.root_uri
    conf, target = conf_options()
    opening = _Opening(
        conf=conf,
        target=target,
        overrides=all_overrides(overrides),
        artifact_root=default_artifact_root or (_PROXIED if serve_artifacts else destination),
        settings=settings,
        asks_callers=asks,
        webhook_hosts=_words(webhook_allowed_hosts.lower()),
        webhook_key=webhook_key_file or _webhook_key(workspace),
    )

    def announce(url: str) -> None:
        note(f"sparkscore answers at {url}{settings.static_prefix}; stop it with Ctrl-C")

    serve(
        partial(_open_app, opening), Listen(host, port, workers, asks or insecure_no_auth), announce
    )


def _open_app(opening: _Opening) -> ASGIApp:
    from sparkscore.server.calls import Served
    from sparkscore.server.guarded_app import guarded_app
    from sparkscore.server.tracking_app import tracking_app
    from sparkscore.server.webhook_secrets import WebhookSecrets
    from sparkscore.server.webhooks import Webhooks

    opened = Workspace.open(opening.conf, opening.target, opening.overrides)
    workspace = replace(opened, artifact_root=opening.artifact_root)
    served = Served(
        runs=workspace.runs,
        models=workspace.models,
        logged_models=workspace.logged_models,
        artifacts=workspace.artifacts,
        webhooks=Webhooks(
            store=workspace.webhooks,
            secrets=WebhookSecrets(opening.webhook_key),
            allowed_hosts=opening.webhook_hosts,
        ),
        settings=opening.settings,
    )
    return guarded_app(served, workspace.accounts) if opening.asks_callers else tracking_app(served)


def _has_users(workspace: Workspace) -> bool:
    """Whether anybody may sign in; a database that is not there is not made."""
    if workspace.databases["tracking.uri"].revision() is None:
        return False
    return bool(workspace.accounts.list_users())


def _check_own_stores(workspace: Workspace) -> None:
    """Refuse to stand before another server, or before this one, as MLFLOW_TRACKING_URI may say."""
    for key, option, uri in (
        ("tracking.uri", "--backend-store-uri", workspace.settings.tracking.uri),
        ("registry.uri", "--registry-store-uri", workspace.settings.registry.uri or ""),
    ):
        if urlsplit(uri).scheme in ("http", "https"):
            raise ConfigError(
                f"setting {key!r} ({workspace.resolved.origins[key]}) is the address of a server, "
                f"and a server needs a database: say {option} sqlite:///FILE"
            )
    # Opened for its errors: a scheme that is not known, an extra that is missing.
    _ = workspace.models, workspace.runs


def _webhook_key(workspace: Workspace) -> Path:
    """Beside the file that holds what it encrypts, but not in it."""
    settings = workspace.settings
    scheme, _, file = (settings.registry.uri or settings.tracking.uri).partition(":///")
    return Path(f"{file.partition('?')[0] if scheme == 'sqlite' else 'sparkscore'}.webhook-key")


def _prefix(text: str) -> str:
    if text and (not text.startswith("/") or text.endswith("/") or urlsplit(text).path != text):
        raise ConfigError(
            f"--static-prefix {shown(text)} is no path such as /tracking: begin it with '/', and "
            "do not end it so"
        )
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")
