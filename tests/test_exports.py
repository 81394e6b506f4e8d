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
        "SparkscoreClient",
        "Workspace",
        "__version__",
        "active_run",
        "autolog",
        "end_run",
        "flush_async_logging",
        "get_artifact_uri",
        "get_run",
        "get_tracking_uri",
        "infer_signature",
        "load_model",
        "load_predictor",
        "log_artifact",
        "log_artifacts",
        "log_batch",
        "log_dict",
        "log_figure",
        "log_image",
        "log_input",
        "log_metric",
        "log_metrics",
        "log_model",
        "log_param",
        "log_params",
        "log_table",
        "log_text",
        "register_model",
        "save_model",
        "score",
        "search_experiments",
        "search_runs",
        "set_experiment",
        "set_model",
        "set_signature",
        "set_tag",
        "set_tags",
        "set_tracking_uri",
        "spark_udf",
        "start_run",
    }


@pytest.mark.parametrize("name", [n for n in sparkscore.__all__ if not n.startswith("__")])
def test_every_name_of_the_door_says_what_the_caller_gets(name: str) -> None:
    text = inspect.getdoc(getattr(sparkscore, name)) or ""
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize(
    "room", ["autologging", "client", "conf", "flavors", "package", "stores.remote", "stores.sql"]
)
def test_what_a_room_exports_is_there_and_sorted(room: str) -> None:
    module = import_module(f"sparkscore.{room}")
    assert sorted(module.__all__) == list(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(sparkscore.__version__)}\b", text, re.MULTILINE)
