from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.scoring.ties import searched_ties

THRESHOLD = 1 / 3
ROWS = pa.RecordBatch.from_pydict(
    {"town": ["Ulm", "Kiel"] * 20, "x": [None, *np.linspace(-2, 2, 39)], "y": np.linspace(0, 1, 40)}
)


def answer(rows: pa.RecordBatch) -> pa.StructArray:
    """Jumps where x passes a third; y alone changes nothing."""
    above = pc.fill_null(pc.greater(rows.column("x"), THRESHOLD), False)
    return pa.StructArray.from_arrays([above], names=["prediction"])


def test_both_neighbours_of_a_threshold_are_found_and_the_floats_beside() -> None:
    ties = searched_ties(answer, ROWS, [1, 2], 50)
    assert ties is not None
    assert ties.schema == ROWS.schema
    moved = {x for x in ties.column("x").to_pylist() if x not in ROWS.column("x").to_pylist()}
    above = float(np.nextafter(THRESHOLD, 1))
    assert moved == {THRESHOLD, above, float(np.float32(THRESHOLD))}
    assert set(answer(ties).field(0).to_pylist()) == {True, False}


def test_answer_that_never_changes_has_no_ties() -> None:
    assert searched_ties(answer, ROWS, [2], 50) is None
