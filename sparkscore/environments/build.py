"""Making the environment that a package asks for, once a set of needs: by uv, else venv and pip."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sparkscore.environments.source import place_source
from sparkscore.errors import EnvironmentBuildError, shown
from sparkscore.package.environment import Needs, needs_of
from sparkscore.package.layout import Package

WORKER_REQUIREMENTS = (
    "cloudpickle>=3",
    "filelock>=3.13",
    "numpy",
    "packaging>=24",
    "pandas",
    "pyarrow>=14",
    "pyyaml>=6",
    "threadpoolctl>=3.5",
)
"""What our own code needs beside the package's libraries, in whatever versions go with these."""
_DONE = "built.json"
_TIMEOUT_S = 3600
_N_SHOWN = 6


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment on this machine.

    Attributes:
        key: Digest of what it was made from; equal keys are the same environment.
        folder: Its root, with `bin/python`.
        source: The copy of sparkscore in it, as this process has it.
    """

    key: str
    folder: Path
    source: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"


def build_environment(
    package: Package, cache: Path, announce: Callable[[str], None] | None = None
) -> BuiltEnvironment:
    """The environment for a package; one that was built before for the same needs is taken again.

    Args:
        package: Its python_env.yaml and requirements.txt say what it needs.
        cache: Where environments are kept, a folder each.
        announce: Told in one line what takes long.

    Raises:
        PackageFormatError: The package's files do not say what it needs.
        EnvironmentBuildError: Its libraries cannot be had together, or not for this machine.
    """
    needs = needs_of(package)
    key = environment_key(needs)
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (folder / _DONE).is_file():
            if announce is not None:
                announce(f"Building the environment of {package.folder.name}: {needs.in_words}")
            _build(needs, folder)
        return BuiltEnvironment(key, folder, place_source(folder))


def environment_key(needs: Needs) -> str:
    """Digest of what an environment is made from, the kind of machine among it."""
    facts = [
        _python(needs),
        list(needs.requirements),
        list(needs.constraints),
        list(WORKER_REQUIREMENTS),
        [platform.system(), platform.machine()],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _build(needs: Needs, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # Of a build that was cut off.
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        uv = _uv()
        if uv is None:
            _check_own_python(needs)
            _run([sys.executable, "-m", "venv", temporary], needs)
            install: list[str | Path] = [temporary / "bin" / "python", "-m", "pip"]
            install += ["install", "--quiet"]
        else:
            make = [*uv, "venv", "--quiet", "--relocatable", "--clear"]
            _run([*make, "--python", _python(needs), temporary], needs)
            install = [*uv, "pip", "install", "--quiet", "--python", temporary / "bin" / "python"]
        _run([*install, *_what(needs, temporary)], needs)
        (temporary / _DONE).write_text(json.dumps({"requirements": list(needs.requirements)}))
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _python(needs: Needs) -> str:
    """Major and minor version of the interpreter; which patch it is does not matter."""
    return needs.python or ".".join(platform.python_version_tuple()[:2])


def _check_own_python(needs: Needs) -> None:
    here = ".".join(platform.python_version_tuple()[:2])
    if needs.python not in (None, here):
        raise EnvironmentBuildError(
            _failed_text(needs, f"only uv can take another Python than this {here}: pip install uv")
        )


def _what(needs: Needs, folder: Path) -> list[str | Path]:
    """What is to be installed, as options for uv and pip alike."""
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join([*needs.requirements, *WORKER_REQUIREMENTS]) + "\n")
    options: list[str | Path] = ["-r", wanted]
    if needs.constraints:
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(needs.constraints) + "\n")
        options += ["-c", constraints]
    return options


def _uv() -> list[str] | None:
    """How uv is called here; None where it is not installed."""
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    return None if found is None else [found]


def _run(command: Sequence[str | Path], needs: Needs) -> None:
    words = [str(part) for part in command]
    try:
        done = subprocess.run(  # noqa: S603 - our own command line, no shell
            words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise EnvironmentBuildError(_failed_text(needs, f"no end in {_TIMEOUT_S} s")) from exc
    except OSError as exc:
        raise EnvironmentBuildError(_failed_text(needs, str(exc))) from exc
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise EnvironmentBuildError(_failed_text(needs, " ".join(lines[-_N_SHOWN:])))


def _failed_text(needs: Needs, found: str) -> str:
    return (
        f"the environment of {shown(needs.package)} ({needs.in_words}) cannot be built: {found}; "
        "correct its requirements.txt and python_env.yaml, or install what it names where the "
        "job runs and leave --env-manager out"
    )
