"""What a killed job left in a score table is found and removed, and nothing else is."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction, create_table_with_add_actions

from sparkscore.cli import main
from sparkscore.errors import TargetError
from sparkscore.files.ledger import Ledger
from sparkscore.files.leftovers import leftovers, remove_leftovers
from sparkscore.scoring.staged_names import LEDGER_FOLDER

ROWS = pa.table({"x": [0.5, 1.5]})


def score_file(folder: Path, age_h: float = 0) -> Path:
    path = folder / f"part-00000-{uuid.uuid4().hex}-scores-c000.zstd.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ROWS, path)
    moment = time.time() - age_h * 3600
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with a file of ours in its newest version, and one in an earlier version."""
    root = tmp_path / "scores"
    schema = deltalake.Schema.from_arrow(ROWS.schema)
    paths = [score_file(root), score_file(root / "day=1 a")]
    adds = [
        AddAction(
            path=path.relative_to(root).as_posix(),
            size=path.stat().st_size,
            partition_values={},
            modification_time=0,
            data_change=True,
            stats=json.dumps({"numRecords": 2}),
        )
        for path in paths
    ]
    create_table_with_add_actions(str(root), schema, adds)
    deltalake.DeltaTable(root).delete("x < 1")
    return root


def _without_checkpoint(_: Path) -> None:
    """All commits as JSON."""


def _with_checkpoint(root: Path) -> None:
    deltalake.DeltaTable(root).create_checkpoint()
    for commit in (root / "_delta_log").glob("*0000.json"):
        commit.unlink()


@pytest.mark.parametrize("logged", [_without_checkpoint, _with_checkpoint])
def test_only_files_of_ours_that_no_version_names_are_leftovers(
    logged: Callable[[Path], None], table: Path
) -> None:
    logged(table)
    assert leftovers(table) == []
    lost = [score_file(table), score_file(table / "day=2")]
    by_spark = table / f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
    lost.append(lost[0].rename(by_spark))
    lost[0] = score_file(table)
    (table / "of-somebody-else.parquet").write_bytes(b"x")
    assert {left.path for left in leftovers(table)} == set(lost)
    assert deltalake.DeltaTable(table).to_pyarrow_table().num_rows == 2


def test_file_that_the_log_names_by_its_whole_path_is_no_leftover(table: Path) -> None:
    named = score_file(table)
    add = {"path": named.as_uri(), "partitionValues": {}, "size": 1, "modificationTime": 0}
    line = json.dumps({"add": {**add, "dataChange": True}})
    (table / "_delta_log" / f"{9:020}.json").write_text(line + "\n")
    assert leftovers(table) == []
    link = table.with_name("link")
    link.symlink_to(table)
    assert leftovers(link) == []


def test_leftovers_of_a_table_that_never_came_to_be_are_found(tmp_path: Path) -> None:
    lost = score_file(tmp_path / "scores")
    assert [left.path for left in leftovers(tmp_path / "scores")] == [lost]


def test_command_lists_and_removes_what_is_old_enough(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, young = score_file(table, age_h=30), score_file(table, age_h=1)
    checksum = old.with_name(f".{old.name}.crc")
    checksum.touch()
    before = deltalake.DeltaTable(table).to_pyarrow_table()
    for flags, status in (((), "left"), (("--remove",), "removed")):
        assert main(["score", "clean", str(table), *flags, "-o", "json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["file"], row["status"]) == (old.name, status)
        assert row["bytes"] > 0
        assert row["hours"] == 30.0
    assert (old.exists(), checksum.exists(), young.exists()) == (False, False, True)
    assert deltalake.DeltaTable(table).to_pyarrow_table().equals(before)
    assert main(["score", "clean", str(table), "--older-than", "0", "--remove"]) == 0
    assert not young.exists()


def test_checksum_of_a_file_that_is_gone_is_a_leftover(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = next(table.glob("*.parquet"))
    by_spark = f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
    orphan = table / "day=2" / f".{by_spark}.crc"
    orphan.parent.mkdir()
    others = [table / f".{committed.name}.crc", table / ".of-somebody-else.parquet.crc"]
    for path in (orphan, *others):
        path.touch()
    assert [left.path for left in leftovers(table)] == [orphan]
    assert main(["score", "clean", str(table), "--older-than", "0", "--remove"]) == 0
    assert orphan.name in capsys.readouterr().out
    assert [path.exists() for path in (orphan, *others)] == [False, True, True]


FIRST, SECOND = "1" * 32, "2" * 32


def staged(table: Path, attempt: str, age_h: float) -> Ledger:
    """A run that an attempt began, and of which it has finished one chunk."""
    ledger = Ledger(table, "sparkscore-" + "a" * 40, attempt, "run", "inputs")
    ledger.claim(1)
    ledger.record("c" * 32, "{}")
    file = score_file(table, age_h)
    file.rename(file.with_name(file.name.replace(file.name.split("-")[2], attempt)))
    moment = time.time() - age_h * 3600
    assert isinstance(ledger.folder, Path)
    for path in ledger.folder.iterdir():
        os.utime(path, (moment, moment))
    return ledger


def test_finished_chunks_are_as_old_as_the_last_sign_of_life_of_their_run(table: Path) -> None:
    ledger = staged(table, FIRST, age_h=30)
    found = leftovers(table)
    assert [round(left.age_s / 3600) for left in found] == [30] * 3
    assert {left.run for left in found} == {ledger.app_id}
    ledger.record("d" * 32, "{}")
    assert [round(left.age_s / 3600) for left in leftovers(table)] == [0] * 4


def test_removed_chunks_leave_no_ledger_and_nothing_to_go_on_with(table: Path) -> None:
    ledger = staged(table, FIRST, age_h=30)
    found = leftovers(table)
    assert set(remove_leftovers(table, found)) == set(found)
    assert leftovers(table) == []
    assert not (table / LEDGER_FOLDER).exists()
    assert replace(ledger, attempt=SECOND).claim(1).records == ()


def test_chunks_of_a_run_that_is_tried_again_meanwhile_are_not_removed(table: Path) -> None:
    ledger = staged(table, FIRST, age_h=30)
    found = leftovers(table)
    records = replace(ledger, attempt=SECOND).claim(1).records
    assert len(records) == 1
    assert remove_leftovers(table, found) == []
    assert all(left.path.is_file() for left in found)


def test_chunks_of_a_run_that_is_committed_meanwhile_are_not_removed(table: Path) -> None:
    ledger = staged(table, FIRST, age_h=30)
    found = leftovers(table)
    (file,) = (left.path for left in found if left.path.name.endswith(".parquet"))
    add = {"path": file.name, "partitionValues": {}, "size": 1, "modificationTime": 0}
    line = json.dumps({"add": {**add, "dataChange": True}})
    (table / "_delta_log" / f"{9:020}.json").write_text(line + "\n")
    ledger.remove()
    remove_leftovers(table, found)
    assert file.is_file()


def test_log_that_cannot_be_read_is_named_and_nothing_is_removed(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = score_file(table)
    next((table / "_delta_log").glob("*.json")).write_text("{no json")
    with pytest.raises(TargetError, match="nothing was removed"):
        leftovers(table)
    assert main(["score", "clean", str(table), "--older-than", "0", "--remove"]) == 5
    assert "error [TARGET_INVALID]" in capsys.readouterr().err
    assert lost.exists()


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no folder"):
        leftovers(tmp_path / "nothing")
