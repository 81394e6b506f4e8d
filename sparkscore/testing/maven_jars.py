"""Jars that only tests need, fetched as Delta's are: by the user's Maven or Ivy settings, once."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from sparkscore.spark.ivy import IvyProject, ivy_command
from sparkscore.spark.java import find_java

_FETCH_TIMEOUT_S = 900


def fetched_jars(cache: Path, name: str, projects: Iterable[IvyProject]) -> list[Path]:
    """The jars of modules and of what they need; fetched if they are not in the cache.

    Args:
        cache: Where they are kept for good.
        name: Of their folder in the cache: it says which modules, of which release.
        projects: What to fetch.

    Raises:
        RuntimeError: They could not be fetched.
    """
    store = cache / "jars" / name
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock", timeout=_FETCH_TIMEOUT_S):
        if not store.is_dir():
            with tempfile.TemporaryDirectory(dir=store.parent, prefix=".fetch-") as scratch:
                draft = Path(scratch) / store.name
                draft.mkdir()
                for project in projects:
                    _fetch(project, cache, Path(scratch), draft)
                draft.rename(store)
    return sorted(store.glob("*.jar"))


def _fetch(project: IvyProject, cache: Path, scratch: Path, target: Path) -> None:
    command, tried = ivy_command(
        project,
        find_java(cache, os.environ),
        scratch=scratch,
        target=target,
        home=Path.home(),
        settings=None,
        environ=os.environ,
    )
    done = subprocess.run(  # noqa: S603 - our own command line, no shell
        command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{project.module} could not be fetched by {tried}:\n{done.stdout}")
