"""A signal ends the command, whatever it breaks into."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from sparkscore.cli.signals import unwinding


@pytest.fixture(autouse=True)
def plain_interrupt() -> Iterator[None]:
    """As in a process of its own: Spark takes Ctrl-C over in one that has a session."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Collected:
    """Something that a weak reference can point to."""


def lose(number: signal.Signals) -> None:
    """Have a signal come while a weak reference's callback runs, which drops exceptions."""

    def callback(_: object) -> None:
        signal.raise_signal(number)

    collected = Collected()
    reference = weakref.ref(collected, callback)
    del collected
    assert reference() is None


def lose_and_wait(number: signal.Signals, times: int) -> None:
    for _ in range(times):
        lose(number)
    threading.Event().wait(20)  # A wait that only a signal to this very thread ends.


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_that_is_dropped_is_sent_again(
    number: signal.Signals, raised: type[BaseException], times: int
) -> None:
    with pytest.raises(raised), unwinding():
        lose_and_wait(number, times)


def terminate_twice() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGTERM)


def test_a_second_sigterm_does_not_break_into_the_clean_up() -> None:
    with pytest.raises(SystemExit) as ended, unwinding():
        terminate_twice()
    assert ended.value.code == 143
    assert ended.value.__context__ is None


def test_other_exceptions_that_are_dropped_are_shown_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: shown.append(what.exc_type))

    def callback(_: object) -> None:
        raise ValueError

    with unwinding():
        collected = Collected()
        reference = weakref.ref(collected, callback)
        del collected
    assert reference() is None
    assert shown == [ValueError]


def test_what_was_in_force_before_is_so_again() -> None:
    def in_force() -> tuple[object, ...]:
        return (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            sys.unraisablehook,
        )

    before = in_force()
    with unwinding():
        assert all(now != then for now, then in zip(in_force(), before, strict=True))
    assert in_force() == before


def test_an_interrupt_that_a_shell_told_to_ignore_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with unwinding():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_exit_code_is_ours_after_an_interrupt_in_evaluated_code() -> None:
    code = (
        "import signal\n"
        "from sparkscore.cli.signals import unwinding\n"
        "try:\n"
        "    with unwinding():\n"
        "        eval('signal.raise_signal(signal.SIGINT)')\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(130)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 130
