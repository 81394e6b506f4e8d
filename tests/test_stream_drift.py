"""What a stream remembers of its first rows, and which columns it may be asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.conf import JobSettings, load_job
from sparkscore.errors import ConfigError
from sparkscore.files.checkpoint import Checkpoint
from sparkscore.scoring.outcome import Outcome
from sparkscore.scoring.sketch import ColumnSketch
from sparkscore.stream_alerts import alert_bounds
from sparkscore.stream_drift import StreamDrift, check_drift_columns, drift_columns
from sparkscore.testing.sink_contract import attempt
from tests.test_stream_record import OUTCOME


def of_rows(low: float) -> Outcome:
    """A batch of ten rows from a value on."""
    sketch = ColumnSketch()
    sketch.add(pa.array([low + i for i in range(10)]))
    return replace(OUTCOME, sketches={"x": sketch})


def job(**given: object) -> JobSettings:
    needed = {"name": "telemetry", "source.uri": "/rows", "target.uri": "/scores"}
    return load_job(None, needed | {f"stream.{key}": value for key, value in given.items()}).values


def test_first_rows_of_a_version_are_remembered_over_restarts(tmp_path: Path) -> None:
    said: list[str] = []
    first = StreamDrift(Checkpoint(tmp_path), 10, said.append)
    assert first.batch("one", of_rows(0)) == {}
    second = StreamDrift(Checkpoint(tmp_path), 10, said.append)
    assert second.batch("one", of_rows(100))["drift.x"] > 1
    assert second.batch("two", of_rows(100)) == {}
    assert second.batch("two", of_rows(100))["drift.x"] < 0.1
    assert second.batch("one", of_rows(0))["drift.x"] > 0.1
    assert second.batch("one", OUTCOME) == {}
    second.close()
    with_other_rows = StreamDrift(Checkpoint(tmp_path), 20, said.append)
    assert with_other_rows.batch("one", of_rows(100)) == {}
    assert said == []


def test_memory_that_cannot_be_read_or_kept_costs_the_stream_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "sparkscore"
    folder.mkdir()
    (folder / "drift-one.json").write_text("{")
    drift = StreamDrift(Checkpoint(tmp_path), 10, said.append)
    assert drift.batch("one", of_rows(0)) == {}
    (folder / "drift-one.json").unlink()
    (folder / "drift-one.json").mkdir()
    assert drift.batch("one", of_rows(0))["drift.x"] < 0.1
    assert "new first rows" in said[0]
    assert "are not kept" in said[1]


def test_columns_with_a_bound_are_looked_at_too() -> None:
    settings = job(**{"drift.columns": ["x"], "alerts.drift.y": 0.2, "alerts.empty_share.x": 0.1})
    assert drift_columns(settings) == ("x", "y")
    assert alert_bounds(settings) == {"drift.y": 0.2, "empty_share.x": 0.1}
    assert drift_columns(job()) == ()


def test_columns_that_nobody_looks_at_are_refused(tmp_path: Path) -> None:
    plan = attempt(tmp_path, (1, 1, 0.5)).plan
    known = (*(b.source.name for b in plan.bindings if b.source), *plan.predictions.names)
    check_drift_columns(plan, known)
    with pytest.raises(ConfigError, match="neither reads nor predicts"):
        check_drift_columns(plan, (*known, "nonsense"))
    with pytest.raises(ConfigError, match="at most 50"):
        check_drift_columns(plan, known * 51)
