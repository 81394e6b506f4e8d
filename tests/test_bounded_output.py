from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from sparkscore.bounded_output import bounded_output


def run(body: str) -> subprocess.CompletedProcess[str]:
    imports = "import os, sys\nfrom sparkscore.bounded_output import bounded_output\n"
    code = imports + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_what_fits_is_passed_on_to_stderr_and_the_streams_come_back() -> None:
    done = run("""
        with bounded_output(100):
            print("by Python")
            os.write(1, b"past it\\n")
        print("after")
    """)
    assert (done.stdout, sorted(done.stderr.split("\n"))) == (
        "after\n",
        ["", "by Python", "past it"],
    )


def test_the_rest_is_dropped_and_a_line_says_so() -> None:
    done = run("""
        with bounded_output(1000):
            for _ in range(100):
                os.write(2, b"x" * 100_000)
        sys.stderr.write("after")
    """)
    printed, told, after = done.stderr.split("\n")
    assert printed == "x" * 1000
    assert told == "... more than 1000 bytes were printed; the rest is dropped"
    assert after == "after"


def test_a_child_that_prints_on_does_not_hold_the_block() -> None:
    done = run("""
        import subprocess, time
        started = time.monotonic()
        with bounded_output(1000):
            child = subprocess.Popen(["sleep", "30"])
        assert time.monotonic() - started < 10
        child.kill()
    """)
    assert done.returncode == 0


def test_all_that_fits_is_passed_on_though_a_child_keeps_the_streams_open() -> None:
    done = run("""
        import subprocess
        with bounded_output(10_000_000):
            child = subprocess.Popen(["sleep", "30"])
            os.write(2, b"x" * 5_000_000)
        sys.stderr.write("after")
        child.kill()
    """)
    assert done.stderr == "x" * 5_000_000 + "after"


def test_an_error_of_the_block_gives_the_streams_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), bounded_output(100):
        raise ZeroDivisionError
    sys.stdout.write("after\n")
    sys.stdout.flush()
    assert capfd.readouterr().out == "after\n"
