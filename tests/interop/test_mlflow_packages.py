from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml

import sparkscore
from sparkscore.errors import SignatureMismatchError, UntrustedCodeError
from sparkscore.flavors import load_predictor, set_signature
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, copy_sealed, open_package, verify
from sparkscore.package.environment import check_environment
from sparkscore.testing.flavor_contract import assert_same
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LIBRARIES = [
    "pipeline",
    "regressor",
    "booster",
    "xgb_regressor_ubj",
    "xgb_regressor_json",
    "xgb_booster_ubj",
    "xgb_booster_json",
    "cat_regressor_cbm",
    "cat_regressor_json",
    "cat_classifier",
    "onnx_matrix_beside",
    "onnx_matrix_inside",
    "onnx_columns_beside",
    "onnx_columns_inside",
    "pickle",
    "cloudpickle",
    "statsmodels",
]
PYTHON = [
    "python_class",
    "python_words",
    "python_doubled",
    "python_plain",
    "python_script",
    "python_loader",
]
ON_SPARK = [
    "pipeline",
    "regressor",
    "xgb_regressor_ubj",
    "cat_classifier",
    "onnx_matrix_beside",
    "statsmodels",
    "python_class",
    "python_loader",
]
PICKLES = {
    "3.17": {"pickle", "cloudpickle", "statsmodels"},
    # MLflow has written skops since 3.14.
    "2.22": {"pickle", "cloudpickle", "statsmodels", "pipeline", "regressor"},
}


Peer = Callable[[str, Path], None]


@dataclass(frozen=True)
class Written:
    """Packages that a release of MLflow saved, with rows and its own answers beside them."""

    release: str
    folder: Path

    def runs_code(self, name: str) -> bool:
        """Whether loading a package runs what it brings."""
        return name in PYTHON or name in PICKLES[self.release]


@pytest.fixture(scope="session")
def written_by_each(
    mlflow_peer: Peer, mlflow2_peer: Peer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Written]:
    """The packages of each release of MLflow."""
    found = {}
    for release, run in (("3.17", mlflow_peer), ("2.22", mlflow2_peer)):
        found[release] = Written(release, tmp_path_factory.mktemp("mlflow"))
        run("write", found[release].folder)
    return found


@pytest.fixture(params=PICKLES)
def written(request: pytest.FixtureRequest, written_by_each: dict[str, Written]) -> Written:
    """The packages of one release."""
    return written_by_each[request.param]


def ours(
    folder: Path, name: str, trust: TrustPolicy, params: Mapping[str, object] | None = None
) -> np.ndarray:
    package = open_package(folder / name)
    assert package.description.signature is not None
    rows = pd.read_parquet(folder / f"{name}.parquet")
    batch = record_batch(rows, column_inputs(package.description.signature))
    loaded = load_predictor(package, trust)
    return np.asarray((loaded.with_params(params) if params else loaded).predict(batch))


@pytest.mark.parametrize("name", [*LIBRARIES, *PYTHON])
def test_package_of_mlflow_scores_the_same_and_is_trusted_only_if_it_runs_no_code(
    written: Written, name: str
) -> None:
    trust = TrustPolicy()
    if written.runs_code(name):
        with pytest.raises(UntrustedCodeError):
            ours(written.folder, name, trust)
        trust = TrustPolicy(allow_code=True)
    assert_same(ours(written.folder, name, trust), np.load(written.folder / f"{name}.npy"))
    assert not {"mlflow", "factors", "own_loader"} & sys.modules.keys()


def test_packages_of_each_flavor_and_release_score_the_same_on_spark(
    written_by_each: dict[str, Written], spark: SparkSession, tmp_path: Path
) -> None:
    workspace = Workspace.open(
        overrides={"trust.allow_code": "true", "cache.folder": str(tmp_path / "cache")}
    )
    # One job for all models of the same rows.
    by_rows: dict[bytes, list[Path]] = {}
    for each in written_by_each.values():
        for package in (each.folder / name for name in ON_SPARK):
            rows = package.with_suffix(".parquet").read_bytes()
            by_rows.setdefault(rows, []).append(package)
    assert len(by_rows) == 3
    for packages in by_rows.values():
        rows_of_all = spark.read.parquet(str(packages[0].with_suffix(".parquet")))
        models = [sparkscore.spark_udf(spark, str(p), workspace=workspace) for p in packages]
        scores = rows_of_all.select([model().alias(f"{i}") for i, model in enumerate(models)])
        for package, (_, column) in zip(packages, scores.toPandas().items(), strict=True):
            expected = np.load(package.with_suffix(".npy"))
            got = np.array(column.tolist()).reshape(expected.shape)  # Rows of matrices are lists.
            assert_same(got.astype(expected.dtype), expected)


@pytest.mark.parametrize("name", ["python_class", "python_script", "python_loader"])
def test_python_function_of_mlflow_takes_params_as_there(written: Written, name: str) -> None:
    expected = np.load(written.folder / f"{name}-params.npy")
    trust = TrustPolicy(allow_code=True)
    assert_same(ours(written.folder, name, trust, {"factor": 0.5}), expected)


def test_where_mlflow_is_installed_its_own_names_serve(
    written_by_each: dict[str, Written], each_peer: tuple[str, Peer]
) -> None:
    release, run = each_peer
    written = written_by_each[release]
    run("beside", written.folder)
    for name in PYTHON:
        expected = np.load(written.folder / f"{name}.npy")
        assert_same(np.load(written.folder / f"{name}.beside.npy"), expected)


def test_package_of_mlflow_can_be_copied_sealed_and_compared(
    written: Written, tmp_path: Path
) -> None:
    sealed = copy_sealed(written.folder / "pipeline", tmp_path / "copy")
    assert verify(tmp_path / "copy") == sealed
    package = open_package(tmp_path / "copy")
    assert str(package.description.mlflow_version).startswith(written.release)
    # Both environments may hold other releases of a library; the text must be a plain line.
    assert all("\n" not in str(found) for found in check_environment(package))


def test_package_of_another_mlflow_with_bare_env_unknown_keys_and_no_signature_scores(
    written: Written, tmp_path: Path
) -> None:
    folder = tmp_path / "booster"
    shutil.copytree(written.folder / "booster", folder)
    raw = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
    signature = open_package(folder).description.signature
    assert signature is not None
    del raw["signature"]
    raw |= {"mlflow_version": "1.30.1", "made_later": {"by": ["someone"]}}
    raw["flavors"]["python_function"] |= {"env": "conda.yaml", "unheard_of": 1}
    (folder / "MLmodel").write_text(yaml.safe_dump(raw), "utf-8")
    with pytest.raises(SignatureMismatchError, match=r"no signature.*sparkscore\.set_signature"):
        load_predictor(open_package(folder), TrustPolicy())
    package = set_signature(folder, signature)
    assert package.description.extra["made_later"] == {"by": ["someone"]}
    shutil.copy(written.folder / "booster.parquet", tmp_path)
    expected = np.load(written.folder / "booster.npy")
    assert_same(ours(tmp_path, "booster", TrustPolicy()), expected)
