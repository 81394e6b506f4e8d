"""Rows that the model cannot score: set aside, counted, and scored again by a mended version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sparkscore import Workspace
from sparkscore.testing.engine_cases import X
from sparkscore.testing.models import Poisoned, Third, packaged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.journeys.conftest import Answer, Run, World

pytestmark = pytest.mark.usefixtures("spark")

N_ROWS = 100
POISON = [13, 50, 99]
ROWS = pa.table(
    {
        "id": pa.array(range(N_ROWS), pa.int64()),
        "x": [13.0 if i in POISON else 20 + i / 8 for i in range(N_ROWS)],
    }
)


@pytest.fixture
def model(world: World) -> str:
    """A version that raises on the poison; `mended` is one that does not."""
    write_deltalake(str(world.folder / "poisoned"), ROWS)
    packaged(Third(), world.folder / "mended", inputs=X)
    return str(packaged(Poisoned(), world.folder / "model", inputs=X).folder)


def score(run: Run, model: str, *more: str, target: str = "out") -> Answer:
    args = ("--model", model, "--source", "poisoned", "--target", target, "--key", "id")
    quarantine = ("--on-invalid", "quarantine", "--trust-code", "--run-key", "night")
    return run("score", "batch", *args, *quarantine, *more)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(folder).to_pyarrow_table().sort_by("id").to_pylist()
    return found


def states(run: Run, uri: str = "out_rejects") -> list[tuple[str, int]]:
    listed = run("score", "rejects", uri, "--output", "json")
    return [(one["state"], one["n_rows"]) for one in json.loads(listed.stdout)]


def test_rejected_rows_are_told_recorded_and_replayed_once(
    run: Run, world: World, model: str
) -> None:
    first = score(run, model)
    assert first.exit_code == 0, first.stderr
    assert "scored 97 rows at table version 0, 3 rejected; why: 3 x MODEL_RAISED" in first.stderr
    run_id = first.result["run_id"]
    assert f"sparkscore score replay --run {run_id}" in first.result["message"]
    (kept,) = world.folder.glob(f"**/{run_id}/artifacts/rejects.json")
    facts = json.loads(kept.read_text("utf-8"))
    assert facts["rows"] == 3
    assert facts["reasons"] == [
        {
            "code": "MODEL_RAISED",
            "column": None,
            "n_rows": 3,
            "message": "ZeroDivisionError: thirteen in 1",
        }
    ]
    assert states(run) == [("open", 3)]

    mended = ("--model", str(world.folder / "mended"), "--trust-code")
    again = run("score", "replay", "--run", run_id, *mended)
    assert again.exit_code == 0, again.stderr
    assert (again.result["status"], again.result["output"]["rows"]) == ("succeeded", 3)
    scores = rows(world.folder / "out")
    assert [row["id"] for row in scores] == list(range(N_ROWS))
    assert [row["prediction"] for row in scores if row["id"] in POISON] == [13 / 3] * 3
    assert states(run) == [("replayed", 3)]
    replay = Workspace.open().runs.get_run(again.result["run_id"])
    assert replay.tags["mlflow.parentRunId"] == run_id

    by_key = ("--run-key", "night", "--rejects", "out_rejects")
    third = run("score", "replay", *by_key, *mended)
    assert (third.exit_code, third.result["status"]) == (0, "skipped")
    other = run("score", "replay", "--run", run_id, "--trust-code")
    assert (other.exit_code, other.result["status"]) == (0, "skipped")
    assert len(rows(world.folder / "out")) == N_ROWS


def test_rows_that_fail_again_are_rejected_rows_of_the_replay(
    run: Run, world: World, model: str
) -> None:
    run_id = score(run, model, "--partition-by", "id", "--max-rejects", "5").result["run_id"]
    args = ("--trust-code", "--max-rejects", "100%")
    again = run("score", "replay", "--run", run_id, *args)
    assert again.exit_code == 0, again.stderr
    assert (again.result["output"]["rows"], again.result["output"]["rejected"]) == (0, 3)
    assert states(run) == [("replayed", 3), ("open", 3)]
    mended = ("--model", str(world.folder / "mended"), "--trust-code")
    last = run("score", "replay", "--run", again.result["run_id"], *mended)
    assert last.result["output"]["rows"] == 3
    assert len(rows(world.folder / "out")) == N_ROWS


def test_replay_adds_to_what_the_run_replaced(run: Run, world: World, model: str) -> None:
    mode = ("--mode", "replace", "--replace-where", "day = '2013-10-01'")
    run_id = score(run, model, *mode).result["run_id"]
    mended = ("--model", str(world.folder / "mended"), "--trust-code")
    again = run("score", "replay", "--run", run_id, *mended)
    assert again.exit_code == 0, again.stderr
    scores = rows(world.folder / "out")
    assert len(scores) == N_ROWS
    assert {row["day"] for row in scores} == {"2013-10-01"}


def test_replay_leaves_rows_alone_that_a_later_run_has_scored(
    run: Run, world: World, model: str
) -> None:
    run_id = score(run, model, "--mode", "merge").result["run_id"]
    newer = ROWS.set_column(1, "x", pa.array([3.0 * i for i in range(N_ROWS)]))
    write_deltalake(str(world.folder / "poisoned"), newer, mode="overwrite")
    mended = ("--model", str(world.folder / "mended"), "--trust-code")
    where = ("--where", f"id <> {POISON[0]}", "--run-key", "morning")
    assert score(run, mended[1], "--mode", "merge", *where).exit_code == 0
    again = run("score", "replay", "--run", run_id, *mended)
    assert again.exit_code == 0, again.stderr
    assert (again.result["output"]["rows"], again.result["output"]["skipped"]) == (1, 2)
    assert "2 skipped, whose keys a later run has scored" in again.result["message"]
    expected = [13 / 3 if i == POISON[0] else float(i) for i in range(N_ROWS)]
    assert [row["prediction"] for row in rows(world.folder / "out")] == expected
    assert states(run) == [("replayed", 3)]


@pytest.mark.parametrize("key", [("--key", "id"), ()])
def test_replay_adds_nothing_to_what_replaced_a_run_of_rejected_rows_alone(
    run: Run, world: World, model: str, key: tuple[str, ...]
) -> None:
    job = ("--source", "poisoned", "--target", "out", *key, "--where", "x = 13", "--trust-code")
    mode = ("--mode", "replace", "--replace-where", "day = 1", "--max-rejects", "100%")
    args = ("score", "batch", *job, *mode, "--on-invalid", "quarantine")
    run_id = run(*args, "--model", model, "--run-key", "night").result["run_id"]
    mended = ("--model", str(world.folder / "mended"))
    assert run(*args, *mended, "--run-key", "morning").result["output"]["rows"] == len(POISON)
    again = run("score", "replay", "--run", run_id, *mended, "--trust-code")
    if key:
        assert (again.exit_code, again.result["output"]["skipped"]) == (0, len(POISON))
    else:
        assert (again.exit_code, again.result["error"]["code"]) == (2, "INVALID_STATE")
    assert DeltaTable(world.folder / "out").to_pyarrow_table().num_rows == len(POISON)


@pytest.mark.parametrize("form", ["struct", "long"])
def test_replay_adds_the_rows_that_a_champion_rejected_beside_challengers(
    run: Run, world: World, model: str, form: str
) -> None:
    beside = ("--challenger", f"beside={world.folder / 'mended'}", "--models-as", form)
    first = score(run, model, *beside)
    run_id = first.result["run_id"]
    assert f"by sparkscore score replay --run {run_id}" in first.result["message"]
    assert "--model URI" not in first.result["message"]
    packaged(Third(), world.folder / "third", inputs=X)
    third = ("--model", str(world.folder / "third"), "--trust-code")
    again = run("score", "replay", "--run", run_id, *third)
    assert again.exit_code == 0, again.stderr
    scores = rows(world.folder / "out")
    if form == "struct":
        assert [row["id"] for row in scores] == list(range(N_ROWS))
        assert all(row["beside"] == {"prediction": row["prediction"]} for row in scores)
    else:
        found = sorted((row["id"], row["model"]) for row in scores)
        heads = [(i, "third" if i in POISON else "model") for i in range(N_ROWS)]
        assert found == sorted([*heads, *((i, "beside") for i in range(N_ROWS))])
    assert run("score", "replay", "--run", run_id, *third).result["status"] == "skipped"


def test_replay_by_a_challenger_whose_rows_are_there_is_refused(
    run: Run, world: World, model: str
) -> None:
    mended = str(world.folder / "mended")
    run_id = score(run, model, "--challenger", mended, "--models-as", "long").result["run_id"]
    answer = run("score", "replay", "--run", run_id, "--model", mended, "--trust-code")
    assert answer.exit_code == 2
    assert "'mended' scored all rows of the run as a challenger" in answer.stderr


def test_run_without_rejected_rows_has_nothing_to_replay(
    run: Run, world: World, model: str
) -> None:
    mended = str(world.folder / "mended")
    run_id = score(run, mended).result["run_id"]
    answer = run("score", "replay", "--run", run_id, "--trust-code")
    assert answer.exit_code == 2
    assert "out_rejects" in answer.stderr
    score(run, model, target="other")
    other = ("--rejects", "other_rejects", "--trust-code")
    answer = run("score", "replay", "--run", run_id, *other)
    assert answer.exit_code == 2
    assert f"run {run_id} has no rejected rows in" in answer.stderr


def test_run_that_is_not_named_is_asked_for(run: Run, world: World, model: str) -> None:
    assert "no run is named" in run("score", "replay", "--run-key", "night").stderr
    score(run, model)
    args = ("--rejects", "out_rejects", "--run-key", "other")
    assert "0 runs with the key 'other'" in run("score", "replay", *args).stderr
    assert world.folder.joinpath("out_rejects").exists()


@pytest.mark.usefixtures("model")
def test_table_that_holds_no_rejected_rows_is_told_as_such(run: Run) -> None:
    listed = run("score", "rejects", "poisoned")
    assert listed.exit_code == 2
    assert "is no table of rejected rows; its columns are 'id', 'x'" in listed.stderr


def test_job_over_its_budget_commits_nothing_and_counts_the_reasons(
    run: Run, world: World, model: str
) -> None:
    answer = score(run, model, "--max-rejects", "2")
    assert answer.exit_code == 3
    assert answer.result["error"]["code"] == "REJECTS_OVER_BUDGET"
    assert "3 x MODEL_RAISED" in answer.result["message"]
    assert "FAILED" in run("runs", "show", answer.result["run_id"]).stdout
    assert not (world.folder / "out").exists()
    assert not (world.folder / "out_rejects").exists()


def test_driver_killed_at_its_first_commit_is_as_if_nothing_had_happened(
    run: Run, world: World, model: str
) -> None:
    args = ("--model", model, "--source", "poisoned", "--target", "out", "--key", "id")
    quarantine = ("--on-invalid", "quarantine", "--trust-code", "--run-key", "night")
    job = world.start("score", "batch", *args, *quarantine)
    job.await_sign((world.folder / "out_rejects" / "_delta_log" / f"{0:020}.json").exists)
    job.kill_group()
    again = score(run, model)
    assert again.exit_code == 0, again.stderr
    scores, rejects = rows(world.folder / "out"), rows(world.folder / "out_rejects")
    assert len(scores) == N_ROWS - len(POISON)
    assert [row["id"] for row in rejects] == POISON
    assert {row["run_id"] for row in rejects} == {row["run_id"] for row in scores}
    assert states(run) == [("open", 3)]


def test_rejected_rows_of_all_batches_of_a_stream_are_replayed_once(
    run: Run, world: World, model: str
) -> None:
    write_deltalake(str(world.folder / "coming"), ROWS.slice(0, 40))
    write_deltalake(str(world.folder / "coming"), ROWS.slice(40), mode="append")
    args = ("--model", model, "--source", "./coming", "--target", "./out", "--key", "id")
    pace = ("--checkpoint", "./checkpoint", "--source-option", "maxFilesPerTrigger=1")
    stream = run("score", "stream", *args, *pace, "--on-invalid", "quarantine", "--trust-code")
    assert (stream.exit_code, stream.result["output"]["rejected"]) == (0, len(POISON))
    assert states(run) == [("open", 1), ("open", 2)]
    replay = ("score", "replay", "--run", stream.result["run_id"], "--model", "./mended")
    first = run(*replay, "--trust-code")
    assert (first.exit_code, first.result["output"]["rows"]) == (0, len(POISON))
    assert run(*replay, "--trust-code").result["status"] == "skipped"
    assert states(run) == [("replayed", 1), ("replayed", 2)]
    assert [row["id"] for row in rows(world.folder / "out")] == list(range(N_ROWS))
