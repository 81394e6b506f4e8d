"""A bound on what a process prints, for models that print without end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

_CHUNK_BYTES = 65_536
_PATIENCE_S = 1.0
"""Wait for the last words; a child process that the block left behind may print on for ever."""


@contextmanager
def bounded_output(max_bytes: int) -> Iterator[None]:
    """Pass on at most `max_bytes` of what this process and its children print during a block.

    Both streams go to stderr, where a line tells of what was dropped. Native code is bounded too.
    """
    kept = (os.dup(1), os.dup(2))
    reading, writing = os.pipe()
    for stream in (1, 2):
        os.dup2(writing, stream)
    os.close(writing)
    passing = Thread(target=_pass_on, args=(reading, os.dup(kept[1]), max_bytes), daemon=True)
    passing.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, former in zip((1, 2), kept, strict=True):
            os.dup2(former, stream)
            os.close(former)
        passing.join(_PATIENCE_S)


def _pass_on(reading: int, to: int, max_bytes: int) -> None:
    """Until nobody can print any more, take what comes, so that nobody has to wait."""
    left, is_told = max_bytes, False
    while chunk := os.read(reading, _CHUNK_BYTES):
        passed = chunk[:left]
        left -= len(passed)
        _write(to, passed)
        if len(passed) < len(chunk) and not is_told:
            told = f"\n... more than {max_bytes} bytes were printed; the rest is dropped\n"
            _write(to, told.encode())
            is_told = True
    os.close(reading)
    os.close(to)


def _write(to: int, content: bytes) -> None:
    while content:
        content = content[os.write(to, content) :]
