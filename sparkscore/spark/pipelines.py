"""Spark ML pipelines: loaded by Spark, and applied by it to whole DataFrames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyspark
from pyspark.ml import PipelineModel
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import DataType

from sparkscore.errors import (
    EngineUnfitError,
    PackageFormatError,
    PredictionError,
    SignatureMismatchError,
    listed,
)
from sparkscore.flavors.registered import SPARK
from sparkscore.package.layout import open_package, resolve_inside
from sparkscore.scoring.casts import Cast
from sparkscore.scoring.rejects import REASON_COLUMNS, RejectCode
from sparkscore.spark.failures import INVALID_ROW_SIGN, SPARK_FAILURES, first_line
from sparkscore.spark.shipping import is_connect
from sparkscore.spark.source import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from sparkscore.scoring.comparison import Binding
    from sparkscore.scoring.facts import ModelFacts

KEPT = "__sparkscore_kept"
_DEFAULT = "prediction"
"""What Spark's own models call their answer."""
_WIDER = {("int", "bigint"), ("int", "double"), ("float", "double")}


def pipeline_folder(model: ModelFacts) -> Path:
    """Where a model's package holds what Spark saved.

    Raises:
        PackageFormatError: It does not.
    """
    package = open_package(model.folder)
    conf = package.description.flavors[SPARK]
    where = f"MLmodel flavors.{SPARK}.model_data"
    return resolve_inside(package.folder, conf.get("model_data"), where)


def load_pipeline(spark: SparkSession, folder: Path) -> PipelineModel:
    """The pipeline that Spark saved in `folder`, whose classes were admitted before.

    Raises:
        EngineUnfitError: The session is a Connect one.
        PackageFormatError: Spark does not read it.
    """
    if is_connect(spark):
        raise EngineUnfitError(
            "a Connect server reads pipelines of Spark ML from its own disks",
            "spark",
            "set spark.remote to nothing and spark.master to the cluster",
        )
    try:
        return PipelineModel.load(as_spark_path(folder))
    except ConnectionError:  # Of the JVM, which says nothing of the files.
        raise
    except Exception as exc:  # Spark makes objects of what the files name: anything may be raised
        raise PackageFormatError(
            f"{folder} is no pipeline that Spark {pyspark.__version__} reads: {first_line(exc)}. "
            "On a cluster, cache.folder must be one that driver and executors share"
        ) from exc


def as_spark_path(folder: Path) -> str:
    """A folder of this machine as Hadoop takes it, which knows no escaped characters."""
    return f"file://{folder.absolute()}"


def answered(
    frame: DataFrame,
    pipeline: PipelineModel,
    inputs: Iterable[tuple[str, Column]],
    kept: Column,
    declared: pa.Schema,
) -> DataFrame:
    """`kept` as the column KEPT, and beside it the declared predictions as p0, p1, ...

    Args:
        frame: The rows.
        pipeline: Sees its own inputs and nothing else, so that no name is taken before.
        inputs: Names of the model's inputs, and the columns of `frame` that fill them; lists of
            doubles become the vectors that Spark's stages take.
        kept: What else of a row is asked for.
        declared: The prediction columns.

    Raises:
        SignatureMismatchError: The pipeline does not take the inputs.
        PredictionError: It does not answer what is declared.
    """
    given = frame.select(kept.alias(KEPT), *(column.alias(name) for name, column in inputs))
    vectors = {
        field.name: array_to_vector(sf.col(quoted(field.name)))
        for field in given.schema
        if field.dataType.simpleString() == "array<double>"
    }
    given = given.withColumns(vectors) if vectors else given
    try:
        scored = pipeline.transform(given)
    except SPARK_FAILURES as exc:
        raise SignatureMismatchError(
            f"the pipeline does not take what the model's signature declares: {first_line(exc)}"
        ) from exc
    if KEPT not in scored.columns:
        raise PredictionError(
            "a stage of the pipeline drops columns that it does not know, so that its answers "
            "belong to no row; let its SQL select * as well"
        )
    fields = [
        _prediction(scored.schema, field, is_only=len(declared) == 1).alias(f"p{i}")
        for i, field in enumerate(declared)
    ]
    return scored.select(KEPT, *fields)


def bound_columns(
    bindings: Sequence[Binding],
) -> tuple[list[tuple[str, Column]], list[tuple[Binding, Column]]]:
    """The model's inputs as columns of a source, and for some of them which rows they fit.

    Raises:
        SignatureMismatchError: A value would have to be checked in a way that SQL does not.
    """
    inputs: list[tuple[str, Column]] = []
    checks: list[tuple[Binding, Column]] = []
    for binding in bindings:
        if binding.source is None:
            inputs.append((binding.model_column, sf.lit(None).cast(_spark_type(binding.type))))
            continue
        given = sf.col(quoted(binding.source.name))
        if binding.guards:
            checks.append((binding, given.isNull()))
            continue
        column = _cast(given, binding)
        inputs.append((binding.model_column, column))
        if binding.cast is Cast.CHECKED:
            checks.append((binding, _is_equal(given, column, binding)))
        if binding.needs_value:
            checks.append((binding, given.isNotNull()))
    return inputs, checks


