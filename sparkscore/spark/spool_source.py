"""The segments of a spool as a source of Spark's, through its Python Data Source API.

Offsets are numbers of segments. Spark's own source of files would do for the reading, but it keeps
the name of each file that it has ever read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyspark.sql import functions as sf
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxFiles,
    SupportsTriggerAvailableNow,
)

from sparkscore.errors import SourceError, nearest, shown
from sparkscore.files.spool import SPOOL_OPTION, segment_path, segments_in
from sparkscore.scoring.engine import SourceSpec
from sparkscore.spark.messages import json_rows
from sparkscore.spark.other_formats import parsed_schema, spark_options
from sparkscore.spark.python_source import stream_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_SEGMENTS_A_TASK = 16


_PACE = "maxFilesPerTrigger"
_JSON = frozenset({"dateFormat", "timestampFormat"})


def open_spool(spark: SparkSession, spec: SourceSpec) -> DataFrame:
    """The messages of a spool as rows: the columns of their JSON, and what else is known of them.

    Raises:
        SourceError: There is no schema, or an option is unknown.
    """
    known = [SPOOL_OPTION, _PACE, *sorted(_JSON)]
    unknown = next((name for name in spec.options if name not in known), None)
    if unknown is not None:
        raise SourceError(
            f"source option {shown(unknown)} is unknown for a broker{nearest(unknown, known)}; it "
            f"takes {', '.join(known)}"
        )
    pace = spec.options.get(_PACE, "1")
    if not pace.isdecimal() or int(pace) == 0:
        raise SourceError(f"source option {_PACE} is {shown(pace)}; it takes a whole number from 1")
    if spec.schema is None or spec.format not in ("auto", "json"):
        raise SourceError(
            f"the messages of {shown(spec.uri)} are read as JSON, of which nobody knows the "
            "columns; leave --source-format out, and say --source-schema "
            "'sensor STRING, ts TIMESTAMP, x DOUBLE'"
        )
    mine = {name: value for name, value in spec.options.items() if name not in _JSON}
    json_only = {name: value for name, value in spec.options.items() if name in _JSON}
    received_at = sf.col("mqtt_received_at").cast("string")
    place = sf.format_string("topic '%s' at %s:", "mqtt_topic", received_at)
    options = spark_options("json", replace(spec, options=json_only))
    messages = stream_of(spark, SpoolSource, mine)
    return json_rows(messages, parsed_schema(spec.schema), place, options)


@dataclass
class Segments(InputPartition):
    """Segments that one task reads."""

    numbers: tuple[int, ...]

    def __init__(self, numbers: tuple[int, ...]) -> None:
        super().__init__(numbers)
        self.numbers = numbers


class SpoolSource(DataSource):
    """Reads the spool in the folder that the option `spool` names."""

    @classmethod
    def name(cls) -> str:
        """See DataSource."""
        return "sparkscore-spool"

    def schema(self) -> str:
        """See DataSource: the columns of `files.spool.SPOOLED`."""
        return "value BINARY, mqtt_topic STRING, mqtt_received_at TIMESTAMP"

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's
        """See DataSource."""
        limit = self.options.get(_PACE)
        return SpoolReader(
            Path(self.options[SPOOL_OPTION]), schema.names, None if limit is None else int(limit)
        )


class SpoolReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Reads segments, and removes those that Spark will not ask for again.

    Args:
        folder: The spool's.
        columns: In the order in which they are given.
        max_files: Segments of a batch; None: all that are there.
    """

    def __init__(self, folder: Path, columns: Sequence[str], max_files: int | None) -> None:
        self._folder = folder
        self._columns = list(columns)
        self._max_files = max_files
        self._last: int | None = None

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's
        """See DataSourceStreamReader: segments are counted from 1."""
        return {"segment": 0}

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's
        """See DataSourceStreamReader."""
        return ReadAllAvailable() if self._max_files is None else ReadMaxFiles(self._max_files)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's
        """See SupportsTriggerAvailableNow."""
        self._last = max(segments_in(self._folder), default=0)

    def latestOffset(self, start: dict[str, int], limit: ReadLimit) -> dict[str, int]:  # noqa: N802
        """See DataSourceStreamReader."""
        there = self._between(start["segment"], self._last)
        if isinstance(limit, ReadMaxFiles):
            there = there[: limit.max_files]
        return {"segment": there[-1] if there else start["segment"]}

    def reportLatestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's
        """See DataSourceStreamReader."""
        return {"segment": max(segments_in(self._folder), default=0)}

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[InputPartition]:
        """See DataSourceStreamReader."""
        there = self._between(start["segment"], end["segment"])
        starts = range(0, len(there), _SEGMENTS_A_TASK)
        return [Segments(tuple(there[i : i + _SEGMENTS_A_TASK])) for i in starts]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """See DataSourceStreamReader."""
        assert isinstance(partition, Segments)
        for number in partition.numbers:
            table = pq.read_table(segment_path(self._folder, number), columns=self._columns)
            yield from table.combine_chunks().to_batches()

    def commit(self, end: dict[str, int]) -> None:
        """See DataSourceStreamReader: what is committed is removed."""
        for number in self._between(0, end["segment"]):
            segment_path(self._folder, number).unlink(missing_ok=True)

    def _between(self, start: int, end: int | None) -> list[int]:
        """Segments after the first number, up to the second."""
        return [n for n in segments_in(self._folder) if start < n and (end is None or n <= end)]
