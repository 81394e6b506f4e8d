"""The names that users import, and the release that they read of."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import sparkscore

ROOT = Path(sparkscore.__file__).parents[1]


def test_the_door_opens_to_exactly_these_names() -> None:
    assert set(sparkscore.__all__) == {
        "LoaderModule",
        "PythonModel",
        "Workspace",
        "__version__",
        "active_run",
        "autolog",
        "infer_signature",
        "load_model",
        "load_predictor",
        "log_model",
        "save_model",
        "score",
        "set_model",
        "set_signature",
        "spark_udf",
        "start_run",
    }


@pytest.mark.parametrize("name", [n for n in sparkscore.__all__ if not n.startswith("__")])
def test_every_name_of_the_door_says_what_the_caller_gets(name: str) -> None:
    text = inspect.getdoc(getattr(sparkscore, name)) or ""
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("room", ["autologging", "conf", "flavors", "package", "stores.sql"])
def test_what_a_room_exports_is_there_and_sorted(room: str) -> None:
    module = import_module(f"sparkscore.{room}")
    assert sorted(module.__all__) == list(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(sparkscore.__version__)}\b", text, re.MULTILINE)
