"""Messages of a broker as rows: JSON values by a schema, and which messages are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf
from pyspark.sql.types import StringType, StructType

from sparkscore.errors import SourceError, listed
from sparkscore.scoring.facts import MALFORMED_COLUMN
from sparkscore.spark.failures import MALFORMED_SIGN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame

_ROW = "__sparkscore_row"
_WRONG = "__sparkscore_wrong"
_MAX_SHOWN_CHARS = 200


def json_rows(
    messages: DataFrame,
    schema: StructType,
    place: Column,
    options: Mapping[str, str],
    wrong: Column | None = None,
) -> DataFrame:
    """The values of messages as columns, beside what else is known of each message.

    A value has to be one JSON object whose members are of the schema's types; members that are
    missing are null, and others are passed over. What is wrong with another message stands in
    MALFORMED_COLUMN, which is null for all that are right, so that a plan rejects it.

    Args:
        messages: A column `value` of bytes, and columns that are kept.
        schema: The columns to make; none is called as one that is kept.
        place: Names a message, as text that begins with `topic`.
        options: Of Spark's reader of JSON.
        wrong: What else is wrong with a message, as text; null: nothing.

    Raises:
        SourceError: A column of the schema is called as one that a message has anyway.
    """
    kept = [name for name in messages.columns if name != "value"]
    taken = [name for name in schema.names if name in (*kept, MALFORMED_COLUMN)]
    if taken:
        raise SourceError(
            f"the schema of the messages names {listed(taken)}, which each message has anyway; "
            "leave that out of --source-schema, or have the producer call it otherwise"
        )
    text = sf.col("value").cast("string")
    permissive = {**options, "mode": "PERMISSIVE", "columnNameOfCorruptRecord": _WRONG}
    row = sf.from_json(text, StructType([*schema.fields]).add(_WRONG, StringType()), permissive)
    # Spark's parser stops where the object ends, whatever follows: with a zero behind the value,
    # two items are counted only where it ends as well.
    items = sf.from_json(sf.concat(sf.lit("["), text, sf.lit(",0]")), "array<string>", permissive)
    is_one = sf.coalesce(sf.size(items) == sf.lit(2), sf.lit(False))
    is_wrong = sf.col(_ROW)[_WRONG].isNotNull() | ~is_one | ~sf.is_valid_utf8(text)
    why = sf.concat(
        sf.lit(f"is no JSON object with {schema.simpleString()[7:-1]}: '"),
        sf.left(sf.make_valid_utf8(text), sf.lit(_MAX_SHOWN_CHARS)),
        sf.lit("'"),
    )
    fault = sf.when(sf.col("value").isNull(), sf.lit("has no value")).when(is_wrong, why)
    told = fault if wrong is None else sf.coalesce(wrong, fault)
    columns = [sf.col(_ROW)[name].alias(name) for name in schema.names]
    return messages.withColumn(_ROW, row).select(
        *columns,
        *(sf.col(name) for name in kept),
        sf.concat(place, sf.lit(" "), told).alias(MALFORMED_COLUMN),
    )


def stopped_at_malformed(rows: DataFrame) -> DataFrame:
    """The rows, of which the first that is malformed ends the job; nobody has to look any more.

    For rows that are put together before a plan sees them: one that has no values must not
    be counted, or left out, as if it had some.
    """
    # In two parts, so that the sign itself does not stand in Spark's pictures of its plan.
    text = sf.concat(
        sf.lit(MALFORMED_SIGN.removesuffix("topic")),
        sf.col(MALFORMED_COLUMN),
        sf.lit("; features are computed over all rows, so that it cannot be set aside: mend what "),
        sf.lit("sends it, or leave the features out"),
    )
    is_row = sf.col(MALFORMED_COLUMN).isNull()
    kept = rows.where(sf.when(is_row, sf.lit(True)).otherwise(sf.raise_error(text)))
    return kept.drop(MALFORMED_COLUMN)
