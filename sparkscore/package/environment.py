"""The files that say which libraries a package needs, and the example that shows its input.

Names and forms are MLflow's: `requirements.txt`, `conda.yaml`, `python_env.yaml`,
`input_example.json`.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from sparkscore.errors import UsageError, shown
from sparkscore.package.safe_yaml import read_yaml

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.layout import Package

REQUIREMENTS = "requirements.txt"
CONDA_ENV = "conda.yaml"
PYTHON_ENV = "python_env.yaml"
INPUT_EXAMPLE = "input_example.json"

_SAME_LIBRARY = {"xgboost": ("xgboost-cpu",)}
"""Wheels that bring the same modules under another name."""


def pin_requirements(requirements: Iterable[str]) -> tuple[str, ...]:
    """Each requirement with the installed version, sorted; one that has a version keeps it.

    Raises:
        UsageError: A line is no requirement, or its library is not installed.
    """
    pinned: dict[str, str] = {}
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as exc:
            raise UsageError(f"requirement {shown(line)} does not parse: {exc}") from exc
        suffix = ""
        if not requirement.specifier and not requirement.url:
            installed = installed_version(requirement.name)
            if installed is None:
                raise UsageError(
                    f"requirement {shown(line)} is not installed; install it or name its version"
                )
            suffix = f"=={installed}"
        pinned[requirement.name.casefold()] = line.strip() + suffix
    return tuple(pinned[name] for name in sorted(pinned))


def installed_version(name: str) -> str | None:
    """The version of a library, by whichever wheel it came; None where it is not installed."""
    for distribution in (name, *_SAME_LIBRARY.get(name.casefold(), ())):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def write_environment(folder: Path, pinned: Iterable[str]) -> None:
    """Write the three environment files of a package, for this Python and these libraries."""
    lines = list(pinned)
    python = platform.python_version()
    conda = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": lines}],
        "name": "mlflow-env",
    }
    python_env = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": [f"-r {REQUIREMENTS}"],
    }
    (folder / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in ((CONDA_ENV, conda), (PYTHON_ENV, python_env)):
        text = yaml.safe_dump(content, default_flow_style=False, sort_keys=False)
        (folder / name).write_text(text, encoding="utf-8")


def check_environment(package: Package) -> list[str]:
    """One plain line for each way in which this Python differs from what the package needs.

    Empty when all fits, or when the package says nothing. A line of requirements.txt that is
    no plain requirement (an option, a path, a typing error) is named with its number.

    Raises:
        PackageFormatError: python_env.yaml does not parse.
    """
    differences = _check_python(package.folder / PYTHON_ENV)
    path = package.folder / REQUIREMENTS
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            plain = line.split(" #")[0].strip()
            if plain and not plain.startswith("#"):
                differences.extend(_check_line(plain, f"{REQUIREMENTS} line {number}"))
    return differences


def write_example(folder: Path, rows: pa.RecordBatch, *, named: bool) -> dict[str, object]:
    """Write `input_example.json` and return what MLmodel says about it.

    Args:
        folder: The package.
        rows: A few rows of input.
        named: Whether the columns have names of their own, and not just positions.
    """
    values = (column.to_pylist(maps_as_pydicts="strict") for column in rows.columns)
    content: dict[str, object] = {"columns": rows.schema.names} if named else {}
    content["data"] = [[_plain(value) for value in row] for row in zip(*values, strict=True)]
    (folder / INPUT_EXAMPLE).write_text(json.dumps(content), encoding="utf-8")
    return {"artifact_path": INPUT_EXAMPLE, "type": "dataframe", "pandas_orient": "split"}


def _plain(value: object) -> object:
    """A value as MLflow's JSON has it: times in ISO form, bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _check_python(path: Path) -> list[str]:
    if not path.is_file():
        return []
    wanted = str(read_yaml(path).get("python", ""))
    here = platform.python_version()
    if not wanted or wanted.split(".")[:2] == here.split(".")[:2]:
        return []
    return [f"python: the package was made with {wanted}, here is {here}"]


def _check_line(line: str, where: str) -> list[str]:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return [f"{where}: {shown(line)} is no plain requirement and is not checked"]
    if requirement.marker is not None and not requirement.marker.evaluate():
        return []
    # MLflow names itself in every package; scoring here does not need it.
    if requirement.name.casefold() in ("mlflow", "mlflow-skinny"):
        return []
    here = installed_version(requirement.name)
    if here is None:
        return [f"{requirement.name}: the package needs {line}, here it is not installed"]
    if requirement.specifier.contains(here, prereleases=True):
        return []
    return [f"{requirement.name}: the package needs {line}, here is {here}"]
