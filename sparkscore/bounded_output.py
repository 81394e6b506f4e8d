"""A bound on what a process prints, for models that print without end."""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from threading import Lock, Thread
from time import monotonic

_CHUNK_BYTES = 65_536
_PATIENCE_S = 0.05
"""Wait for the streams' end, which does not come where a child process is left with them."""
_MAX_PATIENCE_S = 1.0
"""Wait for what is printed to be passed on; such a child may print for ever."""


@contextmanager
def bounded_output(max_bytes: int) -> Iterator[None]:
    """Pass on at most `max_bytes` of what this process and its children print during a block.

    Both streams go to stderr, where a line tells of what was dropped. Native code is bounded too.
    """
    kept = (os.dup(1), os.dup(2))
    reading, writing = os.pipe()
    waiting = os.dup(reading)  # The thread closes its own.
    for stream in (1, 2):
        os.dup2(writing, stream)
    os.close(writing)
    busy = Lock()
    to = os.dup(kept[1])
    passing = Thread(target=_pass_on, args=(reading, to, max_bytes, busy), daemon=True)
    passing.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, former in zip((1, 2), kept, strict=True):
            os.dup2(former, stream)
            os.close(former)
        until = monotonic() + _MAX_PATIENCE_S
        passing.join(_PATIENCE_S)
        while passing.is_alive() and not _is_passed_on(waiting, busy) and monotonic() < until:
            passing.join(_PATIENCE_S)
        os.close(waiting)


def _pass_on(reading: int, to: int, max_bytes: int, busy: Lock) -> None:
    """Until nobody can print any more, take what comes, so that nobody has to wait."""
    left, is_told, chunk = max_bytes, False, b"."
    while chunk:
        select([reading], [], [])
        with busy:
            chunk = os.read(reading, _CHUNK_BYTES)
            passed = chunk[:left]
            left -= len(passed)
            _write(to, passed)
            if len(passed) < len(chunk) and not is_told:
                told = f"\n... more than {max_bytes} bytes were printed; the rest is dropped\n"
                _write(to, told.encode())
                is_told = True
    os.close(reading)
    os.close(to)


def _is_passed_on(waiting: int, busy: Lock) -> bool:
    """Whether all that was printed so far is passed on."""
    with busy:
        return not any(fcntl.ioctl(waiting, termios.FIONREAD, bytes(4)))


def _write(to: int, content: bytes) -> None:
    while content:
        content = content[os.write(to, content) :]
