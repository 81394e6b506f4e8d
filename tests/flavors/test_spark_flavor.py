"""Pipelines of Spark ML: packaged, refused where they could run code, and asked directly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    PredictionError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy, seal
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.signature import Signature, infer_signature
from sparkscore.testing.flavor_contract import FlavorContract, assert_same, mixed_frame

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import SparkSession

ROWS = mixed_frame().fillna({"income": 0.5, "town": "nowhere"})


@pytest.fixture(autouse=True)
def _session(spark: SparkSession) -> None:
    """Models are fitted by the session that runs here."""


def fitted(*more: object, numbers: tuple[str, ...] = ("age", "income")) -> PipelineModel:
    """A pipeline over text and numbers, with further stages before the last."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    assert spark is not None
    rows = spark.createDataFrame(ROWS.assign(label=(ROWS["age"] > 40).astype(float)))
    stages = [
        StringIndexer(inputCol="town", outputCol="nth", handleInvalid="keep"),
        OneHotEncoder(inputCol="nth", outputCol="one"),
        *more,
        VectorAssembler(inputCols=[*numbers, "one"], outputCol="features"),
        LogisticRegression(maxIter=5),
    ]
    return Pipeline(stages=stages).fit(rows)  # type: ignore[arg-type]  # stages of any kind


class TestPipeline(FlavorContract):
    flavor = "spark"

    def model(self) -> object:
        return fitted()

    def example(self) -> pd.DataFrame:
        return ROWS[["age", "income", "town"]]

    def expected(self, model: object, example: pd.DataFrame) -> np.ndarray:
        from pyspark.ml import PipelineModel
        from pyspark.sql import SparkSession

        spark = SparkSession.getActiveSession()
        assert spark is not None
        assert isinstance(model, PipelineModel)
        scored = model.transform(spark.createDataFrame(example))
        return scored.select("prediction").toPandas()["prediction"].to_numpy()


def test_flavor_is_found_by_the_class_and_a_stage_alone_becomes_a_pipeline(tmp_path: Path) -> None:
    model = fitted().stages[0]
    signature = Signature(
        infer_signature(ROWS[["town"]]).inputs, infer_signature(ROWS, {"nth": [0.0]}).outputs
    )
    package = save_model(model, tmp_path / "p", signature=signature)
    conf = package.description.flavors["spark"]
    assert conf["model_data"] == "sparkml"
    assert conf["model_class"] == "pyspark.ml.pipeline.PipelineModel"
    towns = pd.DataFrame({"town": ["Ulm", "elsewhere"]})
    assert np.asarray(answered(package, towns)).tolist() == [2.0, 4.0]


def test_vectors_are_lists_of_doubles_and_several_columns_are_answered(tmp_path: Path) -> None:
    inputs = infer_signature(ROWS[["age", "income", "town"]]).inputs
    outputs = infer_signature(ROWS, {"probability": [[0.5, 0.5]], "prediction": [1.0]}).outputs
    model = fitted()
    package = save_model(model, tmp_path / "p", signature=Signature(inputs, outputs))
    answer = answered(package, ROWS)
    assert [str(kind) for kind in answer.schema.types] == ["list<element: double>", "double"]  # type: ignore[attr-defined]  # an Arrow table
    last = save_model(
        model.stages[-1],
        tmp_path / "q",
        input_example=pd.DataFrame({"features": [np.arange(6.0), np.zeros(6)]}),
    )
    assert last.description.signature is not None
    assert isinstance(last.description.signature.inputs, ColumnSchema)
    rows = pd.DataFrame({"features": [np.zeros(6)] * 3})
    assert len(np.asarray(answered(last, rows))) == 3


def test_sql_inside_of_a_pipeline_needs_trust(tmp_path: Path) -> None:
    from pyspark.ml.feature import SQLTransformer

    sql = SQLTransformer(statement="SELECT *, age * 2 AS twice FROM __THIS__")
    model = fitted(sql, numbers=("twice", "income"))
    example = ROWS[["age", "income", "town"]]
    with pytest.raises(UntrustedCodeError, match=r"stages of 'org\.apache.*SQLTransformer'"):
        save_model(model, tmp_path / "p", input_example=example)
    named = TrustPolicy(types=("org.apache.spark.ml.feature.SQLTransformer",))
    package = save_model(model, tmp_path / "p", input_example=example, trust=named)
    with pytest.raises(UntrustedCodeError, match=r"--trust org\.apache\.spark.*SQLTr"):
        answered(package, example)
    assert len(np.asarray(answered(package, example, named))) == len(ROWS)


@pytest.mark.parametrize(
    "name", ["com.example.Stage", "os.path.Stage", "org.apache.spark.sql.X", "pyspark.ml.X"]
)
def test_class_of_anyone_else_is_refused_before_spark_sees_it(name: str, tmp_path: Path) -> None:
    package = saved(tmp_path)
    rewrite(package, "VectorAssembler", lambda stage: {**stage, "class": name})
    with pytest.raises(UntrustedCodeError, match=rf"stages of '{name}'.*--trust {name}"):
        load_predictor(package, TrustPolicy())


