"""A small feed through Spark's Python Data Source API, as a user may write one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

if TYPE_CHECKING:
    from pyspark.sql.types import StructType


class CountingFeed(DataSource):
    """Counts to the option `rows`; the same offsets give the same rows, to whoever asks."""

    def schema(self) -> str:
        """See DataSource."""
        return "id BIGINT, x DOUBLE"

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: ARG002, N802
        """See DataSource."""
        return CountingReader(int(self.options["rows"]))


class CountingReader(DataSourceStreamReader):
    """An offset is how many rows came before."""

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's
        """See DataSourceStreamReader."""
        return {"row": 0}

    def latestOffset(self, start: dict[str, int], limit: object) -> dict[str, int]:  # noqa: ARG002, N802
        """See DataSourceStreamReader."""
        return {"row": self._n_rows}

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[InputPartition]:
        """See DataSourceStreamReader."""
        return [InputPartition((start["row"], end["row"]))]

    def read(self, partition: InputPartition) -> Iterator[tuple[int, float]]:
        """See DataSourceStreamReader."""
        for row in range(*partition.value):
            yield row, row / 8
