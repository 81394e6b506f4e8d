"""A certificate over real jobs, for the models of every flavor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import catboost
import cloudpickle
import deltalake
import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparkscore.certification import SampleRequest, certify
from sparkscore.cli import main
from sparkscore.errors import SourceError
from sparkscore.flavors import save_model
from sparkscore.flavors.base import FittedModel
from sparkscore.flavors.onnx_conversion import Precision, convert_to_onnx
from sparkscore.names import parse_model_name
from sparkscore.package.signature import (
    ColumnSchema,
    ColumnSpec,
    ParamSpec,
    ScalarType,
    infer_signature,
)
from sparkscore.records import RunStatus
from sparkscore.scoring.certificate import Agreement, Certificate
from sparkscore.scoring.engine import SourceSpec
from sparkscore.testing.models import Third, packaged
from sparkscore.workspace import Workspace

pytestmark = pytest.mark.usefixtures("spark")

N_ROWS = 500
FEATURES = ["a", "b", "c", "d", "e"]
JOBS = [f"{engine} engine, {n} files" for engine in ("files", "arrow", "pandas") for n in (1, 7)]


class Ranking:
    """Answers with each row's place among those of its batch, as no scoring model may."""

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        """One double a row."""
        rank: np.ndarray = model_input["a"].rank().to_numpy()
        return rank


@dataclass
class Bench:
    """A workspace with a table to sample, and a place for packages."""

    folder: Path
    settings: dict[str, str]
    workspace: Workspace
    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def certify(self, uri: str, where: str | None = None, **options: object) -> Certificate:
        spec = SourceSpec(str(self.folder / "table"), where=where)
        request = SampleRequest(spec, **{"columns": {}, **options})  # type: ignore[arg-type]
        return certify(self.workspace, uri, request, self.notes.append)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    rng = np.random.default_rng(7)
    rows = pd.DataFrame(rng.normal(size=(N_ROWS, len(FEATURES))), columns=FEATURES)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    missing = pa.array([None if i % 50 == 0 else value for i, value in enumerate(rows["a"])])
    table = table.set_column(0, "a", missing).append_column(
        "day", pa.array(np.arange(N_ROWS) % 5, pa.int64())
    )
    deltalake.write_deltalake(tmp_path / "table", table)
    settings = {
        "tracking.uri": f"sqlite:///{tmp_path}/runs.db",
        "tracking.outbox": f"{tmp_path}/outbox",
        "artifacts.uri": f"{tmp_path}/artifacts",
    }
    workspace = Workspace.open(overrides={**settings, "trust.allow_code": True})
    return Bench(tmp_path, settings, workspace, rows)


def _trees(rows: pd.DataFrame) -> object:
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    return model.fit(rows, rows["a"] + rows["b"] > 0)


def _pipeline(rows: pd.DataFrame) -> object:
    return make_pipeline(StandardScaler(), LinearRegression()).fit(rows, rows.sum(axis=1))


