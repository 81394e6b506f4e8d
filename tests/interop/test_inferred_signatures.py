from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkscore.package.signature import Signature, infer_signature

CASES = runpy.run_path(str(Path(__file__).with_name("inferred_cases.py")))


@pytest.fixture(scope="module")
def inferred_by_mlflow(
    mlflow_peer: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the signature that MLflow infers of each case, as JSON."""
    folder = tmp_path_factory.mktemp("inferred")
    mlflow_peer("infer", folder)
    return folder


@pytest.mark.parametrize("name", CASES["INPUTS"])
def test_the_same_data_has_the_same_signature(inferred_by_mlflow: Path, name: str) -> None:
    theirs = json.loads((inferred_by_mlflow / f"{name}.json").read_text("utf-8"))
    ours = infer_signature(CASES["INPUTS"][name], params=CASES["PARAMS"])
    read = Signature.from_json_parts(theirs["inputs"], None, theirs["params"])
    assert read == ours
    if name != "positions":  # MLflow calls columns without names 0 and 1, which are no text.
        parts = ours.to_json_parts()
        for part in ("inputs", "params"):
            assert json.loads(parts[part] or "") == json.loads(theirs[part])
