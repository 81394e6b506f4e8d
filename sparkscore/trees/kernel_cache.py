"""Where compiled kernels are kept: compiled once a node and CPU, then read by every process.

numba names an entry by the kernel's source, the argument types and the CPU with its features, and
replaces files in one move: processes that compile at the same time do no harm to each other.
"""

from __future__ import annotations

import stat
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from sparkscore.package.node_folder import node_folder

_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@cache
def load_kernels() -> ModuleType:
    """The module `kernels`, with its cache below this node's folder.

    Raises:
        ModuleNotFoundError: numba is not installed.
    """
    import numba

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _cache_folder()
    try:
        from sparkscore.trees import kernels
    finally:
        # Other users of numba in this process keep their own place.
        numba.config.CACHE_DIR = before
    return kernels


def _cache_folder() -> str:
    """The folder's name; empty where kernels must be compiled in every process.

    A cached kernel is code: it may only lie where no one else can write. numba keeps kernels by
    the date of their source file, which a module inside a zip does not have.
    """
    if not Path(__file__).is_file():
        return ""
    try:
        folder = node_folder() / "kernels"
        folder.mkdir(mode=0o700, exist_ok=True)
        is_private = all(_is_private(path) for path in (folder.parent, folder))
    except OSError:
        return ""
    return str(folder) if is_private else ""


def _is_private(folder: Path) -> bool:
    import os

    facts = folder.lstat()
    return (
        stat.S_ISDIR(facts.st_mode)
        and facts.st_uid == os.getuid()
        and not facts.st_mode & stat.S_IWGRP
        and not facts.st_mode & stat.S_IWOTH
    )
