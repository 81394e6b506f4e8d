"""Where a node keeps what can be had again: unpacked packages and compiled kernels."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def node_folder() -> Path:
    """This user's folder on this node, 0700; made if absent.

    `SPARKSCORE_NODE_CACHE` moves it. What lies there can be deleted while no job runs.
    """
    named = os.environ.get("SPARKSCORE_NODE_CACHE")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"sparkscore-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
