"""`sparkscore gc`: remove for good what was deleted, with its files."""

from __future__ import annotations

import re

import click

from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, utc
from sparkscore.cli.store_options import store_options, store_settings
from sparkscore.errors import UsageError, shown
from sparkscore.purging import Fate, Purged, PurgedStores, Selection, purge
from sparkscore.stores.base import system_clock

_COLUMNS = (
    "kind",
    "record_id",
    "experiment_id",
    "deleted",
    "n_rows",
    "n_files",
    "n_bytes",
    "state",
    "detail",
)
_AGE = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?",
    re.ASCII,
)
_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000)


def _ids(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


@click.command()
@click.option(
    "--older-than", metavar="AGE", help="Deleted for at least so long, such as 30d or 1d2h3m4s."
)
@click.option("--run-ids", default="", callback=_ids, help="These runs alone, with commas.")
@click.option(
    "--experiment-ids",
    default="",
    callback=_ids,
    help="These experiments with all that they hold, with commas.",
)
@click.option(
    "--logged-model-ids", default="", callback=_ids, help="These logged models, with commas."
)
@store_options
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and how large it is.")
@output_option
def command(
    *,
    older_than: str | None,
    run_ids: tuple[str, ...],
    experiment_ids: tuple[str, ...],
    logged_model_ids: tuple[str, ...],
    dry_run: bool,
    output: Output,
    **stores_named: str | None,
) -> int:
    """Remove for good the runs, logged models and experiments that were deleted, with their files.

    Files of registered versions stay, and so does what holds them. Ended at any point, the next
    call finishes what this one began. It may run beside servers and jobs.
    """
    workspace = open_workspace(store_settings(stores_named))
    stores = PurgedStores(
        runs=workspace.runs,
        logged_models=workspace.logged_models,
        models=workspace.models,
        purges=workspace.purges,
        open_at=workspace.artifacts_at,
    )
    selection = Selection(
        before_ms=system_clock() - (0 if older_than is None else age_ms(older_than)),
        run_ids=run_ids,
        logged_model_ids=logged_model_ids,
        experiment_ids=experiment_ids,
    )
    lines = purge(stores, selection, is_dry=dry_run)
    show([_row(line) for line in lines], _COLUMNS, output)
    note(_summary(lines, is_dry=dry_run))
    return max((line.error.exit_code for line in lines if line.error is not None), default=0)


def age_ms(text: str) -> int:
    """An age such as 1d2h3m4s in milliseconds.

    Raises:
        UsageError: It is none.
    """
    found = _AGE.fullmatch(text.strip())
    if found is None or not text.strip():
        raise UsageError(
            f"--older-than {shown(text)} is no age: give days, hours, minutes and seconds in this "
            "order, such as 30d or 1d2h3m4s"
        )
    numbers = zip(found.groups(), _UNITS_MS, strict=True)
    return round(sum(float(number) * unit for number, unit in numbers if number))


def _row(line: Purged) -> dict[str, object]:
    return {
        "kind": str(line.kind),
        "record_id": line.record_id,
        "experiment_id": line.experiment_id,
        "deleted": None if line.deletion_time_ms is None else utc(line.deletion_time_ms),
        "n_rows": line.n_rows,
        "n_files": line.n_files,
        "n_bytes": line.n_bytes,
        "state": line.fate.value,
        "detail": line.detail,
    }


def _summary(lines: list[Purged], *, is_dry: bool) -> str:
    fate = Fate.TO_BE_REMOVED if is_dry else Fate.REMOVED
    gone = [line for line in lines if line.fate is fate]
    n_rows, n_bytes = sum(line.n_rows for line in gone), sum(line.n_bytes for line in gone)
    n_other = len(lines) - len(gone)
    return (
        f"{fate}: {len(gone)} of {len(lines)}, with {n_rows} rows and {n_bytes} bytes of files"
        + (f"; {n_other} stay, see their detail" if n_other else "")
    )
