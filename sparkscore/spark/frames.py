"""A model applied to the caller's own DataFrames and columns; lazy, nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as sf

from sparkscore.errors import SignatureMismatchError, UsageError, listed
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.package import open_package
from sparkscore.package.params import given_params
from sparkscore.package.signing import with_signatures
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.batch import BatchLimits, BatchTask
from sparkscore.scoring.comparison import (
    Binding,
    fitted,
    rows_binding,
)
from sparkscore.scoring.facts import ModelFacts, SourceColumn, input_columns
from sparkscore.scoring.rejects import InvalidRows
from sparkscore.spark.columns import EXACT_INTEGERS_KEY, answer_column, source_columns
from sparkscore.spark.node_cache import NodeLimits
from sparkscore.spark.preloading import ask_for_preload
from sparkscore.spark.shipping import is_connect, ship
from sparkscore.spark.source import described, quoted
from sparkscore.spark.worker import ScoringTask

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_ANSWER = "__sparkscore_answer"


def with_predictions(
    frame: DataFrame,
    model: ModelFacts,
    *,
    columns: Mapping[str, str],
    params: Mapping[str, object],
    engine: str,
    trust: TrustPolicy,
    limits: BatchLimits,
    tree_runtime: TreeRuntime,
    node_limits: NodeLimits,
) -> DataFrame:
    """`frame` with the model's prediction columns after its own; lazy.

    Args:
        frame: Any DataFrame, view or stream that has the model's columns.
        model: The pinned model.
        columns: Model column -> source column, where the names differ.
        params: What the model is given beside rows, in the place of its defaults.
        engine: `arrow` or `pandas`.
        trust: What loading the model may run on the nodes.
        limits: Bounds of one batch.
        tree_runtime: Whether compiled trees may score in the place of the model's library.
        node_limits: What workers and nodes may keep for later tasks.

    Raises:
        SignatureMismatchError: The frame's columns do not fit, or a prediction column's name is
            taken.
        ConfigError: A param is not one that the model declares.
        UsageError: The pandas engine could change large nullable integers in this session.
    """
    source = described(frame)
    bindings, _ = fitted(model, source, columns)
    if engine == "pandas":
        read = [binding.source for binding in bindings if binding.source is not None]
        longs = [column.name for column in read if column.type == pa.int64()]
        _check_exact_integers(frame.sparkSession, model, longs)
    predictions = model.predictions
    present = {column.name.casefold() for column in source.columns}
    taken = [name for name in predictions.names if name.casefold() in present]
    if taken:
        raise SignatureMismatchError(
            f"the DataFrame already has the prediction columns {listed(taken)} of model "
            f"{model.name!r}; drop or rename them before scoring"
        )
    if flavor_of(open_package(model.folder)) == SPARK:
        return _applied(frame, model, bindings, params, trust)
    batch = _batch_task(model, bindings, params)
    task = _task(frame.sparkSession, model, batch, trust, limits, tree_runtime, node_limits)
    answered = frame.withColumn(_ANSWER, answer_column(task, source_columns(bindings), engine))
    answer = sf.col(_ANSWER)
    fields = (answer[f"p{i}"].alias(name) for i, name in enumerate(predictions.names))
    # Not by name: of columns that no model reads, a join may have left two of one name.
    return answered.select("*", *fields).drop(_ANSWER)


def column_function(
    spark: SparkSession,
    model: ModelFacts,
    *,
    params: Mapping[str, object],
    engine: str,
    trust: TrustPolicy,
    limits: BatchLimits,
    tree_runtime: TreeRuntime,
    node_limits: NodeLimits,
) -> Callable[..., Column]:
    """The model as a function of columns, in the signature's order, as MLflow's `spark_udf` is.

    The function takes column names or Columns; without any it takes the model's own input names.
    Of a model that takes a matrix, a single one is a column of lists.
    One prediction column gives its scalar type, several a struct of them.

    Raises:
        ConfigError: A param is not one that the model declares.
        UsageError: The pandas engine could change large nullable integers in this session.
    """
    if flavor_of(open_package(model.folder)) == SPARK:
        raise UsageError(
            f"model {model.name!r} is a pipeline of Spark ML, which Spark applies to tables and "
            "not to columns; take sparkscore.score(frame, model)"
        )
    inputs = input_columns(model)
    predictions = model.predictions
    if engine == "pandas":
        # A double may be filled from a long too; which it is, only the workers see.
        may_be_long = (pa.int64(), pa.float64())
        longs = [name for name, column in inputs.items() if column.type in may_be_long]
        _check_exact_integers(spark, model, longs)
    # The types of columns are known to the workers only, so each batch is bound by its own.
    bindings = tuple(
        Binding(name, SourceColumn(name, None, ""), column.type, None, column.needs_value)
        for name, column in inputs.items()
    )
    batch = _batch_task(model, bindings, params)
    task = _task(spark, model, batch, trust, limits, tree_runtime, node_limits)
    first, wanted = next(iter(inputs.items()), ("", None))
    by_rows = task
    if wanted is not None and wanted.n_columns > 1:
        rows = rows_binding(first, SourceColumn(first, None, ""), wanted)
        by_rows = replace(task, batch=replace(batch, bindings=(rows,)))

    def score(*columns: str | Column) -> Column:
        """Predictions for the given columns, lazily."""
        if len(columns) == 1 and by_rows is not task:
            answer = answer_column(by_rows, _named(columns, (first,), model), engine)
        else:
            answer = answer_column(task, _named(columns, tuple(inputs), model), engine)
        if len(predictions) == 1:
            return answer["p0"]
        fields = (answer[f"p{i}"].alias(name) for i, name in enumerate(predictions.names))
        return sf.struct(*fields)

    return score


def _applied(
    frame: DataFrame,
    model: ModelFacts,
    bindings: tuple[Binding, ...],
    params: Mapping[str, object],
    trust: TrustPolicy,
) -> DataFrame:
    """What Spark itself makes of a frame by a pipeline of its own; see `with_predictions`."""
    # Spark ML is not imported for models of other kinds.
    from sparkscore.spark.pipeline_files import read_stages
    from sparkscore.spark.pipelines import (
        KEPT,
        answered,
        bound_columns,
        checked,
        load_pipeline,
        pipeline_folder,
    )

    if given_params(model.signature.params, params):
        raise SignatureMismatchError(
            f"params {listed(params)} are given, but models of this flavor take none"
        )
    folder = pipeline_folder(model)
    read_stages(folder, trust)
    pipeline = load_pipeline(frame.sparkSession, folder)
    inputs, checks = bound_columns(bindings)
    rows = checked(frame, checks, model)
    scored = answered(rows, pipeline, inputs, sf.struct("*"), model.predictions)
    fields = (sf.col(f"p{i}").alias(name) for i, name in enumerate(model.predictions.names))
    return scored.select(f"{KEPT}.*", *fields)


def _named(
    columns: tuple[str | Column, ...], names: tuple[str, ...], model: ModelFacts
) -> list[tuple[str, Column]]:
    """The given columns under the model's names: one each, a single struct of them, or none."""
    given = [sf.col(column) if isinstance(column, str) else column for column in columns]
    if not given:
        given = [sf.col(quoted(name)) for name in names]
    elif len(given) == 1 and len(names) > 1:
        given = [given[0].getField(name) for name in names]
    if len(given) != len(names):
        raise SignatureMismatchError(
            f"model {model.name!r} takes the {len(names)} columns {listed(names)}, "
            f"but {len(given)} were given"
        )
    return list(zip(names, given, strict=True))


