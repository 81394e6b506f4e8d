from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OURS = {
    "sparkscore",
    "sparkscore.bounded_output",
    "sparkscore.errors",
    "sparkscore.extras",
    "sparkscore.flavors",
    "sparkscore.flavors.base",
    "sparkscore.flavors.frames",
    "sparkscore.flavors.functions",
    "sparkscore.flavors.tensors",
    "sparkscore.flavors.load",
    "sparkscore.flavors.portable",
    "sparkscore.flavors.python_model",
    "sparkscore.flavors.registered",
    "sparkscore.flavors.save",
    "sparkscore.fused",
    "sparkscore.fused.levels",
    "sparkscore.package",
    "sparkscore.package.archive",
    "sparkscore.package.code_folder",
    "sparkscore.package.datatypes",
    "sparkscore.package.environment",
    "sparkscore.package.imported",
    "sparkscore.package.layout",
    "sparkscore.package.manifest",
    "sparkscore.package.node_folder",
    "sparkscore.package.node_packages",
    "sparkscore.package.params",
    "sparkscore.package.safe_yaml",
    "sparkscore.package.schema",
    "sparkscore.package.signature",
    "sparkscore.package.signing",
    "sparkscore.package.tensors",
    "sparkscore.package.trust",
    "sparkscore.scoring",
    "sparkscore.scoring.batch",
    "sparkscore.scoring.bisection",
    "sparkscore.scoring.casts",
    "sparkscore.scoring.comparison",
    "sparkscore.scoring.facts",
    "sparkscore.scoring.outputs",
    "sparkscore.scoring.rejects",
    "sparkscore.scoring.unfit",
    "sparkscore.spark",
    "sparkscore.spark.node_cache",
    "sparkscore.spark.task_slot",
    "sparkscore.spark.threads",
    "sparkscore.spark.worker",
}
FOREIGN = (
    "alembic", "catboost", "click", "delta", "fastapi", "httpx", "keras", "lightgbm", "mlflow",
    "numba", "onnx", "onnxruntime", "pandas", "prophet", "pydantic", "pyspark", "rich", "sklearn",
    "sqlalchemy", "starlette", "statsmodels", "tensorflow", "torch", "transformers", "xgboost",
)  # fmt: skip


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Modules of a fresh process that has imported the worker and done nothing."""
    code = "import sys, sparkscore.spark.worker; print(*sys.modules, sep='\\n')"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_worker_brings_in_the_rooms_that_score_and_no_other(imported: set[str]) -> None:
    assert {name for name in imported if name.split(".")[0] == "sparkscore"} <= OURS


@pytest.mark.parametrize("library", FOREIGN)
def test_worker_brings_in_no_foreign_library_it_may_not_need(
    imported: set[str], library: str
) -> None:
    assert library not in imported
