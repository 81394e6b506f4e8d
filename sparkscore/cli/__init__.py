"""The `sparkscore` command: one file a noun, loaded when it is called.

Exit codes: 0 done, 1 unexpected, 2 wrong usage or settings, 3 data, 4 model, 5 target,
75 temporary (run it again), 130 Ctrl-C, 143 SIGTERM. Data goes to stdout, all else to stderr.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click

import sparkscore
from sparkscore.cli.signals import unwinding
from sparkscore.errors import InternalError, SparkscoreError, is_interrupt
from sparkscore.extras import missing_extra

_COMMANDS = {
    "aliases": "Aliases of registered models: list, set, delete.",
    "artifacts": "Files of runs: list, download, log.",
    "audit": "The audit trail of a server: list, verify.",
    "certify": "Prove that a model scores the same in every way, on your own rows.",
    "config": "Settings in force, and where each came from.",
    "db": "Databases of runs and models: status, upgrade.",
    "demo": "Play the whole way on real data, in one folder.",
    "doctor": "Check Java, Spark, Delta's jars and the stores; tells what to do.",
    "env": "What a shell needs before spark-submit; environments that models ask for.",
    "experiments": "Experiments: list, search, get, create, rename, delete, restore, csv.",
    "export": "Copy experiments, runs and models to a server.",
    "gc": "Remove for good what was deleted, with its files.",
    "import": "Copy the records and files of MLflow's stores into ours.",
    "models": "Registered models: register, show, search, verify, rename, delete, tag.",
    "outbox": "Records that wait for the tracking store.",
    "runs": "Runs: list, show, compare, delete, restore.",
    "server": "Tracking and registry for clients of MLflow and our own.",
    "score": "Score tables and streams: batch, stream, plan, replay, rejects, clean.",
    "setup": "Find a Java and fetch Delta's jars, once.",
    "tables": "Keep Delta tables fit: maintain.",
    "tokens": "What programs sign in with at a server: create, list, delete.",
    "ui": "The same as `server`.",
    "users": "Users of a server: create, show, grant, revoke, password, delete.",
}
_ALIASES = {"export": "exporting", "import": "importing", "ui": "server"}
_INTERRUPTED = 130


@dataclass
class GlobalOptions:
    """What was said before the command's name."""

    conf: Path | None = None
    target: str | None = None
    assignments: tuple[str, ...] = ()
    debug: bool = False
    quiet: bool = False


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, from the module of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module = _ALIASES.get(cmd_name, cmd_name)
        command: object = import_module(f"sparkscore.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begins with; for an unknown one, the nearest is offered."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, from the table: help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--conf",
    type=click.Path(path_type=Path),
    help="Folder of the settings' YAML files. Default: SPARKSCORE_CONF, or ./conf.",
)
@click.option(
    "--conf-target",
    metavar="NAME",
    help="YAML file laid over base.yaml. Default: SPARKSCORE_CONF_TARGET, or local.",
)
@click.option(
    "--set",
    "assignments",
    metavar="SECTION.KEY=VALUE",
    multiple=True,
    help="One setting; may be given again. Wins over files and environment.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--quiet", is_flag=True, help="No notes on stderr, only errors.")
@click.version_option(sparkscore.__version__, prog_name="sparkscore")
@click.pass_obj
def root(
    options: GlobalOptions,
    *,
    conf: Path | None,
    conf_target: str | None,
    assignments: tuple[str, ...],
    debug: bool,
    quiet: bool,
) -> None:
    """Score packaged models over large tables on Spark: exactly once, every run on record."""
    options.conf, options.target, options.assignments = conf, conf_target, assignments
    options.debug, options.quiet = debug, quiet


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are told on stderr, in one message.

    Args:
        argv: The arguments after the program's name; None: those of this process.
    """
    options = GlobalOptions()
    args = list(sys.argv[1:] if argv is None else argv)
    with unwinding():
        return _guarded(lambda: _invoke(args, options), options)


def _invoke(args: list[str], options: GlobalOptions) -> int:
    try:
        result = root.main(args, prog_name="sparkscore", standalone_mode=False, obj=options)
    except ModuleNotFoundError as exc:
        missing = missing_extra(exc, "this command")
        if missing is None:
            raise
        raise missing from exc
    return result if isinstance(result, int) else 0


def _guarded(run: Callable[[], int], options: GlobalOptions) -> int:
    try:
        return run()
    except click.Abort:
        return _told("interrupted", _INTERRUPTED, options)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except SparkscoreError as exc:
        if is_interrupt(exc):
            return _told("interrupted", _INTERRUPTED, options)
        return _told(f"error [{exc.code}]: {exc}", exc.exit_code, options)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except Exception as exc:  # noqa: BLE001 - the outer edge: whatever is left becomes one message
        if is_interrupt(exc):
            return _told("interrupted", _INTERRUPTED, options)
        text = f"error [{InternalError.code}]: {type(exc).__name__}: {exc}"
        hint = "" if options.debug else "; run again with --debug for the traceback"
        return _told(text + hint, InternalError.exit_code, options)


def _told(text: str, exit_code: int, options: GlobalOptions) -> int:
    if options.debug:
        traceback.print_exc()
    click.echo(text, err=True)
    return exit_code
