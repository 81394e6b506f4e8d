"""`sparkscore outbox`: records that were kept on disk while the tracking store was away."""

from __future__ import annotations

import click

from sparkscore.cli.context import open_workspace
from sparkscore.cli.output import Output, output_option, show
from sparkscore.errors import InvalidStateError, StoreUnavailableError, listed


@click.group()
def command() -> None:
    """Records that wait for the tracking store."""


@command.command("list")
@output_option
def list_waiting(output: Output) -> None:
    """Runs with records that wait, the longest waiting first."""
    waiting = open_workspace().outbox.waiting()
    show([{"run_id": run_id} for run_id in waiting], ("run_id",), output)


@command.command("replay")
@output_option
def replay(output: Output) -> None:
    """Deliver what waits; harmless when it is run again or twice at once."""
    report = open_workspace().outbox.replay()
    rows = [_row(run_id, "delivered") for run_id in report.delivered]
    rows += [_row(run_id, "waiting") for run_id in report.left]
    rows += [_row(run.run_id, "refused", run.reason) for run in report.refused]
    show(rows, ("run_id", "state", "reason"), output)
    if report.refused:
        paths = listed(str(run.path) for run in report.refused)
        raise InvalidStateError(
            f"runs that the tracking store refused: {len(report.refused)}; what they recorded is "
            f"kept in {paths}, each with its reason beside it"
        )
    if report.left:
        raise StoreUnavailableError(
            f"runs that still wait, because the tracking store did not answer: {len(report.left)}; "
            "`sparkscore doctor` shows why"
        )


def _row(run_id: str, state: str, reason: str | None = None) -> dict[str, object]:
    return {"run_id": run_id, "state": state, "reason": reason}
