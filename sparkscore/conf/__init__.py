"""YAML files, environment and flags in; frozen settings out, each value with its origin.

Layers, a later one wins: defaults, `base.yaml`, `<target>.yaml`, MLFLOW_* variables where MLflow
defines the setting, `SPARKSCORE__SECTION__KEY` variables, flags. Mappings such as `spark.conf`
are merged key by key. Read by `sparkscore.workspace` and by nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sparkscore.conf.job import JobSettings, load_job
from sparkscore.conf.layers import Given, Keys, Resolved, from_flags, from_text, from_yaml, resolve
from sparkscore.conf.settings import Settings
from sparkscore.errors import ConfigError, listed, nearest, shown

__all__ = [
    "JobSettings",
    "Resolved",
    "Settings",
    "load_job",
    "load_settings",
]

_ENV_PREFIX = "SPARKSCORE__"
_MLFLOW_VARIABLES = {
    "MLFLOW_TRACKING_URI": "tracking.uri",
    "MLFLOW_REGISTRY_URI": "registry.uri",
    "MLFLOW_EXPERIMENT_NAME": "tracking.experiment",
    "MLFLOW_EXPERIMENT_ID": "tracking.experiment_id",
    "MLFLOW_RUN_ID": "tracking.run_id",
    "MLFLOW_TRACKING_USERNAME": "client.username",
    "MLFLOW_TRACKING_PASSWORD": "client.password",
    "MLFLOW_TRACKING_TOKEN": "client.token",
    "MLFLOW_TRACKING_INSECURE_TLS": "client.insecure_tls",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "client.ca_file",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": "client.client_cert",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "client.timeout_s",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "client.max_retries",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "tracking.system_metrics",
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "tracking.system_metrics_interval_s",
    "MLFLOW_S3_ENDPOINT_URL": "artifacts.s3_endpoint",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "trust.allow_code",
}
_TARGET = re.compile(r"[\w\-]+", re.ASCII)


def load_settings(
    folder: Path | None,
    target: str | None,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
) -> Resolved[Settings]:
    """The settings in force and where each came from.

    Args:
        folder: Folder of the YAML files; None: SPARKSCORE_CONF, else `./conf` if it is there.
        target: Name of the file laid over base.yaml; None: SPARKSCORE_CONF_TARGET, else `local`.
        overrides: Dotted key to value, as flags give them.
        environ: The environment to read.

    Raises:
        ConfigError: A folder, file or target is not there, a file does not parse, a key is
            unknown, or a value has the wrong type.
    """
    keys = Keys(Settings, "setting")
    given: list[Given] = []
    for file in _files(folder, target, environ):
        given += from_yaml(file, keys)
    given += _from_environ(environ, keys)
    given += from_flags(overrides, keys, "flag --set")
    return resolve(Settings, given, keys)


def _files(folder: Path | None, target: str | None, environ: Mapping[str, str]) -> list[Path]:
    asked_folder = folder or _path(environ.get("SPARKSCORE_CONF"))
    asked_target = target or environ.get("SPARKSCORE_CONF_TARGET")
    name = asked_target or "local"
    if not _TARGET.fullmatch(name) or name == "base":
        raise ConfigError(f"conf target {shown(name)} is not a name such as 'local' or 'cluster'")
    place = asked_folder or Path("conf")
    if asked_folder and not asked_folder.is_dir():
        raise ConfigError(f"there is no conf folder {str(asked_folder)!r}; give it by --conf DIR")
    files = [place / "base.yaml", place / f"{name}.yaml"]
    found = [file for file in files if file.is_file()]
    if asked_target and files[1] not in found:
        known = sorted(file.stem for file in place.glob("*.yaml") if file.stem != "base")
        raise ConfigError(
            f"conf target {name!r} has no file {files[1]}{nearest(name, known)}; "
            f"targets there: {listed(known)}"
        )
    if asked_folder and not found:
        raise ConfigError(
            f"conf folder {str(asked_folder)!r} has neither base.yaml nor {name}.yaml"
        )
    return found


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _from_environ(environ: Mapping[str, str], keys: Keys) -> list[Given]:
    given = [
        from_text(key, environ[name], f"env {name}", keys)
        for name, key in _MLFLOW_VARIABLES.items()
        if environ.get(name)
    ]
    for name in sorted(environ):
        if name.startswith(_ENV_PREFIX):
            key = _dotted(name.removeprefix(_ENV_PREFIX), keys)
            given.append(from_text(key, environ[name], f"env {name}", keys))
    return given


def _dotted(rest: str, keys: Keys) -> str:
    # Free keys (Spark properties) are case-sensitive: only the part that names a setting folds.
    key = rest.replace("__", ".")
    holder = keys.holder(key.lower())
    return key.lower() if holder is None else holder + key[len(holder) :]
