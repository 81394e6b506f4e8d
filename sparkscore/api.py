"""The two calls for notebooks: a DataFrame with predictions, and a model as a column function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sparkscore.errors import UsageError
from sparkscore.spark.frames import column_function, with_predictions
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


def score(
    frame: DataFrame,
    model: str,
    *,
    columns: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    predict: str | None = None,
    engine: str = "arrow",
    workspace: Workspace | None = None,
) -> DataFrame:
    """`frame` with the model's prediction columns after its own columns; lazy.

    Nothing is written or recorded; `sparkscore score batch` does that.

    Args:
        frame: A DataFrame, view or stream of any Spark session, Connect included.
        model: A model URI, such as `models:/flight-delay@champion`; an alias is resolved now.
        columns: Model column -> the frame's column, where the names differ.
        params: What the model's predict is given beside rows, as its signature declares it.
        predict: The function to ask, such as `predict_proba`; None: the packaged one.
        engine: `arrow`, or `pandas` to go through Spark's pandas UDF.
        workspace: Where the registry is; None opens the one that settings name.

    Returns:
        The rows of `frame` in its own order and partitioning; not sorted, not cached.

    Raises:
        ModelError: The model is not there, cannot be trusted, or does not fit the columns.
        ConfigError: The settings do not hold together, or a param is not one that the model has.

    Example:
        >>> scores = sparkscore.score(flights, "models:/flight-delay@champion")
    """
    opened = workspace or Workspace.open()
    return with_predictions(
        frame,
        opened.model(model, predict),
        columns=columns or {},
        params=params or {},
        engine=engine,
        trust=opened.trust,
        limits=opened.batch_limits,
        tree_runtime=opened.tree_runtime,
        node_limits=opened.node_limits,
    )


def spark_udf(
    spark: SparkSession,
    model: str,
    result_type: str | None = None,
    *,
    params: Mapping[str, object] | None = None,
    predict: str | None = None,
    engine: str = "arrow",
    workspace: Workspace | None = None,
) -> Callable[..., Column]:
    """The model as a function of columns, to be called like MLflow's `spark_udf`.

    Args:
        spark: The session that the columns belong to; classic or Connect.
        model: A model URI; an alias is resolved now.
        result_type: Spark SQL type to cast the prediction to; None keeps the signature's type.
        params: What the model's predict is given beside rows, as its signature declares it.
        predict: The function to ask, such as `predict_proba`; None: the packaged one.
        engine: `arrow` or `pandas`.
        workspace: Where the registry is; None opens the one that settings name.

    Returns:
        A function of columns in the signature's order (names or Columns), of one struct with its
        names, or of nothing, which takes the columns named as in the signature. One prediction
        column gives a scalar, several give a struct.

    Raises:
        ModelError: The model is not there, cannot be trusted or has no named columns.
        ConfigError: The settings do not hold together, or a param is not one that the model has.
        UsageError: `result_type` for a model with several prediction columns, or the pandas
            engine where it would change values.

    Example:
        >>> udf = sparkscore.spark_udf(spark, "models:/flight-delay@champion")
        >>> flights.withColumn("delay", udf("distance", "dep_delay"))
    """
    opened = workspace or Workspace.open()
    facts = opened.model(model, predict)
    asked = column_function(
        spark,
        facts,
        params=params or {},
        engine=engine,
        trust=opened.trust,
        limits=opened.batch_limits,
        tree_runtime=opened.tree_runtime,
        node_limits=opened.node_limits,
    )
    if result_type is None:
        return asked
    if len(facts.predictions) != 1:
        raise UsageError(
            f"result_type {result_type!r} needs a model with one prediction column, but "
            f"{facts.label} has {facts.predictions.names}; take the fields of the struct instead"
        )
    return lambda *columns: asked(*columns).cast(result_type)
