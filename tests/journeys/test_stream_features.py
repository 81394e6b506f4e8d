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
    """Sensors, of which the last is in no table, and four commits of a hundred readings."""
    names = [f"s{i}" for i in range(SENSORS - 1)]
    sensors = pa.table({"sensor": names, "height": [float(i) for i in range(SENSORS - 1)]})
    write_deltalake(world.folder / "sensors", sensors)
    for start in range(0, 12_000, 3000):
        read(world, range(start, start + 3000, 30))
    (world.folder / "windows.yaml").write_text(WINDOWS)
    (world.folder / "histories.yaml").write_text(HISTORIES)
    return world


def read(world: World, seconds: Sequence[int]) -> None:
    """A commit of readings at these seconds."""
    times = [START + dt.timedelta(seconds=s) for s in seconds]
    rows = {
        "sensor": [f"s{s // 30 % SENSORS}" for s in seconds],
        "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
        "temp": [s / 8 for s in seconds],
    }
    write_deltalake(world.folder / "readings", pa.table(rows), mode="append")


def stream(job: str, n_files: int, *more: str) -> list[str]:
    return [
        *("score", "stream", "--job", f"{job}.yaml", "--target", "./scores", "--trust-code"),
        *("--checkpoint", "./checkpoint", "--source-option", f"maxFilesPerTrigger={n_files}"),
        *more,
    ]


def batch(job: str) -> list[str]:
    command = ("score", "batch", "--job", f"{job}.yaml", "--target", "./undisturbed")
    return [*command, "--trust-code"]


def has_commits(world: World, n_commits: int) -> bool:
    return len(world.commits("scores")) >= n_commits


def scores(world: World, target: str) -> pa.Table:
    """Scores by key, without what differs from run to run."""
    table = DeltaTable(world.folder / target).to_pyarrow_table()
    mine = table.drop_columns(["run_id", "scored_at"])
    return mine.sort_by([(name, "ascending") for name in mine.column_names[:2]])


def test_histories_of_a_killed_stream_are_those_of_a_batch(readings: World, run: Run) -> None:
    world = readings
    job = world.start(*stream("histories", 1))
    job.await_sign(partial(has_commits, world, 2))
    job.kill_group()
    last = run(*stream("histories", 1))
    assert (last.exit_code, last.result["status"]) == (0, "succeeded")
    assert last.result["metrics"]["state_rows"] == SENSORS
    assert run(*batch("histories")).exit_code == 0
    scored = scores(world, "scores")
    assert scored["n"].to_pylist() == [*range(1, 81)] * (SENSORS - 1)
    assert scored.equals(scores(world, "undisturbed"))


def test_windows_are_scored_once_and_as_in_batch(readings: World, run: Run) -> None:
    world = readings
    command = stream("windows", 4, "--mode", "merge")
    first = run(*command)
    assert (first.exit_code, first.result["status"]) == (0, "succeeded")
    assert first.result["metrics"]["rows_before_features"] == 400  # A merge reads but once.
    assert run(*batch("windows")).exit_code == 0
    ends = START + dt.timedelta(seconds=11_700)  # Then a window begins that is still open.
    closed = scores(world, "undisturbed").filter(pc.field("window_start") < ends)
    assert closed.num_rows == 39 * (SENSORS - 1)
    assert scores(world, "scores").equals(closed)
    (world.folder / "windows.yaml").write_text(WINDOWS.replace("5 minutes", "6 minutes"))
    refused = run(*command)
    assert refused.result["error"]["code"] == "CHECKPOINT_FOREIGN"
    assert "features.window" in refused.result["error"]["message"]


def test_row_that_a_joined_table_lacked_is_found_once_it_is_added(
    readings: World, run: Run
) -> None:
    world = readings
    (world.folder / "histories.yaml").write_text(HISTORIES.replace("drop", "fail"))
    refused = run(*stream("histories", 4))
    assert (refused.exit_code, refused.result["error"]["code"]) == (3, "ROWS_INVALID")
    missing = pa.table({"sensor": [f"s{SENSORS - 1}"], "height": [9.0]})
    write_deltalake(world.folder / "sensors", missing, mode="append")
    again = run(*stream("histories", 4))
    assert (again.exit_code, again.result["output"]["rows"]) == (0, 400)


def test_batch_that_was_committed_is_not_lost_to_the_windows_after_it(
    readings: World, run: Run
) -> None:
    world = readings
    assert run(*stream("windows", 4)).exit_code == 0
    commits = (world.folder / "checkpoint" / "commits").glob("[0-9]*")
    newest = max(commits, key=lambda path: int(path.name))
    newest.unlink()  # As if the process had died between the table's commit and Spark's.
    newest.with_name(f".{newest.name}.crc").unlink()
    more = pa.table({"sensor": ["s9"], "height": [9.0]})
    write_deltalake(world.folder / "sensors", more, mode="append")
    read(world, range(12_000, 13_000, 30))
    again = run(*stream("windows", 4))
    assert (again.exit_code, again.result["metrics"]["batches_replayed"]) == (0, 1)
    assert again.result["metrics"]["rows_unmatched"] > 0
    table = scores(world, "scores")
    assert table.group_by(["sensor", "window_start"]).aggregate([]).num_rows == table.num_rows
    assert table.num_rows == 43 * (SENSORS - 1)
    assert set(table["n"].to_pylist()) == {2}
    joined = [commit["inputs"]["joined"] for commit in world.commits("scores")]
    assert joined == ["./sensors@0"] * 2 + ["./sensors@1"] * 2