def _check_exact_integers(spark: SparkSession, model: ModelFacts, names: Sequence[str]) -> None:
    """Refuse the pandas engine where `names`, which may be filled from longs, would lose digits."""
    if names and spark.conf.get(EXACT_INTEGERS_KEY, "false") != "true":
        raise UsageError(
            f"model {model.name!r} has the columns {listed(names)}, and longs beside nulls would "
            "reach pandas as floats, which changes large ones; take engine='arrow', or set "
            f"{EXACT_INTEGERS_KEY}=true in this session"
        )


def _batch_task(
    model: ModelFacts, bindings: tuple[Binding, ...], params: Mapping[str, object]
) -> BatchTask:
    typed = given_params(model.signature.params, params)
    return BatchTask(model.label, bindings, model.predictions, InvalidRows.FAIL, typed)


def _task(
    spark: SparkSession,
    model: ModelFacts,
    batch: BatchTask,
    trust: TrustPolicy,
    limits: BatchLimits,
    tree_runtime: TreeRuntime,
    node_limits: NodeLimits,
) -> ScoringTask:
    task = ScoringTask(
        digest=model.digest,
        packed=ship(spark, model.folder, model.digest),
        trust=with_signatures(trust, model.folder),
        batch=batch,
        limits=limits,
        tree_runtime=tree_runtime,
        node_limits=node_limits,
        predict=model.predict,
    )
    if not is_connect(spark):
        ask_for_preload(spark, task)
    return task
