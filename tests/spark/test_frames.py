from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyspark.sql import functions as sf
from sklearn.linear_model import LogisticRegression

import sparkscore
from sparkscore.errors import (
    ConfigError,
    PackageDigestError,
    PredictionError,
    SignatureMismatchError,
    UnsignedPackageError,
    UsageError,
)
from sparkscore.package.schema import TensorSchema, TensorSpec
from sparkscore.package.signature import ColumnSchema, ColumnSpec, ParamSpec, ScalarType
from sparkscore.package.signing import sign_package
from sparkscore.scoring.batch import BatchLimits, BatchTask
from sparkscore.scoring.comparison import compare
from sparkscore.spark.columns import EXACT_INTEGERS_KEY, answer_column, source_columns
from sparkscore.spark.failures import translated
from sparkscore.spark.source import described
from sparkscore.spark.worker import ScoringTask
from sparkscore.testing.engine_cases import ODD_LONG, TRUST
from sparkscore.testing.models import (
    Refusing,
    SeenAsArrays,
    SeenAsText,
    Third,
    Thirds,
    TimesFactor,
    packaged,
)
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame, SparkSession

X = ColumnSchema((ColumnSpec("x", ScalarType.DOUBLE),))
LONGS = ColumnSchema((ColumnSpec("n", ScalarType.LONG, False), ColumnSpec("w", ScalarType.STRING)))
TEXT = {"prediction": ScalarType.STRING}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own that trusts pickles."""
    folder = tmp_path_factory.mktemp("workspace")
    overrides = {
        "trust.allow_code": "true",
        "tracking.uri": f"sqlite:///{folder}/store.db",
        "artifacts.uri": str(folder / "artifacts"),
        "cache.folder": str(folder / "cache"),
    }
    return Workspace.open(overrides=overrides)


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model of one double that answers a double."""
    return str(packaged(Third(), tmp_path_factory.mktemp("third") / "model", inputs=X).folder)


