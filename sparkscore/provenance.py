"""Where a run comes from: user, source, git commit, and the versions it ran with."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sparkscore.package.environment import installed_version
from sparkscore.tracking import RunOrigin

_LIBRARIES = (
    "sparkscore",
    "pyspark",
    "delta-spark",
    "deltalake",
    "pyarrow",
    "pandas",
    "numpy",
    "scikit-learn",
    "lightgbm",
    "xgboost",
    "catboost",
    "onnx",
    "onnxruntime",
    "statsmodels",
    "prophet",
    "torch",
    "transformers",
    "keras",
    "tensorflow",
    "numba",
)


def run_origin() -> RunOrigin:
    """Who and what started the runs of this process."""
    return RunOrigin(
        user=_user(),
        source_name=sys.argv[0] or "python",
        git_commit=git_commit(Path.cwd()) or "",
    )


def environment() -> dict[str, object]:
    """Versions of Python, the machine and the libraries that decide what a score is."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": dict(_installed()),
    }


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in the git tree around `folder`, or None.

    Read from git's files, so that neither git nor a child process is needed.
    """
    root = next((p for p in (folder, *folder.parents) if (p / ".git").exists()), None)
    if root is None:
        return None
    git = root / ".git"
    try:
        if git.is_file():  # A work tree or submodule names its real folder.
            git = (root / git.read_text().removeprefix("gitdir:").strip()).resolve()
        return _resolve_head(git)
    except OSError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container may run under a number that has no name.
        return str(os.getuid())


def _resolve_head(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    shared = (git / common.read_text().strip()).resolve() if common.exists() else git
    loose = shared / name
    if loose.exists():
        return loose.read_text().strip()
    return _packed_refs(shared / "packed-refs").get(name)


def _packed_refs(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    pairs = (line.split() for line in path.read_text().splitlines() if line[:1] not in "#^")
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}  # noqa: PLR2004 - digest, name


@cache
def _installed() -> Mapping[str, str]:
    versions = {name: installed_version(name) for name in _LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}