def _three_classes(rows: pd.DataFrame) -> object:
    options = {"iterations": 5, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    labels = np.array(["low", "middle", "high"])[np.digitize(rows["b"], [-0.5, 0.5])]
    return catboost.CatBoostClassifier(**options).fit(rows, labels)


def _booster(rows: pd.DataFrame) -> object:
    settings = {"verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, lightgbm.Dataset(rows, rows.sum(axis=1)), 10)


def _grown(rows: pd.DataFrame) -> object:
    return xgboost.XGBRegressor(n_estimators=10, n_jobs=1).fit(rows, rows.sum(axis=1))


def _symmetric(rows: pd.DataFrame) -> object:
    settings = {"iterations": 10, "verbose": False, "allow_writing_files": False}
    return catboost.CatBoostRegressor(**settings).fit(rows, rows.sum(axis=1))


def _graph(rows: pd.DataFrame) -> object:
    trees = RandomForestClassifier(10, random_state=0).fit(rows, rows["a"] + rows["b"] > 0)
    schema = infer_signature(rows).inputs
    assert isinstance(schema, ColumnSchema)
    declared = pa.schema([("label", pa.bool_())])
    return convert_to_onnx(FittedModel(trees), schema, declared, Precision.FLOAT)


@pytest.mark.parametrize(
    ("train", "flavor"),
    [
        (_trees, "sklearn"),
        (_booster, "lightgbm"),
        (_grown, "xgboost"),
        (_symmetric, "catboost"),
        (_graph, "onnx"),
    ],
)
def test_a_model_is_certified_over_all_ways_and_the_version_keeps_it(
    train: Callable[[pd.DataFrame], object], flavor: str, bench: Bench
) -> None:
    model = train(bench.rows)
    save_model(model, bench.folder / "model", flavor=flavor, input_example=bench.rows)
    name = parse_model_name("fine")
    version = bench.workspace.registry.register(bench.folder / "model", name).version

    certificate = bench.certify("models:/fine/1")

    assert certificate.failed == ()
    checks = {check.name: check for check in certificate.checks}
    assert set(JOBS) <= checks.keys()
    third = N_ROWS // 3
    for job in JOBS:
        assert checks[job].agreement in (Agreement.EQUAL, Agreement.CLOSE), checks[job]
        assert checks[job].n_rows == N_ROWS
    sizes = {check: checks[f"batches of {check}"].n_rows for check in (0, 1, third - 1, third + 1)}
    assert sizes == {0: 0, 1: 200, third - 1: N_ROWS, third + 1: N_ROWS}
    assert checks["mlflow.pyfunc"].agreement is Agreement.SKIPPED

    tags = bench.workspace.registry.versions(name)[0].tags
    assert (version, tags["sparkscore.certified"]) == (1, "true")
    run_id = tags["sparkscore.certificate"].split("/")[1]
    (run,) = bench.workspace.runs.list_runs()
    assert (run.run_id, run.status) == (run_id, RunStatus.FINISHED)
    (kept,) = bench.folder.glob(f"artifacts/*/{run_id}/artifacts/certificate.json")
    assert json.loads(kept.read_text()) == json.loads(json.dumps(certificate.as_facts()))


def test_a_model_that_looks_beyond_its_row_is_not_certified(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ColumnSchema((ColumnSpec("a", ScalarType.DOUBLE),))
    packaged(Ranking(), bench.folder / "model", inputs=columns)
    settings = [item for pair in bench.settings.items() for item in ("--set", "=".join(pair))]
    command = ["certify", str(bench.folder / "model"), "--sample", str(bench.folder / "table")]
    exit_code = main([*settings, *command, "--trust-code", "-o", "json"])
    told = capsys.readouterr()
    facts = json.loads(told.out)
    by_name = {check["name"]: check["agreement"] for check in facts["checks"]}
    assert (exit_code, facts["certified"]) == (4, False)
    assert "error [NOT_CERTIFIED]: model " in told.err
    assert {by_name[name] for name in JOBS if "7 files" in name} == {"different"}
    assert by_name["batches of 1"] == "different"
    assert by_name[f"native, one batch of {N_ROWS}"] == "equal"


def test_model_fitted_on_an_array_is_certified_over_all_ways_and_mlflow(bench: Bench) -> None:
    rows = bench.rows.to_numpy()
    model = RandomForestClassifier(10, random_state=0).fit(rows, rows[:, 0] > 0)
    signature = infer_signature(rows, model.predict(rows))
    save_model(model, bench.folder / "model", signature=signature)
    columns = {str(i): name for i, name in enumerate(bench.rows.columns)}
    certificate = bench.certify(
        str(bench.folder / "model"),
        "a IS NOT NULL",
        columns=columns,
        n_rows=100,
        mlflow_python=Path(os.environ["SPARKSCORE_MLFLOW_PYTHON"]),
    )
    assert certificate.failed == ()
    assert certificate.checks[-1].name == "mlflow.pyfunc"
    assert certificate.checks[-1].agreement is Agreement.EQUAL


@pytest.mark.parametrize(
    ("train", "flavor"), [(_pipeline, "sklearn"), (_three_classes, "catboost")]
)
def test_mlflow_scores_the_same_rows_under_the_models_own_names(
    train: Callable[[pd.DataFrame], object], flavor: str, bench: Bench
) -> None:
    rows = bench.rows.rename(columns={"a": "first"})
    model = train(rows)
    signature = infer_signature(rows, model.predict(rows))  # type: ignore[attr-defined]
    save_model(model, bench.folder / "model", flavor=flavor, signature=signature)
    certificate = bench.certify(
        str(bench.folder / "model"),
        "a IS NOT NULL",
        columns={"first": "a"},
        n_rows=100,
        mlflow_python=Path(os.environ["SPARKSCORE_MLFLOW_PYTHON"]),
    )
    assert (certificate.failed, certificate.sample["rows"]) == ((), 100)
    checks = {check.name: check for check in certificate.checks}
    for name in (*JOBS, "mlflow.pyfunc"):
        assert checks[name].n_rows == 100
        assert checks[name].agreement in (Agreement.EQUAL, Agreement.CLOSE), checks[name]


class Halving:
    """Answers half of a column, and only where it is told to."""

    def predict(
        self,
        context: object,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, float],
    ) -> np.ndarray:
        """One double a row."""
        if params != {"factor": 0.5}:
            raise ValueError(f"params are {params}")
        half: np.ndarray = model_input["a"].to_numpy() * params["factor"]
        return half


def test_params_reach_the_model_whichever_way_it_is_scored(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ColumnSchema((ColumnSpec("a", ScalarType.DOUBLE),))
    params = (ParamSpec("factor", ScalarType.DOUBLE, 2.0),)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    packaged(Halving(), bench.folder / "model", inputs=columns, params=params)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    settings = [item for pair in bench.settings.items() for item in ("--set", "=".join(pair))]
    command = ["certify", str(bench.folder / "model"), "--sample", str(bench.folder / "table")]
    mlflow = ["--mlflow-python", os.environ["SPARKSCORE_MLFLOW2_PYTHON"]]
    given = ["--where", "a IS NOT NULL", "--rows", "50", "--param", "factor=0.5"]
    assert main([*settings, *command, *given, *mlflow, "--trust-code", "-o", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sample"]["params"] == {"factor": 0.5}
    assert {check["agreement"] for check in facts["checks"]} == {"equal"}
    assert facts["checks"][-1]["name"] == "mlflow.pyfunc"


def test_a_sample_without_rows_certifies_nothing(bench: Bench) -> None:
    columns = ColumnSchema((ColumnSpec("a", ScalarType.DOUBLE),))
    packaged(Third(), bench.folder / "model", inputs=columns)
    with pytest.raises(SourceError, match="has no row with filter 'day = 9'"):
        bench.certify(str(bench.folder / "model"), "day = 9")
    assert list(bench.workspace.runs.list_runs()) == []
