"""Unpacked packages on a node: each once, verified, and not removed while a process holds it.

A folder is named by its digest. What unpacks, verifies or removes it has the lock of that name
for as long; who uses it holds a shared lock on the folder itself, which ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sparkscore.errors import PackageDigestError, SparkscoreError
from sparkscore.package.archive import unpack
from sparkscore.package.manifest import verify
from sparkscore.package.node_folder import node_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HeldPackage:
    """A package that stays on this node until it is released, or until the process ends.

    Attributes:
        folder: Its files, which are those of the digest.
        n_bytes: Their size.
    """

    folder: Path
    n_bytes: int
    _lock: int

    def release(self) -> None:
        """Let others remove it; called once. Files of it that are mapped stay readable."""
        os.close(self._lock)


def hold_package(
    digest: str, open_packed: Callable[[], BinaryIO], max_unpacked_bytes: int
) -> HeldPackage:
    """The package of this digest, unpacked on this node.

    Where it was not there, the ones that were not used for longest make room for it.

    Args:
        digest: Package digest that the driver pinned.
        open_packed: Opens the packed folder; called only if the node does not have it.
        max_unpacked_bytes: What all packages on the node may take; those in use are kept even so.

    Raises:
        PackageDigestError: The bytes on this node are not the pinned ones, and could not be
            replaced by them.
    """
    root = node_folder()
    folder = root / digest
    is_new = False
    with _lock_of(folder):
        if not _is_intact(folder, digest):
            with open_packed() as packed:
                _unpack_into(folder, digest, packed)
            is_new = True
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(folder)
    if is_new:
        _make_room(root, max_unpacked_bytes)
    return HeldPackage(folder, _size(folder), lock)


def _lock_of(folder: Path, timeout_s: float = -1) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout=timeout_s)


def _is_intact(folder: Path, digest: str) -> bool:
    try:
        return verify(folder).digest == digest
    except (SparkscoreError, OSError):
        return False


def _unpack_into(folder: Path, digest: str, packed: BinaryIO) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpack-") as scratch:
        fresh = Path(scratch) / "package"
        try:
            unpack(packed, fresh)
            found = verify(fresh).digest
        except SparkscoreError as exc:
            raise PackageDigestError(_other_bytes_text(digest, str(exc))) from exc
        if found != digest:
            raise PackageDigestError(_other_bytes_text(digest, f"its digest is {found}"))
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
        fresh.rename(folder)


def _make_room(root: Path, max_bytes: int) -> None:
    """Remove packages that nobody holds, the least recently used first, until all fit."""
    folders = [path for path in root.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir()]
    sizes = {folder: _size(folder) for folder in folders}
    for folder in sorted(folders, key=_last_use):
        if sum(sizes.values()) <= max_bytes:
            return
        if _remove_if_free(folder):
            del sizes[folder]


def _remove_if_free(folder: Path) -> bool:
    try:
        with _lock_of(folder, timeout_s=0):
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)
    except (OSError, Timeout):  # In use, or removed by another process just now.
        return False
    return True


def _last_use(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.lstat().st_size)
        except OSError:  # Another process removes the folder.
            continue
    return sum(sizes)


def _other_bytes_text(digest: str, found: str) -> str:
    return (
        f"the package that reached this node does not have the pinned digest {digest}: {found}; "
        "start the job again, and check the node's disk if it happens twice"
    )
