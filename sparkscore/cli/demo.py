"""`sparkscore demo`: the whole way on real data, in one folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sparkscore.cli import GlobalOptions
from sparkscore.cli.context import note, noted_by_any_thread, open_workspace
from sparkscore.cli.output import Output, show
from sparkscore.demo.folder import claimed_folder
from sparkscore.demo.handover import (
    ENVIRONMENT_FILE,
    same_job,
    same_stream,
    stores_in,
    write_environment_file,
)
from sparkscore.demo.play import NEXT_NIGHT, FlightsDemo
from sparkscore.demo.play_stream import WeatherDemo
from sparkscore.demo.steps import Demo, Step, Watcher
from sparkscore.errors import UsageError, is_interrupt

_NIGHTLY = Path("conf/jobs/flights.yaml")
_STREAM = Path("conf/jobs/weather.yaml")
_INTERRUPTED = 130


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Takes everything that the demo makes; a demo's own folder is emptied first.",
)
@click.option(
    "--stream", "is_stream", is_flag=True, help="Score weather stations' readings as they come."
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def command(folder: Path, is_stream: bool, quiet: bool) -> int:
    """Train on real flights, register two versions, score three nights, one of them twice.

    With --stream: train on real weather, score readings as their files come, change the model
    while the stream runs, and show that none was lost or doubled.

    To be run from the root of the repository, which has the jobs' files.
    """
    options = click.get_current_context().find_object(GlobalOptions)
    assert options is not None
    options.quiet = options.quiet or quiet
    job_file = _STREAM if is_stream else _NIGHTLY
    if not job_file.is_file():
        raise UsageError(
            f"there is no {job_file} in {str(Path.cwd())!r}; run the demo from the root of "
            "sparkscore's repository"
        )
    try:
        with claimed_folder(folder) as place:
            _play(place, job_file, quiet=options.quiet)
    except (Exception, KeyboardInterrupt) as exc:
        if not is_interrupt(exc):
            raise
        click.echo("interrupted; the next demo starts over", err=True)
        return _INTERRUPTED
    return 0


def _play(folder: Path, job_file: Path, *, quiet: bool) -> None:
    kind: type[Demo] = WeatherDemo if job_file is _STREAM else FlightsDemo
    workspace = open_workspace(stores_in(folder))
    try:
        with _watcher(kind.n_steps, quiet=quiet) as watcher:
            demo = kind(workspace, job_file, folder, watcher, noted_by_any_thread())
            demo.play()
    finally:
        workspace.close()
    write_environment_file(folder, workspace.settings.cache.folder)
    _show(demo)


def _show(demo: Demo) -> None:
    rows = [
        {
            "step": step.name,
            "rows": step.n_rows,
            "seconds": round(step.seconds, 2),
            "rows/s": step.rows_per_second and round(step.rows_per_second),
            "status": step.status,
        }
        for step in demo.steps
    ]
    show(rows, ("step", "rows", "seconds", "rows/s", "status"), Output.TABLE)
    click.echo()
    places = demo.places() | {"environment": demo.folder / ENVIRONMENT_FILE}
    show(
        [{"what": what, "where": _shortest(path)} for what, path in places.items()],
        ("what", "where"),
        Output.TABLE,
    )
    for what, line in _lines(demo).items():
        click.echo(f"\n# {what}\n{line}")


def _lines(demo: Demo) -> dict[str, str]:
    """The demo's job, to be run again from elsewhere."""
    if isinstance(demo, WeatherDemo):
        return same_stream(demo.folder, demo.job_file, demo.table_options())
    return same_job(demo.folder, demo.job_file, demo.table_options(NEXT_NIGHT))


def _shortest(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class _Lines:
    """A line for each step that begins and ends."""

    def __init__(self, n_steps: int) -> None:
        self._n_begun, self._n_steps = 0, n_steps

    def begin(self, name: str) -> None:
        self._n_begun += 1
        note(f"[{self._n_begun}/{self._n_steps}] {name}")

    def end(self, step: Step) -> None:
        note(f"        {step.status}, {step.seconds:.1f} s")


class _Bar:
    """One moving line on a terminal."""

    def __init__(self, progress: Progress, n_steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=n_steps)

    def begin(self, name: str) -> None:
        self._progress.update(self._task, description=name)

    def end(self, step: Step) -> None:
        self._progress.print(f"{step.name}: {step.status}, {step.seconds:.1f} s")
        self._progress.advance(self._task)


@contextmanager
def _watcher(n_steps: int, *, quiet: bool) -> Iterator[Watcher]:
    if quiet or not sys.stderr.isatty():
        yield _Lines(n_steps)
        return
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, n_steps)