def checked(
    frame: DataFrame, checks: Sequence[tuple[Binding, Column]], model: ModelFacts
) -> DataFrame:
    """`frame`, of which the first row that does not pass a check of `bound_columns` ends the job.

    Args:
        frame: The rows.
        checks: One after the other.
        model: For the message.
    """
    for binding, fits in checks:
        assert binding.source is not None
        text = (
            f"{INVALID_ROW_SIGN} {binding.source.name!r} holds null or a value that model "
            f"{model.label} cannot be given as {binding.type} for {binding.model_column!r}; fill "
            "or filter such rows (--where), or set them aside (--on-invalid quarantine)"
        )
        # As a filter: an input that no stage reads would not be computed.
        frame = frame.where(sf.when(fits, sf.lit(True)).otherwise(sf.raise_error(text)))
    return frame


def reason_columns(checks: Sequence[tuple[Binding, Column]]) -> dict[str, Column]:
    """Why a row does not pass the checks of `bound_columns`, by its first one; null: it does."""
    codes, columns, messages = sf.lit(None), sf.lit(None), sf.lit(None)
    for binding, fits in reversed(checks):
        assert binding.source is not None
        given = sf.col(quoted(binding.source.name))
        code = sf.when(given.isNull(), RejectCode.NULL.value).otherwise(RejectCode.UNFIT.value)
        message = sf.when(given.isNull(), "is null, but the model's column is required").otherwise(
            sf.concat(
                sf.lit("is "), given.cast("string"), sf.lit(f", which no {binding.type} equals")
            )
        )
        column: str | None = binding.source.name
        if binding.guards:
            code, message, column = sf.lit(RejectCode.MALFORMED.value), given, None
        fails = ~fits
        codes = sf.when(fails, code).otherwise(codes)
        columns = sf.when(fails, sf.lit(column)).otherwise(columns)
        messages = sf.when(fails, message).otherwise(messages)
    found = zip(REASON_COLUMNS.names, (codes, columns, messages), strict=True)
    return {name: column.cast("string") for name, column in found}


def _cast(given: Column, binding: Binding) -> Column:
    if binding.spread or binding.cast is None:
        raise SignatureMismatchError(
            f"Spark itself applies this model, and fills {binding.model_column!r} from a column of "
            "a known type alone; cast it in a view"
        )
    return given if binding.cast is Cast.EXACT else given.try_cast(_spark_type(binding.type))


def _is_equal(given: Column, column: Column, binding: Binding) -> Column:
    """Whether a value came through its cast; null did."""
    assert binding.source is not None
    source = binding.source.type
    if source is None or not (
        pa.types.is_integer(source) or pa.types.is_floating(source) or pa.types.is_decimal(source)
    ):
        raise SignatureMismatchError(
            f"column {binding.source.name!r} is {binding.source.type_name}, whose values for "
            f"{binding.model_column!r} ({binding.type}) would have to be checked one by one, which "
            "is not done where Spark itself applies the model; cast it in a view"
        )
    fits = column.try_cast(_spark_type(source)) == given
    kinds = (source, binding.type)
    for side, kind, other in zip((given, column), kinds, reversed(kinds), strict=True):
        if pa.types.is_floating(kind) and pa.types.is_integer(other):
            # Spark makes the largest long of 2**63, and of that the double 2**63 again.
            fits = fits & (side < sf.lit(2.0**63))
    return given.isNull() | sf.coalesce(fits, sf.lit(False))


def _prediction(schema: StructType, field: pa.Field, *, is_only: bool) -> Column:
    name = field.name
    if name not in schema.names and is_only and _DEFAULT in schema.names:
        name = _DEFAULT
    if name not in schema.names:
        have = [known for known in schema.names if known != KEPT]
        raise PredictionError(
            f"the pipeline answers no column {field.name!r}, which its signature declares; its "
            f"columns are {listed(have)}"
        )
    column = sf.col(quoted(name))
    kind = schema[name].dataType.simpleString()
    if kind == "vector":
        column, kind = vector_to_array(column), "array<double>"
    wanted = _spark_type(field.type).simpleString()
    if kind != wanted and (kind, wanted) not in _WIDER:
        raise PredictionError(
            f"the model's signature declares column {field.name!r} as {wanted}, but the pipeline "
            f"answers {kind}"
        )
    return column.cast(wanted)


def _spark_type(kind: pa.DataType) -> DataType:
    return from_arrow_type(kind)
