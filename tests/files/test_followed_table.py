"""A table's log that is kept open, or looked at in part, shows what all of it would show."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from sparkscore.files.filesystem import below
from sparkscore.files.log import FollowedTable, commits, is_delta_table
from sparkscore.files.target_folder import files_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_row(tmp_path / "table")
    return tmp_path / "table"


def add_row(root: Path, column: str = "id", **transactions: int) -> None:
    properties = CommitProperties(app_transactions=[Transaction(*t) for t in transactions.items()])
    write_deltalake(root, pa.table({column: [1]}), mode="append", commit_properties=properties)


def test_commit_of_another_writer_is_seen(root: Path) -> None:
    followed = FollowedTable()
    assert followed.newest(root).version() == 0
    add_row(root)
    add_row(root)
    assert followed.newest(root).version() == 2
    assert len(followed.newest(root).file_uris()) == 3


def test_log_without_news_is_not_opened_again(root: Path) -> None:
    followed = FollowedTable()
    assert followed.newest(root) is followed.newest(root)


@pytest.mark.parametrize("n_more", [0, 2])
def test_table_that_was_put_in_the_place_of_another_is_opened(root: Path, n_more: int) -> None:
    followed = FollowedTable()
    add_row(root)
    followed.newest(root)
    shutil.move(root, root.with_name("away"))  # So that no file gets the number of one of these.
    for _ in range(2 + n_more):
        add_row(root, "other")
    table = followed.newest(root)
    assert table.version() == 1 + n_more
    assert [field.name for field in table.schema().fields] == ["other"]


def test_table_that_is_gone_is_not_remembered(root: Path) -> None:
    followed = FollowedTable()
    followed.newest(root)
    shutil.rmtree(root)
    with pytest.raises(TableNotFoundError):
        followed.newest(root)


def test_what_one_thread_holds_does_not_move_when_another_looks(root: Path) -> None:
    followed = FollowedTable()
    held = followed.newest(root)
    add_row(root)
    seen: list[DeltaTable] = []
    other = Thread(target=lambda: seen.append(followed.newest(root)))
    other.start()
    other.join()
    assert (held.version(), seen[0].version()) == (0, 1)


class Asked:
    """A table that is followed, and asked for the ids that an opened one knows."""

    def __init__(self, root: Path) -> None:
        self.root, self._followed = root, FollowedTable()

    def versions(self, *ids: str) -> list[int | None]:
        table = self._followed.newest(self.root)
        found = [self._followed.transaction_version(table, each) for each in ids]
        assert found == [DeltaTable(self.root).transaction_version(each) for each in ids]
        return found


def test_ids_of_applications_are_those_of_the_log(root: Path) -> None:
    asked = Asked(root)
    assert asked.versions("a", "b") == [None, None]
    add_row(root, a=3)
    add_row(root, b=1, c=7)
    assert asked.versions("a", "b") == [3, 1]
    add_row(root, a=4)
    add_row(root)
    assert asked.versions("a", "b", "c") == [4, 1, 7]


def test_ids_of_commits_that_have_expired_are_found(root: Path) -> None:
    asked = Asked(root)
    assert asked.versions("a") == [None]
    add_row(root)
    add_row(root, a=2)
    add_row(root)
    DeltaTable(root).create_checkpoint()
    (root / "_delta_log" / f"{2:020}.json").unlink()
    assert asked.versions("a") == [2]


def test_ids_of_a_table_that_was_replaced_are_forgotten(root: Path) -> None:
    add_row(root, a=1)
    asked = Asked(root)
    assert asked.versions("a") == [1]
    shutil.move(root, root.with_name("away"))
    add_row(root)
    add_row(root)
    assert asked.versions("a") == [None]


def test_ids_of_a_table_that_is_not_followed_are_asked_of_it(root: Path) -> None:
    followed = FollowedTable()
    add_row(root, a=1)
    former, newest = DeltaTable(root, version=0), followed.newest(root)
    assert followed.transaction_version(newest, "a") == 1
    assert followed.transaction_version(former, "a") is None


def test_commits_are_told_from_the_newest_to_the_first_that_is_left(root: Path) -> None:
    for _ in range(4):
        add_row(root)
    assert [version for version, _ in commits(root, 4)] == [4, 3, 2, 1, 0]
    assert list(commits(root, 4)) == list(commits(root))
    (root / "_delta_log" / f"{1:020}.json").unlink()
    assert [version for version, _ in commits(root, 4)] == [4, 3, 2]


def test_log_whose_first_commits_have_expired_is_one(root: Path) -> None:
    add_row(root)
    DeltaTable(root).create_checkpoint()
    for version in range(2):
        (root / "_delta_log" / f"{version:020}.json").unlink()
    assert is_delta_table(root)
    (root / "_delta_log" / "_last_checkpoint").unlink()
    assert is_delta_table(root)  # By the checkpoint's own file.


def test_files_of_an_attempt_are_found_wherever_they_lie_and_no_others(tmp_path: Path) -> None:
    names = ("a-1.parquet", "day=1/a-2.parquet", "_delta_log/a-3.parquet", "b-1.parquet", "a-4.crc")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {below(tmp_path, path) for path in files_of(tmp_path, {"a-"})}
    assert found == {"a-1.parquet", "day=1/a-2.parquet"}
