"""An environment on its way to the nodes: packed once, unpacked once a node."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from sparkscore.environments.build import BuiltEnvironment
from sparkscore.errors import EnvironmentBuildError, shown
from sparkscore.package.node_folder import node_folder


def packed_environment(built: BuiltEnvironment) -> Path:
    """The environment as an archive beside it, made once.

    It holds all but the base interpreter, which nodes need at the same place.
    """
    path = built.folder.with_name(f"{built.folder.name}-{built.source.stem}.tar.gz")
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            temporary = path.with_suffix(".part")
            with tarfile.open(temporary, "w:gz", compresslevel=1) as tar:
                tar.add(built.folder, arcname=".")
            temporary.rename(path)
    return path


def unpacked_environment(archive: Path) -> Path:
    """The folder on this node of a packed environment, made once.

    Raises:
        EnvironmentBuildError: The archive cannot be unpacked here.
    """
    folder = node_folder() / archive.name.removesuffix(".tar.gz")
    if folder.is_dir():
        return folder
    with FileLock(folder.with_suffix(".lock")):
        if folder.is_dir():
            return folder
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(temporary, filter="tar")
            temporary.rename(folder)
        except (tarfile.TarError, OSError, EOFError) as exc:
            shutil.rmtree(temporary, ignore_errors=True)
            raise EnvironmentBuildError(
                f"the environment {shown(archive.name)} cannot be unpacked on this node: {exc}"
            ) from exc
    return folder
