from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sparkscore
from sparkscore.records import Run
from sparkscore.workspace import Workspace

Runs = Callable[[], list[Run]]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{tmp_path}/store.db",
        "tracking.outbox": str(tmp_path / "outbox"),
        "artifacts.uri": str(tmp_path / "artifacts"),
        "cache.folder": str(tmp_path / "cache"),
    }
    return Workspace.open(overrides=overrides)


@pytest.fixture
def autologged(workspace: Workspace) -> Iterator[Runs]:
    """Autologging into a store of its own; called, all runs there, the first one first."""
    sparkscore.autolog(workspace=workspace)
    try:
        yield lambda: list(reversed(workspace.runs.list_runs()))
    finally:
        sparkscore.autolog(disable=True)


@pytest.fixture
def rows() -> pd.DataFrame:
    """120 rows of two columns."""
    random = np.random.default_rng(7)
    return pd.DataFrame({"a": random.normal(size=120), "b": random.normal(size=120)})
