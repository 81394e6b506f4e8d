from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture
def mixed_rows() -> pd.DataFrame:
    """Numbers, text and nulls, as real tables have them."""
    return pd.DataFrame(
        {
            "age": [31, 42, 53, 64] * 20,
            "income": [1.5, None, 2.25, 3.1] * 20,
            "town": ["Ulm", None, "Bonn", "Kiel"] * 20,
            "plan": ["a", "b"] * 40,
        }
    )


@pytest.fixture
def toy_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy flavor's folder on the path, as a package manager would put it there."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "toy_flavor")
