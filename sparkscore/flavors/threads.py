"""How many threads a model's library may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def threads_of_task() -> int:
    """What OMP_NUM_THREADS says, as the scorer sets it for the cores of its task; else one."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdigit() else 1


@contextmanager
def torch_threads() -> Iterator[None]:
    """Hold torch to the threads of the task for the duration of a block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads_of_task())
    try:
        yield
    finally:
        torch.set_num_threads(before)
