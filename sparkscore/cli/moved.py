"""How a move is summed up: counts by kind, and what was left out with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkscore.cli.context import note
from sparkscore.cli.output import Output, show, show_record

if TYPE_CHECKING:
    from sparkscore.moving.tally import Tally

_KINDS = (
    "experiment",
    "run",
    "metric point",
    "logged model",
    "registered model",
    "model version",
    "file",
    "byte",
)
LEFT_OUT = 3
"""The exit code where something did not come over that should be mended."""

_COLUMNS = ("what", "new", "there_before", "left_out")


def show_tally(tally: Tally, output: Output) -> None:
    """Counts as a table with the reasons on stderr, or all as one object."""
    others = sorted({it.kind for it in tally.left_out} - set(_KINDS))
    counts: list[dict[str, object]] = [
        {
            "what": kind,
            "new": tally.new[kind],
            "there_before": tally.there[kind],
            "left_out": tally.n_left_out(kind),
        }
        for kind in (*_KINDS, *others)
    ]
    reasons: list[dict[str, object]] = [
        {"what": it.kind, "n": it.n, "why": it.why, "examples": it.examples}
        for it in tally.left_out
    ]
    if output in (Output.JSON, Output.JSONL):
        show_record({"records": counts, "left_out": reasons}, output)
        return
    show(counts, _COLUMNS, output)
    for it in tally.left_out:
        note(f"left out: {it.kind} ({it.n}): {it.why}; such as {', '.join(it.examples)}")
