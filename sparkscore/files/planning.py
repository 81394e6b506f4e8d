"""Cutting a table's files into tasks of about the same number of bytes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sparkscore.files.facts import DataFile

_TASKS_PER_SLOT = 3
"""Enough for slots to end at about the same time; each task costs about 50 ms."""
_MIN_TASK_BYTES = 2 * 2**20
"""Below this, starting a task takes longer than reading its bytes."""
MAX_TASK_BYTES = 256 * 2**20
"""What a lost worker, or a killed job, has to do again."""


@dataclass(frozen=True)
class FilePiece:
    """The row groups, stripes or lines of one file that fall to [start, end), in bytes.

    Attributes:
        partition: Values of the partition columns for each of its rows.
        deleted: Positions in the whole file of rows that do not count; None: there are none.
        file_bytes: Size of the file when it was planned, where known.
    """

    path: str
    start: int
    end: int
    partition: Mapping[str, object] = field(default_factory=dict)
    deleted: np.ndarray | None = None
    file_bytes: int | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of the file that fall to this piece."""
        return self.end - self.start


def plan_tasks(
    files: Sequence[DataFile], n_slots: int, max_bytes: int = MAX_TASK_BYTES
) -> list[tuple[FilePiece, ...]]:
    """Pieces of `files` grouped into tasks, the largest task first; see `cut_tasks`.

    Args:
        files: What is to be read.
        n_slots: Tasks that run at once.
        max_bytes: Most bytes of a task, about.
    """
    return cut_tasks(files, fair_task_bytes(input_bytes(files), n_slots, max_bytes))


def input_bytes(files: Iterable[DataFile]) -> int:
    """Bytes of all files together; an empty one counts as one."""
    return sum(max(1, file.n_bytes) for file in files)


def fair_task_bytes(n_bytes: int, n_slots: int, max_bytes: int = MAX_TASK_BYTES) -> int:
    """Bytes of a task, so that slots end at about the same time and each task is worth its start.

    Args:
        n_bytes: What is to be read.
        n_slots: Tasks that run at once.
        max_bytes: Most bytes of a task.
    """
    fair = n_bytes / (n_slots * _TASKS_PER_SLOT)
    return int(min(max(fair, _MIN_TASK_BYTES), max_bytes))


def cut_tasks(files: Sequence[DataFile], task_bytes: int) -> list[tuple[FilePiece, ...]]:
    """Pieces of `files` grouped into tasks of about so many bytes, the largest task first.

    Each row group of each file is in exactly one task; small files share one, large ones are cut.
    The same files and bytes give the same tasks.
    """
    pieces = sorted(_pieces(files, task_bytes), key=lambda piece: -piece.n_bytes)
    n_tasks = min(len(pieces), -(-input_bytes(files) // task_bytes))
    return _balanced(pieces, n_tasks)


def _pieces(files: Iterable[DataFile], task_bytes: int) -> Iterator[FilePiece]:
    for file in files:
        n_bytes = max(1, file.n_bytes)
        n_pieces = -(-n_bytes // task_bytes) if file.is_splittable else 1
        cuts = [n_bytes * i // n_pieces for i in range(n_pieces + 1)]
        for start, end in pairwise(cuts):
            yield FilePiece(
                file.path, start, end, file.partition, file.deleted, file_bytes=file.n_bytes
            )


def _balanced(pieces: Iterable[FilePiece], n_tasks: int) -> list[tuple[FilePiece, ...]]:
    """Each piece, largest first, into the task that has the fewest bytes so far."""
    tasks: list[list[FilePiece]] = [[] for _ in range(n_tasks)]
    heap = [(0, index) for index in range(n_tasks)]
    for piece in pieces:
        n_bytes, index = heapq.heappop(heap)
        tasks[index].append(piece)
        heapq.heappush(heap, (n_bytes + piece.n_bytes, index))
    tasks.sort(key=lambda task: -sum(piece.n_bytes for piece in task))
    return [tuple(task) for task in tasks]
