"""How far the rows of a stream have moved from its first ones, column by column."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sparkscore.scoring.checks import merged
from sparkscore.scoring.sketch import ColumnSketch, drift

_N_PANES = 20
_LEAST = 0.1
"""Share of the window that has to be there: between few rows, chance alone is a drift."""

Sketches = Mapping[str, ColumnSketch]


@dataclass
class DriftWindow:
    """The first rows that a model has scored, and the last ones.

    Memory stays the same for ever: the last rows are kept as some twenty sketches a column.

    Attributes:
        n_rows: Rows of the reference, and about those of the window.
        reference: How the first rows were spread.
        panes: How the last ones are, the newest last.
    """

    n_rows: int
    reference: dict[str, ColumnSketch] = field(default_factory=dict)
    panes: deque[dict[str, ColumnSketch]] = field(default_factory=lambda: deque(maxlen=_N_PANES))

    @property
    def has_reference(self) -> bool:
        """Whether enough rows were seen to compare later ones with."""
        return _n_rows(self.reference) >= self.n_rows

    def add(self, sketches: Sketches) -> bool:
        """Take the rows of a batch; whether that is worth keeping before the process ends."""
        if not self.has_reference:
            self.reference = merged([self.reference, sketches])
            return True
        begins = not self.panes or _n_rows(self.panes[-1]) >= self.n_rows / _N_PANES
        if begins:
            self.panes.append(dict(sketches))
        else:
            self.panes[-1] = merged([self.panes[-1], sketches])
        return begins

    def measures(self) -> dict[str, float]:
        """By column, `drift.COLUMN` and `empty_share.COLUMN`; none before there is enough to tell.

        The first is the population stability index of the window against the reference, the second
        the share of the window's rows that are null or NaN.
        """
        window = merged(self.panes)
        if not self.has_reference or _n_rows(window) < self.n_rows * _LEAST:
            return {}
        found: dict[str, float] = {}
        for name, sketch in window.items():
            if name in self.reference:
                found[f"drift.{name}"] = drift(self.reference[name], sketch)
            found[f"empty_share.{name}"] = (sketch.n_nulls + sketch.n_nan) / sketch.n_rows
        return found

    def to_json(self) -> str:
        """The window as text."""
        facts = {
            "n_rows": self.n_rows,
            "reference": _facts(self.reference),
            "panes": [_facts(pane) for pane in self.panes],
        }
        return json.dumps(facts)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The window that `to_json` wrote.

        Raises:
            ValueError: The text is something else.
        """
        try:
            facts = json.loads(text)
            panes = deque(map(_sketches, facts["panes"]), maxlen=_N_PANES)
            return cls(facts["n_rows"], _sketches(facts["reference"]), panes)
        except (TypeError, KeyError, AttributeError) as exc:
            raise ValueError(f"it says nothing of rows: {exc}") from exc


def _n_rows(sketches: Sketches) -> int:
    return max((sketch.n_rows for sketch in sketches.values()), default=0)


def _facts(sketches: Sketches) -> dict[str, object]:
    return {name: sketch.to_facts() for name, sketch in sketches.items()}


def _sketches(facts: Mapping[str, Any]) -> dict[str, ColumnSketch]:
    return {name: ColumnSketch.from_facts(sketch) for name, sketch in facts.items()}
