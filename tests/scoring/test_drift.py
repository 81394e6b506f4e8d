"""The last rows of a stream against the first ones, in memory that does not grow."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from sparkscore.scoring.drift import DriftWindow
from sparkscore.scoring.sketch import ColumnSketch


def sketches(**columns: object) -> Mapping[str, ColumnSketch]:
    found = {name: ColumnSketch() for name in columns}
    for name, values in columns.items():
        found[name].add(pa.array(values))
    return found


def batch(seed: int, shift: float = 0.0, n_rows: int = 100) -> Mapping[str, ColumnSketch]:
    rows = np.random.default_rng(seed).normal(10 + shift, 1, n_rows)
    return sketches(x=rows)


def fed(window: DriftWindow, n_batches: int, shift: float = 0.0) -> DriftWindow:
    for seed in range(n_batches):
        window.add(batch(seed, shift))
    return window


def test_rows_that_have_moved_are_a_drift_and_others_are_none() -> None:
    window = fed(DriftWindow(2000), 20)
    assert window.has_reference
    assert window.measures() == {}
    assert fed(window, 20).measures()["drift.x"] < 0.05
    assert fed(window, 30, shift=1.0).measures()["drift.x"] > 0.25
    assert fed(window, 30).measures()["drift.x"] < 0.05


def test_few_rows_tell_nothing() -> None:
    window = fed(DriftWindow(2000), 21)
    assert window.measures() == {}
    assert "drift.x" in fed(window, 1).measures()


def test_rows_without_a_value_are_a_share_of_the_last_ones() -> None:
    window = DriftWindow(4)
    window.add(sketches(x=[1.0, 2.0, 3.0, 4.0], label=["a", "b", "a", "b"]))
    window.add(sketches(x=[1.0, None, float("nan"), 4.0], label=["a", "b", None, "b"]))
    measures = window.measures()
    assert (measures["empty_share.x"], measures["empty_share.label"]) == (0.5, 0.25)
    assert {"drift.x", "drift.label"} < measures.keys()


def test_memory_and_file_stay_the_same_for_ever() -> None:
    window = fed(DriftWindow(2000), 60)
    size = len(window.to_json())
    for seed in range(3000):
        window.add(batch(seed, n_rows=10))
    assert len(window.panes) == 20
    assert len(window.to_json()) < size * 1.2
    assert sum(pane["x"].n_rows for pane in window.panes) == pytest.approx(2000, rel=0.1)


def test_window_is_the_same_after_a_restart() -> None:
    window = fed(DriftWindow(2000), 45, shift=0.5)
    again = DriftWindow.from_json(window.to_json())
    assert again == window
    assert fed(again, 3).measures() == fed(window, 3).measures()


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"n_rows": 1, "reference": 3})])
def test_other_text_is_no_window(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, or ours
        DriftWindow.from_json(text)


def test_what_is_worth_keeping_is_the_reference_and_each_part_of_the_window() -> None:
    window = DriftWindow(400)
    assert [window.add(batch(seed)) for seed in range(4)] == [True] * 4
    assert [window.add(batch(seed, n_rows=10)) for seed in range(4)] == [True, False, True, False]