@pytest.fixture(scope="module")
def thirds(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model of one double that answers a double and a word."""
    outputs = {"third": ScalarType.DOUBLE, "sign": ScalarType.STRING}
    folder = tmp_path_factory.mktemp("thirds") / "model"
    return str(packaged(Thirds(), folder, inputs=X, outputs=dict(outputs)).folder)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model of an optional long and a string that answers what it saw."""
    folder = tmp_path_factory.mktemp("seen") / "model"
    return str(packaged(SeenAsText(), folder, inputs=LONGS, outputs=dict(TEXT)).folder)


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model of one double and a param `factor`, 2.0 where it is not given."""
    spec = ParamSpec("factor", ScalarType.DOUBLE, 2.0)
    folder = tmp_path_factory.mktemp("times") / "model"
    return str(packaged(TimesFactor(), folder, inputs=X, params=(spec,)).folder)


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([(1, 3.0), (2, None), (3, -6.0)], "id INT, x DOUBLE").coalesce(1)


@pytest.fixture
def longs(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(
        [(ODD_LONG, "a"), (None, "b"), (2**53 + 1, None)], "n BIGINT, w STRING"
    ).coalesce(1)


SEEN = [f"{ODD_LONG} | a", "null | b", f"{2**53 + 1} | null"]


def test_predictions_follow_the_columns_of_the_frame(
    frame: DataFrame, thirds: str, workspace: Workspace
) -> None:
    scores = sparkscore.score(frame, thirds, workspace=workspace)
    assert scores.columns == ["id", "x", "third", "sign"]
    assert scores.schema["third"].dataType.simpleString() == "double"
    assert [tuple(row)[:1] + tuple(row)[2:] for row in scores.where("x IS NOT NULL").collect()] == [
        (1, 1.0, "plus"),
        (3, -2.0, "minus"),
    ]


def test_where_signatures_are_demanded_only_signed_models_score(
    frame: DataFrame, third: str, workspace: Workspace, tmp_path: Path
) -> None:
    # Unsigned as yet, so that the node has the files from before.
    rows = frame.where("x IS NOT NULL")
    expected = sparkscore.score(rows, third, workspace=workspace).collect()
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    keys = [private.public_key().public_bytes_raw().hex()]
    overrides = {"trust.require_signature": True, "trust.signing_keys": keys}
    strict = Workspace.open(
        overrides={
            "trust.digests": [workspace.pinned(third).digest],
            "cache.folder": str(workspace.settings.cache.folder),
            **overrides,
        }
    )
    with pytest.raises(UnsignedPackageError, match="signed by nobody"):
        sparkscore.score(rows, third, workspace=strict)
    shutil.copytree(third, tmp_path / "signed")
    sign_package(tmp_path / "signed", tmp_path / "key.pem")
    scores = sparkscore.score(rows, str(tmp_path / "signed"), workspace=strict)
    assert scores.collect() == expected


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a model of a matrix of two columns that answers what it saw."""
    inputs = TensorSchema((TensorSpec(None, "float64", (-1, 2)),))
    folder = tmp_path_factory.mktemp("matrix") / "model"
    return str(packaged(SeenAsArrays(), folder, inputs=inputs, outputs=dict(TEXT)).folder)


@pytest.mark.parametrize("engine", ["arrow", "pandas"])
def test_matrix_is_filled_from_columns_or_from_lists(
    engine: str, spark: SparkSession, matrix: str, workspace: Workspace
) -> None:
    rows = [(0.5, 1.5), (2.5, -1.0)]
    frame = spark.createDataFrame(
        [(*row, list(row)) for row in rows], "a DOUBLE, b DOUBLE, l ARRAY<DOUBLE>"
    ).coalesce(1)
    expected = [f":float64[2]{list(row)}" for row in rows]
    if engine == "arrow":  # A function in pandas may be given longs, which it could change.
        udf = sparkscore.spark_udf(spark, matrix, workspace=workspace)
        scored = frame.select(udf("a", "b").alias("x"), udf("l").alias("y"))
        assert [tuple(row) for row in scored.collect()] == [(text, text) for text in expected]
    lists = sparkscore.score(frame, matrix, columns={"0": "l"}, engine=engine, workspace=workspace)
    assert [row["prediction"] for row in lists.collect()] == expected
    columns = {"0": "a", "1": "b"}
    numbers = sparkscore.score(frame, matrix, columns=columns, workspace=workspace)
    assert [row["prediction"] for row in numbers.collect()] == expected


def test_no_job_runs_before_an_action(
    spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    tracker = spark.sparkContext.statusTracker()
    spark.sparkContext.setJobGroup("lazy", "nothing should run here")
    try:
        scores = sparkscore.score(frame, third, workspace=workspace)
        udf = sparkscore.spark_udf(spark, third, workspace=workspace)
        both = scores.withColumn("again", udf("x"))
        assert tracker.getJobIdsForGroup("lazy") == []
        both.collect()
        assert tracker.getJobIdsForGroup("lazy") != []
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["name", "column", "none"])
def test_function_takes_names_columns_or_nothing(
    call: str, spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, third, workspace=workspace)
    column: dict[str, Callable[[], Column]] = {
        "name": lambda: udf("x"),
        "column": lambda: udf(sf.col("x")),
        "none": udf,
    }
    got = frame.where("x IS NOT NULL").select(column[call]().alias("p")).collect()
    assert [row["p"] for row in got] == [1.0, -2.0]


@pytest.mark.parametrize("call", ["positional", "struct", "none"])
def test_function_of_several_columns_keeps_longs_beside_nulls(
    call: str, spark: SparkSession, longs: DataFrame, seen: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, seen, workspace=workspace)
    columns: dict[str, Callable[[], Column]] = {
        "positional": lambda: udf("n", sf.col("w")),
        "struct": lambda: udf(sf.struct("w", "n")),
        "none": udf,
    }
    assert [row[0] for row in longs.select(columns[call]()).collect()] == SEEN


def test_several_predictions_are_a_struct(
    spark: SparkSession, frame: DataFrame, thirds: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, thirds, workspace=workspace)
    scores = frame.where("x > 0").select(udf("x").alias("p"))
    assert scores.schema["p"].dataType.simpleString() == "struct<third:double,sign:string>"
    assert scores.select("p.third", "p.sign").collect() == [(1.0, "plus")]


def test_result_type_casts_the_prediction(
    spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, third, "string", workspace=workspace)
    scores = frame.where("x > 0").select(udf("x").alias("p"))
    assert scores.collect() == [("1.0",)]


def test_result_type_of_several_predictions_is_refused(
    spark: SparkSession, thirds: str, workspace: Workspace
) -> None:
    with pytest.raises(UsageError, match="one prediction column"):
        sparkscore.spark_udf(spark, thirds, "double", workspace=workspace)


def test_frame_gives_the_same_signature_as_its_rows(frame: DataFrame, longs: DataFrame) -> None:
    for each in (frame, longs):
        rows = each.toArrow()
        assert sparkscore.infer_signature(each, each) == sparkscore.infer_signature(rows, rows)


def test_params_are_given_to_the_model(
    spark: SparkSession, frame: DataFrame, times: str, workspace: Workspace
) -> None:
    rows = frame.where("x IS NOT NULL")
    plain = sparkscore.spark_udf(spark, times, workspace=workspace)
    given = sparkscore.spark_udf(spark, times, params={"factor": 10}, workspace=workspace)
    scores = sparkscore.score(rows, times, params={"factor": 0.5}, workspace=workspace)
    got = scores.select("prediction", plain("x").alias("p"), given("x").alias("g")).collect()
    assert [tuple(row) for row in got] == [(1.5, 6.0, 30.0), (-3.0, -12.0, -60.0)]


def test_params_that_the_model_does_not_declare_are_refused(
    spark: SparkSession, frame: DataFrame, times: str, workspace: Workspace
) -> None:
    with pytest.raises(ConfigError, match=r"'factro' is unknown .*did you mean 'factor'"):
        sparkscore.spark_udf(spark, times, params={"factro": 1.0}, workspace=workspace)
    with pytest.raises(ConfigError, match=r"'factor' is '3', .* declares double"):
        sparkscore.score(frame, times, params={"factor": "3"}, workspace=workspace)


def test_another_number_of_columns_is_refused(
    spark: SparkSession, seen: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, seen, workspace=workspace)
    with pytest.raises(SignatureMismatchError, match="takes the 2 columns 'n', 'w', but 3"):
        udf("n", "w", "n")


@pytest.mark.parametrize("name", ["prediction", "Prediction"])
def test_column_that_has_the_name_of_a_prediction_is_refused(
    name: str, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    with pytest.raises(SignatureMismatchError, match="already has the prediction columns"):
        sparkscore.score(frame.withColumn(name, sf.lit(1)), third, workspace=workspace)


def test_columns_that_a_join_left_twice_do_no_harm(
    frame: DataFrame, third: str, workspace: Workspace
) -> None:
    other = frame.sparkSession.createDataFrame([(1,), (3,)], "id INT")
    joined = frame.join(other, frame["id"] == other["id"])
    scores = sparkscore.score(joined, third, workspace=workspace)
    assert scores.columns == ["id", "x", "id", "prediction"]
    assert sorted(tuple(row) for row in scores.collect()) == [(1, 3.0, 1, 1.0), (3, -6.0, 3, -2.0)]


def test_columns_of_another_name_are_mapped(
    frame: DataFrame, third: str, workspace: Workspace
) -> None:
    renamed = frame.where("x > 0").select("id", sf.col("x").alias("the `odd` x.1"))
    scores = sparkscore.score(renamed, third, columns={"x": "the `odd` x.1"}, workspace=workspace)
    assert [row["prediction"] for row in scores.collect()] == [1.0]


def test_frame_that_does_not_fit_is_refused_before_any_job(
    frame: DataFrame, seen: str, workspace: Workspace
) -> None:
    with pytest.raises(SignatureMismatchError, match="w: no column"):
        sparkscore.score(frame, seen, workspace=workspace)


def test_unnamed_type_at_run_time_is_refused(
    spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    udf = sparkscore.spark_udf(spark, third, workspace=workspace)
    with pytest.raises(Exception, match=r"SignatureMismatchError: .*'x' is double"):
        frame.select(udf(sf.col("id").cast("string"))).collect()


def test_view_is_scored(
    spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace
) -> None:
    frame.where("x > 0").createOrReplaceTempView("some_rows")
    try:
        scores = sparkscore.score(spark.table("some_rows"), third, workspace=workspace)
        scores.createOrReplaceTempView("some_scores")
        assert spark.sql("SELECT prediction FROM some_scores").collect() == [(1.0,)]
    finally:
        spark.catalog.dropTempView("some_rows")
        spark.catalog.dropTempView("some_scores")


def test_stream_is_scored(
    spark: SparkSession, frame: DataFrame, third: str, workspace: Workspace, tmp_path: Path
) -> None:
    frame.where("x IS NOT NULL").write.parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema(frame.schema).parquet(str(tmp_path / "in"))
    scores = sparkscore.score(stream, third, workspace=workspace)
    query = (
        scores.writeStream.format("delta")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start(str(tmp_path / "out"))
    )
    assert query.awaitTermination(240)
    out = spark.read.format("delta").load(str(tmp_path / "out"))
    assert sorted(row["prediction"] for row in out.collect()) == [-2.0, 1.0]


def test_pandas_engine_answers_the_same(
    frame: DataFrame, thirds: str, workspace: Workspace
) -> None:
    rows = frame.where("x IS NOT NULL")
    arrow = sparkscore.score(rows, thirds, workspace=workspace).collect()
    assert sparkscore.score(rows, thirds, engine="pandas", workspace=workspace).collect() == arrow


def test_pandas_engine_is_refused_where_it_would_change_longs(
    spark: SparkSession, longs: DataFrame, third: str, seen: str, workspace: Workspace
) -> None:
    with pytest.raises(UsageError, match=EXACT_INTEGERS_KEY):
        sparkscore.score(longs, seen, engine="pandas", workspace=workspace)
    with pytest.raises(UsageError, match=EXACT_INTEGERS_KEY):
        sparkscore.spark_udf(spark, seen, engine="pandas", workspace=workspace)
    with pytest.raises(UsageError, match=EXACT_INTEGERS_KEY):
        sparkscore.spark_udf(spark, third, engine="pandas", workspace=workspace)


def test_pandas_engine_keeps_longs_where_the_session_says_so(
    spark: SparkSession, longs: DataFrame, third: str, seen: str, workspace: Workspace
) -> None:
    spark.conf.set(EXACT_INTEGERS_KEY, "true")
    try:
        scores = sparkscore.score(longs, seen, engine="pandas", workspace=workspace)
        assert [row["prediction"] for row in scores.collect()] == SEEN
        udf = sparkscore.spark_udf(spark, seen, engine="pandas", workspace=workspace)
        assert [row[0] for row in longs.select(udf("n", "w")).collect()] == SEEN
        doubles = sparkscore.spark_udf(spark, third, engine="pandas", workspace=workspace)
        with pytest.raises(Exception, match=r"InvalidRowsError: .*which no double equals"):
            longs.select(doubles("n")).collect()
    finally:
        spark.conf.unset(EXACT_INTEGERS_KEY)


class Packed:
    """Bytes that are no package, on their way to the nodes."""

    def open(self) -> BinaryIO:
        return BytesIO(b"no package")


@pytest.mark.parametrize("engine", ["arrow", "pandas"])
def test_package_that_was_damaged_on_its_way_is_named_as_such(
    engine: str, frame: DataFrame, tmp_path: Path
) -> None:
    model = packaged(Third(), tmp_path / "model", inputs=X)
    bindings, _ = compare(model, described(frame), {})
    task = ScoringTask(
        digest="0" * 64,
        packed=Packed(),
        trust=TRUST,
        batch=BatchTask(model.label, bindings, model.predictions),
        limits=BatchLimits(),
    )
    column = answer_column(task, source_columns(bindings), engine)
    with pytest.raises(Exception, match="PackageDigestError") as caught:
        frame.select(column).collect()
    error = translated(caught.value, "scoring")
    assert type(error) is PackageDigestError
    assert str(error).startswith("the package that reached this node does not have the pinned di")
    assert str(error).endswith("check the node's disk if it happens twice")


def test_error_of_the_model_is_found_in_what_spark_raises(
    frame: DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    folder = packaged(Refusing(), tmp_path / "model", inputs=X).folder
    scores = sparkscore.score(frame, str(folder), workspace=workspace)
    with pytest.raises(Exception, match="PredictionError") as caught:
        scores.collect()
    error = translated(caught.value, "scoring")
    assert type(error) is PredictionError
    assert str(error).endswith("'Permission denied: no scores\\ntoday'")


def test_chosen_function_fills_a_column_of_its_name(
    spark: SparkSession, frame: DataFrame, workspace: Workspace, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"x": [3.0, 1.0, -6.0, -2.0]})
    model = LogisticRegression().fit(rows, [1, 1, 0, 0])
    uri = str(sparkscore.save_model(model, tmp_path / "model", input_example=rows).folder)
    known = frame.where("x IS NOT NULL")
    expected = model.predict_proba(rows.iloc[[0, 2]]).tolist()
    scored = sparkscore.score(known, uri, predict="predict_proba", workspace=workspace)
    assert [row.predict_proba for row in scored.orderBy("id").collect()] == expected
    udf = sparkscore.spark_udf(spark, uri, predict="predict_proba", workspace=workspace)
    column = known.orderBy("id").select(udf("x").alias("p")).collect()
    assert [row.p for row in column] == expected
    loaded = sparkscore.load_model(uri, predict="predict_proba", workspace=workspace)
    assert loaded.predict({"x": [3.0, -6.0]}) == {"predict_proba": expected}
    # The same model by its own function, in workers that keep the other one.
    labels = sparkscore.score(known, uri, workspace=workspace).orderBy("id").collect()
    assert [row.prediction for row in labels] == [1, 0]