def test_second_file_of_metadata_is_refused(tmp_path: Path) -> None:
    package = saved(tmp_path)
    (package.folder / "sparkml" / "metadata" / "part-9.txt").write_text("{}")
    with pytest.raises(PackageFormatError, match="does not hold one JSON object"):
        load_predictor(package, TrustPolicy())
    (package.folder / "sparkml" / "metadata" / "part-9.txt").unlink()
    (package.folder / "sparkml" / "metadata" / "part=9").mkdir()
    with pytest.raises(PackageFormatError, match="'part=9', which is no file"):
        load_predictor(package, TrustPolicy())


def test_stage_outside_of_the_package_is_refused(tmp_path: Path) -> None:
    package = saved(tmp_path)
    (path,) = (package.folder / "sparkml" / "metadata").glob("part-*")
    described = json.loads(path.read_text("utf-8"))
    described["paramMap"]["stageUids"][0] = "x/../../../elsewhere"
    path.write_text(json.dumps(described), "utf-8")
    with pytest.raises(PackageFormatError, match="names stages outside of the package: 'x/"):
        load_predictor(package, TrustPolicy())


def test_extra_is_named_where_spark_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = saved(tmp_path)
    monkeypatch.delitem(sys.modules, "sparkscore.spark.pipeline_flavor")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparkscore\[spark\]'"):
        load_predictor(package, TrustPolicy())


def test_pipeline_of_spark_connect_is_refused_by_its_name(tmp_path: Path) -> None:
    package = saved(tmp_path)
    text = (package.folder / "MLmodel").read_text("utf-8")
    connect = text.replace("pyspark.ml.pipeline.", "pyspark.ml.connect.pipeline.")
    (package.folder / "MLmodel").write_text(connect, "utf-8")
    seal(package.folder)
    from sparkscore.package import open_package

    with pytest.raises(PackageFormatError, match="Spark Connect's own kind"):
        load_predictor(open_package(package.folder), TrustPolicy())


def test_stage_that_spark_cannot_read_is_named(tmp_path: Path) -> None:
    package = saved(tmp_path)
    rewrite(package, "VectorAssembler", lambda stage: {**stage, "class": f"{stage['class']}Gone"})
    with pytest.raises(PackageFormatError, match="is no pipeline that Spark 4"):
        answered(package, ROWS)


def test_row_that_a_stage_leaves_out_is_noticed(tmp_path: Path) -> None:
    package = saved(tmp_path)
    skip = {"handleInvalid": "skip"}
    rewrite(
        package,
        "VectorAssembler",
        lambda stage: {**stage, "paramMap": {**stage["paramMap"], **skip}},
    )
    rows = ROWS[["age", "income", "town"]].copy()
    rows.loc[0, "income"] = None
    with pytest.raises(PredictionError, match="answered 79 rows for 80; a stage leaves rows out"):
        answered(package, rows)


def test_null_that_a_stage_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    rows = ROWS[["age", "income", "town"]].copy()
    rows.loc[0, "income"] = None
    with pytest.raises(PredictionError, match="handleInvalid"):
        answered(saved(tmp_path), rows)


def test_declared_columns_must_be_those_of_the_pipeline(tmp_path: Path) -> None:
    inputs = infer_signature(ROWS[["age", "income", "town"]]).inputs
    for outputs, message in (
        ({"score": [0.5], "prediction": [1.0]}, "answers no column 'score'"),
        ({"prediction": ["yes"]}, "declares column 'prediction' as string, but .* answers double"),
    ):
        signature = Signature(inputs, infer_signature(ROWS, outputs).outputs)
        package = save_model(fitted(), tmp_path / message[:9], signature=signature)
        with pytest.raises(PredictionError, match=message):
            answered(package, ROWS)


def test_inputs_that_the_pipeline_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureMismatchError, match=r"does not take what .* signature declares"):
        save_model(fitted(), tmp_path / "p", input_example=ROWS[["age", "income"]])


def test_estimator_that_was_never_fitted_is_not_saved(tmp_path: Path) -> None:
    from pyspark.ml.classification import LogisticRegression

    with pytest.raises(UsageError, match="no fitted model of Spark ML"):
        save_model(LogisticRegression(), tmp_path / "p", input_example=ROWS)


def saved(folder: Path) -> Package:
    return save_model(fitted(), folder / "p", input_example=ROWS[["age", "income", "town"]])


def rewrite(package: Package, stage: str, change: object) -> None:
    """Change what the metadata of a stage says, with a new seal."""
    (folder,) = (package.folder / "sparkml" / "stages").glob(f"*_{stage}_*")
    (path,) = (folder / "metadata").glob("part-*")
    assert callable(change)
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")
    path.with_name(f".{path.name}.crc").unlink()
    seal(package.folder)


def answered(package: Package, rows: pd.DataFrame, trust: TrustPolicy | None = None) -> object:
    assert package.description.signature is not None
    batch = record_batch(rows, column_inputs(package.description.signature))
    return load_predictor(package, trust or TrustPolicy()).predict(batch)


def test_answers_are_those_of_the_pipeline_in_the_order_of_rows(tmp_path: Path) -> None:
    rows = ROWS[["age", "income", "town"]].sample(frac=1, random_state=3)
    whole = np.asarray(answered(saved(tmp_path), rows))
    alone = [np.asarray(answered(saved(tmp_path / str(i)), rows.iloc[[i]]))[0] for i in range(2)]
    assert_same(whole[:2], np.array(alone))
