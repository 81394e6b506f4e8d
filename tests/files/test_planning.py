from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkscore.files.facts import DataFile
from sparkscore.files.planning import FilePiece, plan_tasks

MIB = 2**20


def files(*sizes: int) -> list[DataFile]:
    return [DataFile(f"/{i}.parquet", size) for i, size in enumerate(sizes)]


def n_bytes(task: Sequence[FilePiece]) -> int:
    return sum(piece.n_bytes for piece in task)


@given(st.lists(st.integers(0, 1000 * MIB), max_size=30), st.integers(1, 16))
def test_each_byte_of_each_file_is_in_one_task(sizes: list[int], n_slots: int) -> None:
    pieces = sorted(
        (piece.path, piece.start, piece.end)
        for task in plan_tasks(files(*sizes), n_slots)
        for piece in task
    )
    for path in {path for path, _, _ in pieces}:
        cuts = [(start, end) for other, start, end in pieces if other == path]
        assert cuts[0][0] == 0
        assert all(one[1] == two[0] for one, two in pairwise(cuts))
        assert cuts[-1][1] == max(1, sizes[int(path[1:].removesuffix(".parquet"))])
    assert len({path for path, _, _ in pieces}) == len(sizes)


def test_no_files_are_no_tasks() -> None:
    assert plan_tasks([], 2) == []


def test_small_files_share_a_task() -> None:
    (task,) = plan_tasks(files(*[1000] * 500), 8)
    assert len(task) == 500


def test_a_large_file_is_cut_for_all_slots() -> None:
    tasks = plan_tasks(files(60 * MIB), 2)
    assert [n_bytes(task) for task in tasks] == [10 * MIB] * 6


def test_the_largest_task_comes_first() -> None:
    sizes = [n_bytes(task) for task in plan_tasks(files(9 * MIB, MIB, 5 * MIB, 3 * MIB, 7), 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_no_task_is_larger_than_what_may_be_lost() -> None:
    tasks = plan_tasks(files(*[100 * MIB] * 100), 2)
    assert max(n_bytes(task) for task in tasks) <= 300 * MIB


@pytest.mark.parametrize("n_slots", [1, 2, 7])
def test_tasks_are_about_equal(n_slots: int) -> None:
    sizes = [n_bytes(task) for task in plan_tasks(files(*range(MIB, 90 * MIB, MIB)), n_slots)]
    assert max(sizes) < 1.2 * sum(sizes) / len(sizes)


def test_no_task_is_much_larger_than_asked_for() -> None:
    sizes = [n_bytes(task) for task in plan_tasks(files(60 * MIB), 2, max_bytes=MIB)]
    assert len(sizes) == 60
    assert max(sizes) <= MIB + 1
