from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sparkscore.testing.flavor_contract import mixed_frame


@pytest.fixture
def mixed_rows() -> pd.DataFrame:
    return mixed_frame()


@pytest.fixture
def toy_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy flavor's folder on the path, as a package manager would put it there."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "toy_flavor")
