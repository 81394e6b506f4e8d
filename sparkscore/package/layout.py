"""The MLmodel file and the folder around it; opening a package reads YAML and runs no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import yaml

from sparkscore.errors import PackageFormatError, shown
from sparkscore.package.safe_yaml import read_yaml
from sparkscore.package.signature import Signature

MLMODEL = "MLmodel"

# Flavor keys that name files of the package. `model_code_path` is left out: MLflow writes the
# author's absolute path there and reads its base name.
_FILE_KEYS = (
    "data",
    "model_path",
    "pickled_model",
    "python_model",
    "model_data",
    "model_binary",
    "pr_model",
    "saved_model_dir",
    "code",
)
_TEXT_KEYS = (
    "artifact_path",
    "run_id",
    "model_id",
    "model_uuid",
    "utc_time_created",
    "mlflow_version",
)
_MAPPING_KEYS = ("flavors", "signature", "metadata", "saved_input_example_info")


@dataclass(frozen=True)
class Description:
    """What MLmodel says; the keys and their meaning are MLflow's."""

    flavors: Mapping[str, Mapping[str, object]]
    signature: Signature | None = None
    artifact_path: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    model_uuid: str | None = None
    utc_time_created: str | None = None
    mlflow_version: str | None = None
    metadata: Mapping[str, object] | None = None
    saved_input_example_info: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """Keys that are not known here; kept and written back."""


@dataclass(frozen=True)
class Package:
    """A package folder whose description was read and whose named files are there."""

    folder: Path
    description: Description


def open_package(folder: Path) -> Package:
    """The package in `folder`; flavors that are not known here are no error yet.

    Raises:
        PackageFormatError: No folder, a broken MLmodel, or a file that it names is missing, lies
            outside the folder or is no regular file.
    """
    if not folder.is_dir():
        raise PackageFormatError(
            f"{folder} is no folder; a package is a folder with the file {MLMODEL} in it"
        )
    description = read_description(folder / MLMODEL)
    for flavor, conf in description.flavors.items():
        for key, path in _named_files(conf):
            _check_inside(folder, path, f"{folder / MLMODEL}: flavors.{flavor}.{key}")
    return Package(folder, description)


def read_description(path: Path) -> Description:
    """What the MLmodel file at `path` says.

    Raises:
        PackageFormatError: The file does not parse; names the file and the line or key.
    """
    raw = read_yaml(path)
    for key in _MAPPING_KEYS:
        if raw.get(key) is not None and not isinstance(raw[key], dict):
            raise PackageFormatError(f"{path}: {key} must be a mapping, not {shown(raw[key])}")
    known = {*_TEXT_KEYS, *_MAPPING_KEYS}
    return Description(
        flavors=_flavors(raw.get("flavors"), path),
        signature=_signature(raw.get("signature"), path),
        metadata=_mapping(raw.get("metadata")),
        saved_input_example_info=_mapping(raw.get("saved_input_example_info")),
        extra={key: value for key, value in raw.items() if key not in known},
        **{key: _text(raw.get(key)) for key in _TEXT_KEYS},
    )


def write_description(description: Description, path: Path) -> None:
    """Write MLmodel at `path`, keys sorted as MLflow does; what is None is left out."""
    content: dict[str, object] = dict(description.extra)
    for key in (*_TEXT_KEYS, "metadata", "saved_input_example_info"):
        value = getattr(description, key)
        if value is not None:
            content[key] = dict(value) if isinstance(value, Mapping) else value
    content["flavors"] = {name: dict(conf) for name, conf in description.flavors.items()}
    if description.signature is not None:
        content["signature"] = description.signature.to_json_parts()
    text = yaml.safe_dump(content, default_flow_style=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def resolve_inside(folder: Path, name: object, where: str) -> Path:
    """The regular file or folder that `name` means below the package `folder`.

    Args:
        folder: The package.
        name: A relative path from the package's own metadata.
        where: File and key that name it, for the message.

    Raises:
        PackageFormatError: Absolute, with `..`, missing, a link that leads out, or a device.
    """
    if not isinstance(name, str) or not name:
        raise PackageFormatError(f"{where} must name a file, not {shown(name)}")
    _check_inside(folder, name, where)
    return folder / name


def _check_inside(folder: Path, name: str, where: str) -> None:
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise PackageFormatError(f"{where} names {shown(name)}, which leads out of the package")
    try:
        target = (folder / relative).resolve(strict=True)
    except (OSError, RuntimeError) as exc:
        raise PackageFormatError(
            f"{where} names {shown(name)}, which is missing; fetch the package again"
        ) from exc
    if not target.is_relative_to(folder.resolve()):
        raise PackageFormatError(f"{where} names {shown(name)}, a link that leads out")
    if not (target.is_file() or target.is_dir()):
        raise PackageFormatError(f"{where} names {shown(name)}, which is no regular file")


def _named_files(conf: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key in _FILE_KEYS:
        value = conf.get(key)
        if isinstance(value, str) and value:
            yield key, value
    artifacts = conf.get("artifacts")
    if isinstance(artifacts, Mapping):
        for name, node in artifacts.items():
            if isinstance(node, Mapping) and isinstance(node.get("path"), str):
                yield f"artifacts.{name}", node["path"]


def _flavors(raw: object, path: Path) -> dict[str, dict[str, object]]:
    if not isinstance(raw, dict) or not raw:
        raise PackageFormatError(f"{path}: flavors is missing or empty; it must name one flavor")
    for name, conf in raw.items():
        if not isinstance(name, str) or not isinstance(conf, dict):
            raise PackageFormatError(f"{path}: flavors.{name} must be a mapping, not {shown(conf)}")
    return raw


def _signature(raw: object, path: Path) -> Signature | None:
    if not isinstance(raw, dict):
        return None
    parts = {key: raw.get(key) for key in ("inputs", "outputs", "params")}
    for key, part in parts.items():
        if part is not None and not isinstance(part, str):
            raise PackageFormatError(
                f"{path}: signature.{key} must be a JSON string, not {shown(part)}"
            )
    inputs = _text(parts["inputs"])
    if inputs is None:
        return None
    try:
        return Signature.from_json_parts(inputs, _text(parts["outputs"]), _text(parts["params"]))
    except PackageFormatError as exc:
        raise PackageFormatError(f"{path}: {exc}") from exc


def _mapping(raw: object) -> dict[str, object] | None:
    return raw if isinstance(raw, dict) else None


def _text(raw: object) -> str | None:
    # YAML reads an unquoted time as a timestamp; str() gives back MLflow's own form of it.
    return str(raw) if isinstance(raw, str | int | float | date) else None
