from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import sparkscore.cli
from sparkscore.cli import root
from sparkscore.errors import ModelNotFoundError

Run = Callable[..., Any]
ROOT = Path(sparkscore.cli.__file__).parents[2]
HEAVY = ("alembic", "numpy", "pandas", "pyarrow", "pydantic", "pyspark", "rich", "sqlalchemy")


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(args, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def _failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that fail in each way, beside the real ones."""
    errors = {
        "refused": ModelNotFoundError("model 'x' has no version 9; known: 1, 2"),
        "broken": ZeroDivisionError("division by zero"),
        "stopped": KeyboardInterrupt(),
        "lacking": ModuleNotFoundError("No module named 'pyarrow.lib'", name="pyarrow.lib"),
    }

    def command(name: str) -> click.Command:
        def fail() -> None:
            raise errors[name]

        return click.Command(name, callback=fail)

    commands = {name: command(name) for name in errors} | {
        "answers": click.Command("answers", callback=lambda: 3)
    }
    monkeypatch.setattr(
        root, "resolve_command", lambda _ctx, args: (args[0], commands[args[0]], args[1:])
    )


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
        import sys
        from sparkscore.cli import main
        assert main(["--help"]) == 0
        assert main(["--version"]) == 0
        print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
    """
    done = python(code, tmp_path)
    assert "Commands:" in done.stdout
    assert "sparkscore, version" in done.stdout
    assert done.stderr.strip() == "[]"


def test_every_command_in_the_table_answers_help(run: Run) -> None:
    for name in sparkscore.cli._COMMANDS:
        answer = run(name, "--help")
        assert answer.exit_code == 0
        assert answer.stdout.startswith(f"Usage: sparkscore {name}")


@pytest.mark.usefixtures("_failing")
def test_an_error_of_ours_is_one_message_with_its_code_and_exit_code(run: Run) -> None:
    answer = run("refused")
    assert answer.exit_code == 4
    assert answer.stderr == "error [MODEL_NOT_FOUND]: model 'x' has no version 9; known: 1, 2\n"
    assert answer.stdout == ""


@pytest.mark.usefixtures("_failing")
def test_an_unexpected_error_is_one_message_too(run: Run) -> None:
    answer = run("broken")
    assert answer.exit_code == 1
    assert answer.stderr == (
        "error [INTERNAL]: ZeroDivisionError: division by zero; "
        "run again with --debug for the traceback\n"
    )


@pytest.mark.usefixtures("_failing")
def test_a_missing_library_names_its_extra(run: Run) -> None:
    answer = run("lacking")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "error [EXTRA_MISSING]: this command needs 'pyarrow', which is not installed; "
        "run: pip install 'sparkscore[spark]'\n"
    )


@pytest.mark.usefixtures("_failing")
def test_debug_shows_the_traceback(run: Run) -> None:
    answer = run("--debug", "broken")
    assert "Traceback (most recent call last)" in answer.stderr
    assert answer.stderr.endswith("error [INTERNAL]: ZeroDivisionError: division by zero\n")


@pytest.mark.usefixtures("_failing")
def test_ctrl_c_ends_with_130(run: Run) -> None:
    answer = run("stopped")
    assert answer.exit_code == 130
    assert answer.stderr.split() == ["interrupted"]


@pytest.mark.usefixtures("_failing")
def test_a_command_may_answer_with_an_exit_code(run: Run) -> None:
    assert run("answers").exit_code == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["confg"], "No such command 'confg'. Did you mean 'config'?"),
        (["zzz"], "No such command 'zzz'."),
        (["config", "show", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml'"),
        (["--nope"], "No such option"),
        (["config", "shw"], "No such command 'shw'"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, args: list[str], message: str) -> None:
    answer = run(*args)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stdout == ""


def test_sigterm_unwinds_and_ends_with_143(tmp_path: Path) -> None:
    code = """
        import os, signal, sys, time
        import click
        from sparkscore.cli import main, root

        def wait():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            finally:
                print("unwound")

        command = click.Command("wait", callback=wait)
        root.resolve_command = lambda ctx, args: ("wait", command, [])
        sys.exit(main(["wait"]))
    """
    done = python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (143, "unwound\n", "")


def test_the_handler_of_sigterm_is_put_back(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run("--version")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "sparkscore.cli", "config", "show"],
        cwd=tmp_path,
        env=env,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_what_the_list_of_commands_names_below_a_command_is_there() -> None:
    context = click.Context(root)
    named: dict[str, set[str]] = {}
    for name, text in sparkscore.cli._COMMANDS.items():
        command = root.get_command(context, name)
        below = text.rpartition(": ")[2].rstrip(".").split(", ")
        if ": " in text and isinstance(command, click.Group):
            named[name] = set(below) - set(command.list_commands(context))
    assert {name: words for name, words in named.items() if words} == {}
    assert {"runs", "score", "models"} <= named.keys()
