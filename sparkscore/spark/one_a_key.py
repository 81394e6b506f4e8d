"""One row of each key, by a column's order, before a model sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import Observation, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import MapType, VariantType

from sparkscore.errors import SourceError, listed, nearest
from sparkscore.scoring.duplicates import Duplicates, KeyRule
from sparkscore.spark.source import OpenedSource, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_PLACE = "__sparkscore_place"


def one_a_key(opened: OpenedSource, rule: KeyRule) -> OpenedSource:
    """A source cut down to one row of each key, lazily; those left out are counted on the way.

    Of rows that share key and order, a digest of the whole row decides, so that a task which is
    tried again takes the same one. A row without order never outdoes one that has it.

    Raises:
        SourceError: A key, or the column that orders, is not one of the source's.
    """
    frame = opened.frame
    for name in (*rule.keys, rule.order_by):
        if name not in frame.columns:
            raise SourceError(
                f"column {name!r} is not in {opened.table.uri!r}{nearest(name, frame.columns)}; "
                f"its columns are {listed(frame.columns)}"
            )
    order = sf.col(quoted(rule.order_by))
    is_first = rule.rule is Duplicates.FIRST
    best = order.asc_nulls_last() if is_first else order.desc_nulls_last()
    keys = [sf.col(quoted(name)) for name in rule.keys]
    place = sf.row_number().over(Window.partitionBy(*keys).orderBy(best, row_digest(frame)))
    given = Observation()
    counted = frame.observe(given, sf.count(sf.lit(1)).alias("n_rows"))
    placed = counted.withColumn(_PLACE, place)
    return replace(opened, frame=placed.where(sf.col(_PLACE) == 1).drop(_PLACE), given=given)


def row_digest(frame: DataFrame) -> Column:
    """A number that tells rows apart, but for columns that Spark does not hash."""
    hashed = [f.name for f in frame.schema if not isinstance(f.dataType, MapType | VariantType)]
    return sf.xxhash64(*[sf.col(quoted(name)) for name in hashed])
