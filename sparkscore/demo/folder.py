"""The one folder that the demo writes to: known again by a marker, emptied by the next demo."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sparkscore.errors import UsageError

MARKER = ".sparkscore-demo"
_LOCK = ".sparkscore-demo.lock"
_MARKER_TEXT = "Made by `sparkscore demo`, which empties this folder when it starts.\n"


@contextmanager
def claimed_folder(folder: Path) -> Iterator[Path]:
    """`folder` as an absolute path: empty but for its marker, and nobody else's in the block.

    What an earlier demo left there is removed, however that one ended.

    Raises:
        UsageError: The folder holds files of others, another demo runs in it, or it cannot be
            written to.
    """
    place = folder.absolute()
    lock = FileLock(place / _LOCK)
    with _told_as_usage(place):
        _check_own(place)
        place.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    try:
        with _told_as_usage(place):
            # First of all: a folder that is cut off half full must still be known as ours.
            (place / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")
            _empty(place)
        yield place
    finally:
        lock.release()


@contextmanager
def _told_as_usage(place: Path) -> Iterator[None]:
    try:
        yield
    except Timeout as exc:
        raise UsageError(
            f"another demo runs in {str(place)!r}; wait for its end, or name another folder "
            "with --folder"
        ) from exc
    except OSError as exc:
        raise UsageError(
            f"the demo cannot use {str(place)!r}: {exc.strerror}; name a folder with --folder"
        ) from exc


def _check_own(place: Path) -> None:
    names = {path.name for path in place.iterdir()} if place.exists() else set()
    if names - {_LOCK} and MARKER not in names:
        raise UsageError(
            f"{str(place)!r} holds files that are not the demo's, and the demo empties its folder; "
            "name a new one with --folder"
        )


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.name in {MARKER, _LOCK}:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
