"""Spark's tasks that score a DataFrame into files: all of them, or those that are left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkscore.errors import InternalError
from sparkscore.spark.delta import session_conf
from sparkscore.spark.frame_files import READ, CrossingColumns, score_mapper
from sparkscore.spark.resuming import Resumption, chunk_id
from sparkscore.spark.scan_cut import cut_conf, observed, rows_of, scan_pieces
from sparkscore.spark.score_files import ScoreFilesJob, TaskResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RESULT = "result string"


@dataclass(frozen=True)
class FrameScoring:
    """A frame's rows on their way into files of the score table.

    Attributes:
        results: What each task tells; computing it scores and writes.
        left: Partitions of it that are still to be scored; None: it is computed as a whole.
    """

    results: DataFrame
    left: tuple[int, ...] | None

    def run(self) -> list[TaskResult]:
        """Score, and say what the tasks have done."""
        if self.left is None:
            rows = self.results.collect()
        else:
            rows = rows_of(self.results, self.left) if self.left else []
        return [TaskResult.from_json(row["result"]) for row in rows]

    def n_read(self) -> int:
        """Rows that Spark has handed over, once it has run."""
        return 0 if self.left == () else observed(self.results, READ)


def frame_chunks(rows: DataFrame, chunk_bytes: int) -> list[str]:
    """A plain scan, cut into chunks of about so many bytes, each of which is one task."""
    with session_conf(rows.sparkSession, cut_conf(chunk_bytes)):
        # A frame keeps the plan that was once made of it.
        return [chunk_id(pieces) for pieces in scan_pieces(rows.select("*"))]


@contextmanager
def frame_scoring(
    rows: DataFrame, crossing: CrossingColumns, job: ScoreFilesJob, resumed: Resumption | None
) -> Iterator[FrameScoring]:
    """What scores the rows of `crossing_rows` into files; nothing is computed yet.

    Args:
        rows: All rows of the run.
        crossing: What their columns are.
        job: What all tasks share.
        resumed: Which chunks are done, and where tasks say so; None: nothing is kept.

    Raises:
        InternalError: Spark would cut the rows otherwise than into the chunks that are known.
    """
    if resumed is None:
        yield FrameScoring(rows.mapInArrow(score_mapper(crossing, job), _RESULT), None)
        return
    with session_conf(rows.sparkSession, cut_conf(resumed.chunk_bytes)):
        mapper = score_mapper(crossing, job, resumed.ledger, resumed.cut)
        results = rows.mapInArrow(mapper, _RESULT)
        if [chunk_id(pieces) for pieces in scan_pieces(results)] != list(resumed.cut):
            raise InternalError("Spark has cut the source twice, and not the same way")
        yield FrameScoring(results, tuple(resumed.left))
