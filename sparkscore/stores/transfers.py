"""What every way of moving files shares: which local files may go, and how files arrive whole."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sparkscore.errors import RecordNotFoundError, UsageError

STAGING_PREFIX = ".incoming-"
"""Begins the names of files that are not there yet; never listed."""

# Few: each may hold several requests and some megabytes of its own.
_N_AT_ONCE = 4

_Item = TypeVar("_Item")


def files_to_put(local: Path) -> list[tuple[str, Path]]:
    """The regular files of a local file or folder, each with its path below it (`""`: itself).

    Raises:
        RecordNotFoundError: There is nothing at `local`.
        UsageError: It is, or holds, a device, a socket, a FIFO, or a symbolic link to a folder or
            out of the folder.
    """
    if not local.exists():
        raise RecordNotFoundError(f"there is no file or folder {str(local)!r} to store")
    source = local.resolve()
    if not source.is_dir():
        check_regular(source)
        return [("", source)]
    found: list[tuple[str, Path]] = []
    for folder, names, files in os.walk(source):
        for name in names:
            check_no_link(Path(folder) / name)
        for name in sorted(files):
            path = Path(folder) / name
            check_inside(path, source)
            check_regular(path)
            found.append((path.relative_to(source).as_posix(), path))
    return found


def check_regular(path: Path) -> None:
    """Refuse what is no regular file; asked before opening, since to open a FIFO hangs.

    Raises:
        UsageError: It is a device, a socket or a FIFO.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise _refused(path, "is no regular file")


def check_no_link(folder: Path) -> None:
    """Refuse a folder that is a link: it may lead out, or in a ring.

    Raises:
        UsageError: It is one.
    """
    if folder.is_symlink():
        raise _refused(folder, "is a symbolic link to a folder")


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a file that is a link to elsewhere.

    Raises:
        UsageError: It leads out of `folder`, which is resolved.
    """
    if not path.resolve().is_relative_to(folder):
        raise _refused(path, "is a symbolic link out of the folder")


@contextmanager
def arriving(local: Path) -> Iterator[Path]:
    """A path beside `local` that becomes `local` once the block has filled it.

    Raises:
        UsageError: `local` exists already.
    """
    if local.exists():
        raise UsageError(f"{str(local)!r} exists already: name a new file or folder")
    local.parent.mkdir(parents=True, exist_ok=True)
    staged = local.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
    try:
        yield staged
        staged.rename(local)
    finally:
        remove(staged)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def for_each(move: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Call `move` for every item, some at once; after an error none is begun, and it is raised."""
    if len(items) == 1:
        move(items[0])
        return
    with ThreadPoolExecutor(_N_AT_ONCE, thread_name_prefix="sparkscore-transfer") as pool:
        futures = [pool.submit(move, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"{str(path)!r} {why} and is not copied: replace it by the file itself")
