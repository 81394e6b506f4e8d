"""A frame's rows as a whole: their number, and how columns are spread, in one pass.

Python workers import this: no Spark but for types, nothing of stores or settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as sf

from sparkscore.scoring.checks import Profile, merged
from sparkscore.scoring.sketch import ColumnSketch
from sparkscore.spark.frame_files import ArrowMapper
from sparkscore.spark.source import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def profile_of(frame: DataFrame, names: Sequence[str]) -> Profile:
    """The profile of a frame's rows.

    Args:
        frame: Kept where computing it twice would be dear.
        names: Columns whose values are looked at.
    """
    # By number, since names may hold anything; and one more, so that a batch has rows.
    columns = [sf.col(quoted(name)).alias(f"c{i}") for i, name in enumerate(names)]
    rows = frame.select(*columns, sf.lit(True).alias("_"))
    n_rows, parts = 0, []
    for row in rows.mapInArrow(_sketched(len(names)), "facts string").collect():
        facts = json.loads(row["facts"])
        n_rows += facts["rows"]
        sketches = map(ColumnSketch.from_facts, facts["columns"])
        parts.append(dict(zip(names, sketches, strict=True)))
    return Profile(n_rows, merged(parts))


def _sketched(n_columns: int) -> ArrowMapper:
    def sketch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        n_rows, sketches = 0, [ColumnSketch() for _ in range(n_columns)]
        for batch in batches:
            n_rows += batch.num_rows
            for column, sketch in zip(batch.columns, sketches, strict=False):
                sketch.add(column)
        facts = {"rows": n_rows, "columns": [sketch.to_facts() for sketch in sketches]}
        yield pa.RecordBatch.from_pydict({"facts": [json.dumps(facts)]})

    return sketch
