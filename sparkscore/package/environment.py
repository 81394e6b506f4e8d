"""The files that say which libraries a package needs, and the example that shows its input.

Names and forms are MLflow's: `requirements.txt`, `conda.yaml`, `python_env.yaml`,
`input_example.json`.
"""

from __future__ import annotations

import base64
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from sparkscore.errors import PackageFormatError, UsageError, shown
from sparkscore.package.safe_yaml import read_yaml

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.layout import Package

REQUIREMENTS = "requirements.txt"
CONDA_ENV = "conda.yaml"
PYTHON_ENV = "python_env.yaml"
INPUT_EXAMPLE = "input_example.json"

CONSTRAINTS = "constraints.txt"

_CONDA_PYTHON = re.compile(r"python\s*={1,2}\s*(\d[\w.]*)")
_MLFLOW = ("mlflow", "mlflow-skinny")
_SAME_LIBRARY = {"tensorflow": ("tensorflow-cpu",), "xgboost": ("xgboost-cpu",)}
"""Wheels that bring the same modules under another name."""


@dataclass(frozen=True)
class Mismatch:
    """A way in which an interpreter is not what a package needs.

    Attributes:
        name: A library, `python`, or a line of requirements.txt.
        needed: What the package says of it.
        found: The version that is there; None: none is.
        is_checked: Whether the line could be understood.
    """

    name: str
    needed: str
    found: str | None
    is_checked: bool = True

    def __str__(self) -> str:
        if not self.is_checked:
            return f"{self.name}: {shown(self.needed)} is no plain requirement and is not checked"
        here = "here it is not installed" if self.found is None else f"here is {self.found}"
        if self.name == "python":
            return f"python: the package was made with {self.needed}, {here}"
        return f"{self.name}: the package needs {self.needed}, {here}"


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
    _write_files(folder, lines, python, conda)


