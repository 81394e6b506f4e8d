"""Machines of the simulator: the same rows for the same arguments, at the rate asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
from deltalake import DeltaTable

from sparkscore.testing.machines import SENSORS, Machines, Pace, main


def test_rows_are_the_same_however_they_are_cut() -> None:
    machines = Machines(n_machines=7, seed=3)
    whole = machines.rows(1000, 20)
    parts = pa.concat_tables([machines.rows(1000, 5), machines.rows(1005, 15)])
    assert whole.equals(parts.combine_chunks())
    assert not whole.equals(Machines(n_machines=7, seed=4).rows(1000, 20))


def test_each_machine_tells_once_a_second_and_now_and_then_nothing() -> None:
    rows = Machines(n_machines=100).rows(0, 60)
    assert rows.group_by(["machine", "ts"]).aggregate([]).num_rows == rows.num_rows == 6000
    for name in SENSORS:
        assert 20 < rows[name].null_count < 120


def test_fault_grows_to_a_breakdown_and_is_mended() -> None:
    machines = Machines(n_machines=1, fault_every_s=100, ramp_s=40)
    rows = machines.rows(0, 200)
    severity = rows["severity"].to_numpy()
    assert (severity > 0).sum() == 2 * 39
    steps = np.diff(severity)
    assert sorted(set(np.round(steps, 6))) == [-0.975, 0.0, 0.025]
    told = rows.filter(pc.greater(rows["severity"], 0.9))["vibration"]
    calm = rows.filter(pc.equal(rows["severity"], 0))["vibration"]
    assert pc.min(told).as_py() > pc.max(calm).as_py()


def test_rows_come_at_the_rate_that_is_asked_for() -> None:
    now = [50.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(rows_per_s=200, every_s=2, clock=lambda: now[0], sleep=sleep)
    came = [(now[0] - 50, rows.num_rows) for rows in pace.files(Machines(n_machines=100), 1000)]
    assert came == [(0, 400), (2, 400), (4, 200)]


def test_rows_go_to_a_delta_table_or_to_lines_of_json(tmp_path: Path) -> None:
    for name in ("delta", "json"):
        asked = (str(tmp_path / name), "--format", name, "--machines", "10", "--rows", "95")
        assert main(asked) == 0
    want = Machines(n_machines=10).rows(0, 10)
    assert DeltaTable(tmp_path / "delta").to_pyarrow_table().equals(want)
    (file,) = (tmp_path / "json").iterdir()
    told = pa_json.read_json(file)
    assert told.num_rows == want.num_rows
    for name in (*SENSORS, "severity", "machine"):
        assert told[name].to_pylist() == want[name].to_pylist()
