"""Windows and joined tables before scoring, in whole jobs that are cut off."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("spark")

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SENSORS = 5
SOURCE = """\
model: models:/linear@champion
source:
  uri: ./readings
features:
  watermark: {column: ts, delay: 1 minute}
"""
JOINS = """\
  joins:
    - {table: ./sensors, by: [sensor], columns: [height], missing: drop}
"""
WINDOWS = f"""\
{SOURCE}
  window:
    length: 5 minutes
    by: [sensor]
    columns: {{x: max(temp) + min(temp), n: count(*)}}
{JOINS}
key: [sensor, window_start]
mode: merge
keep: [n, height]
"""
HISTORIES = f"""\
{SOURCE}
  state:
    by: [sensor]
    forget_after: 1 hour
    columns: {{x: "mean(temp, 3)", n: rows(), before: "lag(temp, 1)"}}
{JOINS}
key: [sensor, ts]
keep: [n, height, before]
"""


@pytest.fixture
def readings(world: World) -> World:
    """Sensors, of which the last is in no table, and twelve commits of a hundred readings."""
    names = [f"s{i}" for i in range(SENSORS - 1)]
    sensors = pa.table({"sensor": names, "height": [float(i) for i in range(SENSORS - 1)]})
    write_deltalake(world.folder / "sensors", sensors)
    for start in range(12):
        read(world, range(start * 1000, start * 1000 + 1000, 10))
    (world.folder / "windows.yaml").write_text(WINDOWS)
    (world.folder / "histories.yaml").write_text(HISTORIES)
    return world


def read(world: World, seconds: Sequence[int]) -> None:
    """A commit of readings at these seconds."""
    times = [START + dt.timedelta(seconds=s) for s in seconds]
    rows = {
        "sensor": [f"s{s // 10 % SENSORS}" for s in seconds],
        "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
        "temp": [s / 8 for s in seconds],
    }
    write_deltalake(world.folder / "readings", pa.table(rows), mode="append")


def command(kind: str, target: str, job: str = "windows") -> list[str]:
    stream = ("--checkpoint", "./checkpoint", "--source-option", "maxFilesPerTrigger=1")
    return [
        *("score", kind, "--job", f"{job}.yaml", "--target", f"./{target}", "--trust-code"),
        *(stream if kind == "stream" else ()),
    ]


def has_commits(world: World, n_commits: int) -> bool:
    return len(world.commits("scores")) >= n_commits


def scores(world: World, target: str) -> pa.Table:
    """Scores by key, without what differs from run to run."""
    table = DeltaTable(world.folder / target).to_pyarrow_table()
    mine = table.drop_columns(["run_id", "scored_at"])
    return mine.sort_by([(name, "ascending") for name in mine.column_names[:2]])


def test_histories_of_a_killed_stream_are_those_of_a_batch(readings: World, run: Run) -> None:
    world = readings
    job = world.start(*command("stream", "scores", "histories"))
    job.await_sign(partial(has_commits, world, 5))
    job.kill_group()
    last = run(*command("stream", "scores", "histories"))
    assert (last.exit_code, last.result["status"]) == (0, "succeeded")
    assert last.result["metrics"]["state_rows"] == SENSORS
    assert run(*command("batch", "undisturbed", "histories")).exit_code == 0
    scored = scores(world, "scores")
    assert scored.num_rows == 1200 * (SENSORS - 1) // SENSORS
    assert scored["n"].to_pylist() == [*range(1, 241)] * (SENSORS - 1)
    assert scored.equals(scores(world, "undisturbed"))


def test_windows_are_scored_once_and_as_in_batch(readings: World, run: Run) -> None:
    world = readings
    first = run(*command("stream", "scores"))
    assert (first.exit_code, first.result["status"]) == (0, "succeeded")
    assert first.result["metrics"]["rows_before_features"] == 1200
    ends = START + dt.timedelta(seconds=11_700)  # Then a window begins that is still open.
    assert run(*command("batch", "undisturbed")).exit_code == 0
    closed = scores(world, "undisturbed").filter(pc.field("window_start") < ends)
    assert closed.num_rows == 39 * (SENSORS - 1)
    assert scores(world, "scores").equals(closed)
    assert {commit["inputs"]["joined"] for commit in world.commits("scores")} == {"./sensors@0"}


def test_batch_that_was_committed_is_not_lost_to_the_windows_after_it(
    readings: World, run: Run
) -> None:
    world = readings
    assert run(*command("stream", "scores")).exit_code == 0
    newest = max(
        (world.folder / "checkpoint" / "commits").glob("[0-9]*"), key=lambda p: int(p.name)
    )
    newest.unlink()  # As if the process had died between the table's commit and Spark's.
    tables = pa.table({"sensor": ["s9"], "height": [9.0]})
    write_deltalake(world.folder / "sensors", tables, mode="append")
    read(world, range(12_000, 13_000, 10))
    again = run(*command("stream", "scores"))
    assert (again.exit_code, again.result["metrics"]["batches_replayed"]) == (0, 1)
    assert again.result["metrics"]["rows_unmatched"] > 0
    table = DeltaTable(world.folder / "scores").to_pyarrow_table()
    assert table.group_by(["sensor", "window_start"]).aggregate([]).num_rows == table.num_rows
    assert [c["inputs"]["joined"] for c in world.commits("scores")][-2:] == ["./sensors@1"] * 2


def test_checkpoint_with_other_features_is_refused(readings: World, run: Run) -> None:
    world = readings
    (world.folder / "none.yaml").write_text(WINDOWS.replace("5 minutes", "5 mintues"))
    refused = run(*command("stream", "scores", "none"))
    assert (refused.exit_code, "did you mean 'minutes'" in refused.stderr) == (2, True)
    assert run(*command("stream", "scores")).exit_code == 0
    (world.folder / "windows.yaml").write_text(WINDOWS.replace("5 minutes", "6 minutes"))
    refused = run(*command("stream", "scores"))
    assert refused.result["error"]["code"] == "CHECKPOINT_FOREIGN"
    assert "features.window" in refused.result["error"]["message"]
