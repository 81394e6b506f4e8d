"""Signals become exceptions that unwind the command, wherever they break in."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_TERMINATED = 143
_AGAIN_S = 0.05
"""Until a lost signal is sent again; what it broke into has returned by then."""


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C.

    Python kills itself by the signal at its end, whatever the exit code, when a plain
    KeyboardInterrupt has passed through `eval` or `exec`, of which each new dataclass makes use.
    """


@contextmanager
def unwinding() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions within the block, and send them again where lost.

    A signal that breaks into a weak reference's callback or a finalizer raises there, and Python
    drops that exception: Ctrl-C in a long call of a library, which is followed by a collection of
    garbage, would do nothing.

    Raises:
        KeyboardInterrupt: SIGINT came.
        SystemExit: SIGTERM came; the code is 143.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hook = sys.unraisablehook
    if before[signal.SIGINT] is signal.default_int_handler:  # Else a shell said to ignore it.
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _sending_again(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Interrupted


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # A second SIGTERM must not break into the clean-up that the first one began.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_TERMINATED)


def _sending_again(
    hook: Callable[[UnraisableHookArgs], object],
) -> Callable[[UnraisableHookArgs], None]:
    again: threading.Timer | None = None

    def send_soon(number: signal.Signals) -> None:
        nonlocal again
        if again is not None and again.is_alive():
            return
        # To the main thread itself: a signal that another one gets ends no wait of it.
        main = threading.main_thread().ident
        assert main is not None
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, number))
        again.daemon = True
        again.start()

    def dropped(what: UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            send_soon(signal.SIGINT)
        elif issubclass(what.exc_type, SystemExit):
            signal.signal(signal.SIGTERM, _terminate)
            send_soon(signal.SIGTERM)
        else:
            hook(what)

    return dropped
