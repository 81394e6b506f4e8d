"""A job for `spark-submit` that loads the classes which scoring jobs load, and has no other use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.spark.jars import JarSource
from sparkscore.spark.session import SessionSettings, open_session, stop_session

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


def touch_classes(spark: SparkSession, table: str) -> None:
    """Write, read, merge and look at the Delta table `table`, with Python workers in between."""
    from pyspark.sql import Observation, functions

    def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches

    rows = spark.range(0, 8, 1, 2).withColumn("name", functions.col("id").cast("string"))
    answers = rows.mapInArrow(same, rows.schema)
    counted = answers.observe(Observation(), functions.count(functions.lit(1)).alias("n"))
    counted.write.format("delta").save(table)
    source = spark.read.format("delta").load(table).where("id > 2")
    replaced = source.write.format("delta").mode("overwrite").option("replaceWhere", "id > 2")
    replaced.save(table)
    source.createOrReplaceTempView("source")
    spark.sql(
        f"MERGE INTO delta.`{table}` t USING source s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    )
    for statement in ("DETAIL", "HISTORY"):
        spark.sql(f"DESCRIBE {statement} delta.`{table}`").collect()


def main() -> None:
    """Touch the classes; the arguments are the cache, a folder of jars or nothing, and a table."""
    cache, folder, table = sys.argv[1:]
    jars = JarSource(cache=Path(cache), folder=Path(folder) if folder else None)
    session = open_session(SessionSettings(jars))
    touch_classes(session, table)
    stop_session(session)
