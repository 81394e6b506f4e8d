"""Where compiled kernels are kept: compiled once a node and CPU, then read by every process.

numba names an entry by the kernels' source, the argument types, and the CPU with its features, and
replaces files in one move: processes that compile at the same time do no harm to each other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from sparkscore.package.node_folder import node_folder
from sparkscore.trees.forest import NotCompiledError

_KERNELS = "sparkscore.trees.kernels"


@cache
def load_kernels() -> ModuleType:
    """The module `kernels`, with its cache below this node's folder.

    Raises:
        NotCompiledError: numba is not installed, or does not fit the libraries beside it.
    """
    try:
        import numba
    except ModuleNotFoundError as exc:
        raise NotCompiledError(
            f"{exc.name} is not installed; run: pip install 'sparkscore[trees]'"
        ) from exc
    except ImportError as exc:
        raise NotCompiledError(f"numba cannot be loaded: {exc}") from exc
    folder = _private_folder()
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or "")
    try:
        return _import_kernels(folder)
    finally:
        # Other users of numba in this process keep their own place.
        numba.config.CACHE_DIR = before


def _private_folder() -> Path | None:
    """Where to keep kernels; None, to compile in every process, where others could write.

    A cached kernel is code that runs without a question.
    """
    try:
        folder = node_folder() / "kernels"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if all(map(_is_private, (folder.parent, folder))) else None
    except OSError:
        return None


def _is_private(folder: Path) -> bool:
    facts = folder.lstat()
    others_may_write = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not others_may_write


def _import_kernels(folder: Path | None) -> ModuleType:
    spec = importlib.util.find_spec(_KERNELS)
    assert spec is not None
    if folder is not None and not Path(str(spec.origin)).is_file():
        spec = _unpacked(spec, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_KERNELS] = module
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_KERNELS]
        raise
    return module


def _unpacked(spec: ModuleSpec, folder: Path) -> ModuleSpec:
    """The module out of a zip, as executors get our source, as a file: numba keeps no others."""
    source: str = spec.loader.get_source(_KERNELS)  # type: ignore[union-attr]  # a zipimporter
    data = source.encode()
    path = folder / f"kernels-{hashlib.sha256(data).hexdigest()[:16]}.py"
    if not path.is_file():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
    unpacked = importlib.util.spec_from_file_location(_KERNELS, path)
    assert unpacked is not None
    return unpacked
