"""What a package says of itself, and what loading it would take; for people to read."""

from __future__ import annotations

from sparkscore.errors import MissingExtraError, SparkscoreError, UntrustedCodeError
from sparkscore.flavors.base import FlavorConf
from sparkscore.flavors.load import load_predictor
from sparkscore.package.datatypes import type_text
from sparkscore.package.environment import PYTHON_ENV, requirement_lines
from sparkscore.package.layout import Package
from sparkscore.package.manifest import compute_seal
from sparkscore.package.safe_yaml import read_yaml
from sparkscore.package.schema import ColumnSchema, Schema, TensorSchema
from sparkscore.package.signature import Signature
from sparkscore.package.trust import TrustPolicy

_GENERIC = "python_function"


def describe(package: Package) -> dict[str, object]:
    """Facts about a package as plain values.

    Raises:
        PackageFormatError: One of its files does not parse.
    """
    description, folder = package.description, package.folder
    seal = compute_seal(folder)
    python_env = folder / PYTHON_ENV
    return {
        "flavors": {name: _flavor_text(name, conf) for name, conf in description.flavors.items()},
        "mlflow_version": description.mlflow_version,
        "created": description.utc_time_created,
        "run_id": description.run_id,
        "digest": seal.digest,
        "files": len(seal.files),
        "bytes": sum((folder / path).stat().st_size for path in seal.files),
        "python": read_yaml(python_env).get("python") if python_env.is_file() else None,
        "requirements": requirement_lines(package),
        "metadata": dict(description.metadata or {}),
        "loading": _loading(package),
    }


def signature_rows(signature: Signature | None) -> list[dict[str, object]]:
    """A signature as one row an input, an output and a param."""
    if signature is None:
        return []
    rows = [*_schema_rows("input", signature.inputs), *_schema_rows("output", signature.outputs)]
    return rows + [
        {
            "part": "param",
            "name": param.name,
            "type": type_text(param.type) + ("" if param.shape is None else " (list)"),
            "needed": f"default {param.default!r}",
        }
        for param in signature.params
    ]


def _loading(package: Package) -> str:
    """What loading would take: found out by trying, with trust in nothing."""
    try:
        loaded = load_predictor(package, TrustPolicy())
    except UntrustedCodeError as exc:
        return f"needs trust: {exc}"
    except MissingExtraError as exc:
        return str(exc)
    except SparkscoreError as exc:
        return f"cannot be loaded here: {exc}"
    return f"needs no trust; scored by {loaded.runtime.name} ({loaded.runtime.reason})"


def _flavor_text(name: str, conf: FlavorConf) -> str:
    """The library's version, or what loads a python_function."""
    if name == _GENERIC:
        return f"loader {conf.get('loader_module')}"
    versions = [str(value) for key, value in conf.items() if key.endswith("_version")]
    return versions[0] if versions else "any version"


def _schema_rows(part: str, schema: Schema | None) -> list[dict[str, object]]:
    if isinstance(schema, TensorSchema):
        return [
            {
                "part": part,
                "name": tensor.name,
                "type": f"tensor of {tensor.dtype} {list(tensor.shape)}",
                "needed": "required",
            }
            for tensor in schema.tensors
        ]
    if not isinstance(schema, ColumnSchema):
        return []
    return [
        {
            "part": part,
            "name": name,
            "type": type_text(column.type),
            "needed": "required" if column.required else "optional",
        }
        for name, column in zip(schema.names, schema.columns, strict=True)
    ]
