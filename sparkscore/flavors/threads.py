"""How many threads a model's library may use."""

from __future__ import annotations

import os


def threads_of_task() -> int:
    """What OMP_NUM_THREADS says, as the scorer sets it for the cores of its task; else one."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdigit() else 1