def _write_files(
    folder: Path, lines: Iterable[str], python: str, conda: Mapping[str, object]
) -> None:
    python_env = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": [f"-r {REQUIREMENTS}"],
    }
    (folder / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in ((CONDA_ENV, conda), (PYTHON_ENV, python_env)):
        text = yaml.safe_dump(content, default_flow_style=False, sort_keys=False)
        (folder / name).write_text(text, encoding="utf-8")


def write_conda_environment(folder: Path, conda: Mapping[str, object] | Path) -> None:
    """Write the three environment files of a package as a conda environment says.

    Args:
        folder: The package.
        conda: The environment, or the path of its YAML. Its pip packages are written as they are;
            its other packages are for conda alone.

    Raises:
        UsageError: It is no conda environment, or one of its pip packages is no requirement.
        PackageFormatError: The file does not parse.
    """
    content = dict(read_yaml(conda) if isinstance(conda, Path) else conda)
    listed_there = content.get("dependencies")
    if not isinstance(listed_there, list):
        raise UsageError(f"conda_env= has no list 'dependencies': {shown(content)}")
    pip = [node["pip"] for node in listed_there if isinstance(node, dict) and "pip" in node]
    lines = [str(line) for each in pip for line in each]
    for line in lines:
        try:
            Requirement(line)
        except InvalidRequirement as exc:
            raise UsageError(f"conda_env= names {shown(line)} for pip: {exc}") from exc
    named = (_CONDA_PYTHON.fullmatch(str(node)) for node in listed_there)
    python = next((match[1] for match in named if match), platform.python_version())
    _write_files(folder, lines, python, content)


@dataclass(frozen=True)
class Needs:
    """What an environment of its own has to have for a package.

    Attributes:
        package: The package's folder, for messages.
        python: Major and minor version; None: the package does not say.
        requirements: Plain requirements, sorted.
        constraints: The same of its constraints.txt.
    """

    package: str
    python: str | None
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """The needs in a few words."""
        python = f"Python {self.python}" if self.python else "any Python"
        return f"{python}, {len(self.requirements)} requirements"


def needs_of(package: Package) -> Needs:
    """What a package says that it needs.

    MLflow names itself in every package; it is left out where a library's own flavor scores.

    Raises:
        PackageFormatError: python_env.yaml does not parse, or a line of requirements.txt or
            constraints.txt is an option, a URL, or no requirement.
    """
    wanted = str(_python_env(package).get("python", ""))
    own_flavor = set(package.description.flavors) > {"python_function"}
    requirements = _plain_requirements(package.folder / REQUIREMENTS)
    return Needs(
        package=str(package.folder),
        python=".".join(wanted.split(".")[:2]) or None,
        requirements=tuple(
            sorted(str(r) for r in requirements if not (own_flavor and r.name in _MLFLOW))
        ),
        constraints=tuple(sorted(map(str, _plain_requirements(package.folder / CONSTRAINTS)))),
    )


def _plain_requirements(path: Path) -> list[Requirement]:
    found = []
    for number, line in _lines(path):
        where = f"{path} line {number}: {shown(line)}"
        if line in (f"-c {CONSTRAINTS}", f"--constraint {CONSTRAINTS}"):
            continue  # MLflow's own way to say that the file beside counts.
        try:
            requirement = Requirement(line)
        except InvalidRequirement as exc:
            raise PackageFormatError(
                f"{where} is no plain requirement; write NAME==VERSION there"
            ) from exc
        if requirement.url is not None:
            raise PackageFormatError(
                f"{where} is fetched from a place of its own; name a version that an index has"
            )
        found.append(requirement)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file of requirements that say something, with their numbers."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        plain = line.split(" #")[0].strip()
        if plain and not plain.startswith("#"):
            yield number, plain


def check_environment(
    package: Package, python: str | None = None, versions: Mapping[str, str] | None = None
) -> list[Mismatch]:
    """Each way in which an interpreter differs from what the package needs.

    Empty when all fits, or when the package says nothing. A line of requirements.txt that is
    no plain requirement (an option, a path, a typing error) is named with its number.

    Args:
        package: The opened package.
        python: Version of the interpreter; None: this one's.
        versions: Its libraries by the names that the package gives; None: this one's.

    Raises:
        PackageFormatError: python_env.yaml does not parse.
    """
    found = _check_python(package, python or platform.python_version())
    for number, line in _lines(package.folder / REQUIREMENTS):
        mismatch = _check_line(line, number, versions)
        if mismatch is not None:
            found.append(mismatch)
    return found


def requirement_lines(package: Package) -> list[str]:
    """What requirements.txt says, line by line, without remarks."""
    return [line for _, line in _lines(package.folder / REQUIREMENTS)]


def names_needed(package: Package) -> tuple[str, ...]:
    """The libraries that requirements.txt names, however it does."""
    names = []
    for line in requirement_lines(package):
        try:
            names.append(Requirement(line).name)
        except InvalidRequirement:
            continue
    return tuple(names)


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


def read_example(package: Package) -> Mapping[str, list[object]] | None:
    """The rows of input that a package brings, by column; None: it brings none, or tensors.

    Raises:
        PackageFormatError: The file does not hold what MLmodel says.
    """
    info = package.description.saved_input_example_info or {}
    if info.get("type") != "dataframe":
        return None
    path = package.folder / str(info.get("artifact_path", INPUT_EXAMPLE))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = zip(*content["data"], strict=True)
        return {name: list(values) for name, values in zip(content["columns"], rows, strict=True)}
    except KeyError:
        return None  # Columns without names.
    except (OSError, ValueError, TypeError) as exc:
        raise PackageFormatError(
            f"the input example {str(path)!r} is no table: {exc}; save the model again"
        ) from exc


def write_tensors(folder: Path, tensors: object) -> dict[str, object]:
    """Write arrays, as (nested) lists or by name, as `input_example.json`; see `write_example`."""
    text = json.dumps(tensors, default=str)  # Times as their text, as in frames.
    (folder / INPUT_EXAMPLE).write_text(text, encoding="utf-8")
    return {"artifact_path": INPUT_EXAMPLE, "type": "ndarray"}


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


def _python_env(package: Package) -> Mapping[str, object]:
    path = package.folder / PYTHON_ENV
    return read_yaml(path) if path.is_file() else {}


def _check_python(package: Package, here: str) -> list[Mismatch]:
    wanted = str(_python_env(package).get("python", ""))
    if not wanted or wanted.split(".")[:2] == here.split(".")[:2]:
        return []
    return [Mismatch("python", wanted, here)]


def _check_line(line: str, number: int, versions: Mapping[str, str] | None) -> Mismatch | None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return Mismatch(f"{REQUIREMENTS} line {number}", line, None, is_checked=False)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    # MLflow names itself in every package; scoring here does not need it.
    if requirement.name.casefold() in _MLFLOW:
        return None
    name = requirement.name
    here = installed_version(name) if versions is None else versions.get(name)
    if here is not None and requirement.specifier.contains(here, prereleases=True):
        return None
    return Mismatch(name, line, here)
