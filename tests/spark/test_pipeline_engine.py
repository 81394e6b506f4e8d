"""Jobs whose model is a Spark ML pipeline: plan, commit and books are those of other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.ml import Estimator, Pipeline, PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import SQLTransformer, StringIndexer, VectorAssembler

import sparkscore
from sparkscore.batch_job import run_batch_job
from sparkscore.certification import SampleRequest, certify
from sparkscore.errors import (
    BooksError,
    CheckFailedError,
    EngineUnfitError,
    InvalidRowsError,
    KeyColumnError,
    SignatureMismatchError,
    TargetSchemaError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import save_model
from sparkscore.job_planning import prepare, runtime_facts
from sparkscore.job_record import plan_facts
from sparkscore.package import TrustPolicy, seal
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.package.signature import ParamSpec, ScalarType, Signature, infer_signature
from sparkscore.scoring.certificate import Agreement
from sparkscore.scoring.engine import SourceSpec
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.job_result import JobResult

N_ROWS = 60
ROWS = pa.table(
    {
        "id": pa.array(range(N_ROWS), pa.int64()),
        "features": ["a name that stages of the pipeline write"] * N_ROWS,
        "prediction of old": [0.25] * N_ROWS,
        "x": pa.array(np.linspace(-3, 3, N_ROWS)),
        "n": pa.array([i % 7 for i in range(N_ROWS)], pa.int64()),
        "word": [("left", "right", "middle")[i % 3] for i in range(N_ROWS)],
    }
)
INPUTS = ColumnSchema(
    (
        ColumnSpec("x", ScalarType.DOUBLE),
        ColumnSpec("n", ScalarType.INTEGER),
        ColumnSpec("word", ScalarType.STRING),
    )
)
OUTPUTS = infer_signature(pd.DataFrame({"x": [0.5]}), {"probability": [[0.5]], "prediction": [1.0]})


@pytest.fixture(scope="module")
def pipeline(spark: SparkSession) -> PipelineModel:
    return fitted(spark, "error")


def fitted(spark: SparkSession, handle_invalid: str) -> PipelineModel:
    frame = spark.createDataFrame(ROWS.select(["x", "n", "word"]))
    stages: list[Estimator[Any] | Transformer] = [
        StringIndexer(inputCol="word", outputCol="nth", handleInvalid="keep"),
        VectorAssembler(
            inputCols=["x", "n", "nth"], outputCol="features", handleInvalid=handle_invalid
        ),
        LogisticRegression(maxIter=5),
    ]
    labelled = frame.selectExpr("*", "cast(x + n > 2 as double) as label")
    return Pipeline(stages=stages).fit(labelled)


@pytest.fixture
def model(pipeline: PipelineModel, tmp_path: Path) -> str:
    signature = Signature(INPUTS, OUTPUTS.outputs)
    return str(save_model(pipeline, tmp_path / "model", signature=signature).folder)


@pytest.fixture
def workspace(spark: SparkSession, tmp_path: Path) -> Workspace:  # noqa: ARG001 - the running session
    return opened(tmp_path)


def opened(folder: Path, **settings: object) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/store.db",
        "artifacts.uri": str(folder / "artifacts"),
        "cache.folder": str(folder / "cache"),
    }
    return Workspace.open(overrides=overrides | settings)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return stored(ROWS, tmp_path)


def stored(rows: pa.Table, folder: Path) -> Path:
    deltalake.write_deltalake(folder / "source", rows, mode="overwrite", schema_mode="overwrite")
    return folder / "source"


def run(
    workspace: Workspace, model: str, source: Path, run_key: str = "night", **job: object
) -> JobResult:
    described = {
        "name": "pipeline",
        "model": model,
        "source.uri": str(source),
        "target.uri": str(source.with_name("scores")),
        "key": ["id"],
        **job,
    }
    settings = workspace.job(None, described).values
    return run_batch_job(workspace, settings, run_key, lambda _: None)


def scores(source: Path) -> pa.Table:
    table = deltalake.DeltaTable(source.with_name("scores")).to_pyarrow_table()
    return table.sort_by("id")


def rejects(source: Path) -> pa.Table:
    return deltalake.DeltaTable(source.with_name("scores_rejects")).to_pyarrow_table()


def n_commits(source: Path) -> int:
    return len(list((source.with_name("scores") / "_delta_log").glob("*.json")))


def test_scores_are_those_of_the_pipeline_to_the_bit(
    workspace: Workspace, model: str, source: Path, pipeline: PipelineModel, spark: SparkSession
) -> None:
    result = run(workspace, model, source, keep=["features"])
    assert (result.input["rows"], result.output["rows"]) == (N_ROWS, N_ROWS)
    direct = pipeline.transform(spark.createDataFrame(ROWS.select(["id", "x", "n", "word"])))
    expected = direct.orderBy("id").select("prediction", "probability").collect()
    written = scores(source)
    assert written["prediction"].to_pylist() == [row["prediction"] for row in expected]
    assert written["probability"].to_pylist() == [
        row["probability"].toArray().tolist() for row in expected
    ]
    assert written["features"].to_pylist() == ROWS["features"].to_pylist()
    assert set(written["run_id"].to_pylist()) == {result.run_id}
    assert written.column_names[:2] == ["id", "features"]


def test_plan_says_that_spark_itself_applies_the_model(
    workspace: Workspace, model: str, source: Path
) -> None:
    described = {
        "name": "pipeline",
        "model": model,
        "source.uri": str(source),
        "target.uri": str(source.with_name("scores")),
        "key": ["id"],
    }
    prepared = prepare(workspace, workspace.job(None, described).values, None, lambda _: None)
    facts = plan_facts(prepared)
    assert facts["engine"] == {
        "name": "spark",
        "reason": "auto: Spark itself applies pipelines of Spark ML",
        "crossing": "none: Spark applies its own pipeline",
        "writing": "none: Spark writes the files",
    }
    assert "which Spark itself applies" in str(runtime_facts(prepared)["reason"])


def test_second_run_with_the_same_key_writes_nothing(
    workspace: Workspace, model: str, source: Path
) -> None:
    assert run(workspace, model, source).status == "succeeded"
    assert run(workspace, model, source).status == "skipped"
    assert (n_commits(source), scores(source).num_rows) == (1, N_ROWS)


def test_merge_replaces_rows_of_the_same_key(
    workspace: Workspace, model: str, source: Path
) -> None:
    run(workspace, model, source, mode="merge")
    result = run(workspace, model, source, "later", mode="merge")
    assert result.output["rows"] == N_ROWS
    assert scores(source).num_rows == N_ROWS
    assert set(scores(source)["run_id"].to_pylist()) == {result.run_id}


def test_scores_are_published_only_when_they_pass_the_checks(
    workspace: Workspace, model: str, source: Path
) -> None:
    with pytest.raises(CheckFailedError, match=r"min_rows: \d+ rows"):
        run(workspace, model, source, "night", **{"checks.min_rows": 10**6})
    assert n_commits(source) == 0
    checks = {"checks.min_rows": 2, "checks.max_null_share": {"prediction": 0}}
    result = run(workspace, model, source, "night", **checks)
    assert result.output["rows"] == scores(source).num_rows >= 2


def test_replace_keeps_to_its_predicate(workspace: Workspace, model: str, source: Path) -> None:
    inside = {"mode": "replace", "replace_where": "id < 9"}
    run(workspace, model, source, where="id < 9", **inside)
    with pytest.raises(TargetSchemaError, match="outside replace_where"):
        run(workspace, model, source, "later", **inside)
    assert scores(source).num_rows == 9


@pytest.mark.parametrize("value", [None, 2**40])
def test_row_that_does_not_fit_ends_the_job_or_is_counted(
    value: int | None, workspace: Workspace, model: str, tmp_path: Path
) -> None:
    n = pa.array([value, *ROWS["n"].to_pylist()[1:]], pa.int64())
    source = stored(ROWS.set_column(4, "n", n), tmp_path)
    with pytest.raises(InvalidRowsError, match=r"column 'n' holds null or a value .* int32"):
        run(workspace, model, source)
    assert n_commits(source) == 0
    rejecting = opened(tmp_path, **{"scoring.on_invalid": "quarantine"})
    result = run(rejecting, model, source)
    assert (result.output["rows"], result.output["rejected"]) == (N_ROWS - 1, 1)
    assert scores(source)["id"].to_pylist() == list(range(1, N_ROWS))
    (rejected,) = rejects(source).to_pylist()
    assert rejected["id"] == 0
    assert rejected["reject_code"] == ("NULL_VALUE" if value is None else "UNFIT_VALUE")
    assert rejected["reject_column"] == "n"
    assert json.loads(rejected["reject_inputs"])["n"] == value


def test_largest_long_is_no_double(spark: SparkSession, tmp_path: Path) -> None:
    inputs = ColumnSchema(
        (INPUTS.columns[0], ColumnSpec("n", ScalarType.DOUBLE), INPUTS.columns[2])
    )
    signature = Signature(inputs, OUTPUTS.outputs)
    package = save_model(fitted(spark, "error"), tmp_path / "wide", signature=signature)
    n = pa.array([2**63 - 1, 2**53 + 1, 2**53, -(2**63), *range(N_ROWS - 4)], pa.int64())
    source = stored(ROWS.set_column(4, "n", n), tmp_path)
    rejecting = opened(tmp_path, **{"scoring.on_invalid": "quarantine"})
    result = run(rejecting, str(package.folder), source)
    assert result.output["rejected"] == 2
    assert scores(source)["id"].to_pylist()[:2] == [2, 3]


def test_null_in_a_key_ends_the_job(workspace: Workspace, model: str, tmp_path: Path) -> None:
    ids = pa.array([None, *range(N_ROWS - 1)], pa.int64())
    source = stored(ROWS.set_column(0, "id", ids), tmp_path)
    with pytest.raises(KeyColumnError, match="key column 'id' holds a null"):
        run(workspace, model, source)
    assert n_commits(source) == 0


@pytest.mark.parametrize("policy", ["fail", "quarantine"])
def test_pipeline_that_leaves_rows_out_is_refused(
    policy: str, spark: SparkSession, source: Path, tmp_path: Path
) -> None:
    signature = Signature(INPUTS, OUTPUTS.outputs)
    package = save_model(fitted(spark, "skip"), tmp_path / "skips", signature=signature)
    with pytest.raises(InvalidRowsError, match=r"'VectorAssembler_\w+' of model .* leave out rows"):
        run(opened(tmp_path, **{"scoring.on_invalid": policy}), str(package.folder), source)
    assert n_commits(source) == 0


@pytest.mark.parametrize(
    "setting", [{"scoring.on_invalid": "null"}, {"scoring.on_nan": "reject"}], ids=str
)
def test_policy_that_needs_failing_rows_found_is_refused(
    setting: dict[str, object], model: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnfitError, match="Spark itself applies pipelines"):
        run(opened(tmp_path, **setting), model, source)
    assert n_commits(source) == 0


def test_rows_that_a_trusted_stage_makes_twice_do_not_balance(
    pipeline: PipelineModel, source: Path, tmp_path: Path
) -> None:
    sql = "SELECT *, explode(array(1, 2)) AS nth_of_two FROM __THIS__"
    signature = Signature(INPUTS, OUTPUTS.outputs)
    package = save_model(
        PipelineModel([SQLTransformer(statement=sql), *pipeline.stages]),
        tmp_path / "twice",
        signature=signature,
        trust=TrustPolicy(types=("org.apache.spark.ml.*",)),
    )
    trusting = {"trust.types": ["org.apache.spark.ml.feature.SQLTransformer"]}
    rejecting = opened(tmp_path, **trusting, **{"scoring.on_invalid": "quarantine"})
    with pytest.raises(BooksError, match="60 rows were read, but 120 scored"):
        run(rejecting, str(package.folder), source)


@pytest.mark.parametrize("engine", ["files", "arrow", "pandas"])
def test_engine_of_python_workers_is_refused(
    engine: str, workspace: Workspace, model: str, source: Path
) -> None:
    with pytest.raises(EngineUnfitError, match=rf"{engine} engine .* Spark itself .* auto$"):
        run(workspace, model, source, engine=engine)


def test_code_of_others_is_refused_before_a_row_is_read(
    workspace: Workspace, pipeline: PipelineModel, source: Path, tmp_path: Path
) -> None:
    signature = Signature(INPUTS, OUTPUTS.outputs)
    package = save_model(pipeline, tmp_path / "other", signature=signature)
    (path,) = (package.folder / "sparkml" / "metadata").glob("part-*")
    path.write_text(path.read_text().replace("org.apache.spark.ml.Pip", "com.example.Pip"))
    path.with_name(f".{path.name}.crc").unlink()
    seal(package.folder)
    with pytest.raises(UntrustedCodeError, match=r"--trust com\.example\.PipelineModel"):
        run(workspace, str(package.folder), source)


def test_frame_gets_predictions_beside_its_own_columns(
    workspace: Workspace, model: str, spark: SparkSession
) -> None:
    frame = spark.createDataFrame(ROWS)
    scored = sparkscore.score(frame, model, workspace=workspace)
    assert scored.columns == [*ROWS.column_names, "probability", "prediction"]
    assert scored.count() == N_ROWS
    with pytest.raises(UsageError, match="to tables and not to columns"):
        sparkscore.spark_udf(spark, model, workspace=workspace)


def test_params_are_refused_though_a_signature_declares_them(
    workspace: Workspace, pipeline: PipelineModel, source: Path, spark: SparkSession, tmp_path: Path
) -> None:
    signature = Signature(INPUTS, OUTPUTS.outputs, (ParamSpec("p", ScalarType.LONG, 1),))
    package = save_model(pipeline, tmp_path / "params", signature=signature)
    with pytest.raises(SignatureMismatchError, match="params 'p' are given"):
        run(workspace, str(package.folder), source, params={"p": 2})
    with pytest.raises(SignatureMismatchError, match="params 'p' are given"):
        sparkscore.score(
            spark.createDataFrame(ROWS), str(package.folder), params={"p": 2}, workspace=workspace
        )


def test_pipeline_is_certified_by_its_own_engine(
    workspace: Workspace, model: str, source: Path
) -> None:
    request = SampleRequest(SourceSpec(str(source)), {}, n_rows=3)
    certificate = certify(workspace, model, request, lambda _: None)
    engines = [check for check in certificate.checks if "engine" in check.name]
    assert [check.name for check in engines] == ["spark engine, 1 files", "spark engine, 7 files"]
    assert {check.agreement for check in certificate.checks} <= {
        Agreement.EQUAL,
        Agreement.SKIPPED,
    }


def test_loaded_model_answers_as_the_job_does(
    workspace: Workspace, model: str, source: Path
) -> None:
    run(workspace, model, source)
    loaded = sparkscore.load_model(model, workspace=workspace)
    answer = loaded.predict(ROWS.select(["x", "n", "word"]))
    assert isinstance(answer, pa.Table)
    written = scores(source).select(["probability", "prediction"])
    assert answer.to_pylist() == written.to_pylist()
