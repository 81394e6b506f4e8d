"""Spark's tasks that score a DataFrame into files: all of them, or those that are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from sparkscore.errors import InternalError
from sparkscore.spark.delta import session_conf
from sparkscore.spark.frame_files import (
    ArrowMapper,
    CrossingColumns,
    crossing_expressions,
    score_mapper,
)
from sparkscore.spark.resuming import Resumption, chunk_id
from sparkscore.spark.scan_cut import cut_conf, observed, rows_of, scan_bytes, scan_pieces
from sparkscore.spark.score_files import ScoreFilesJob, TaskResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_READ = "sparkscore_read"
"""By which rows are counted on their way to Python."""


@dataclass
class FrameScoring:
    """A frame's rows on their way into files of the score table.

    Attributes:
        frame: All rows of the run.
        crossing: Which of their columns cross.
        job: What all tasks share.
        conf: Settings of the session that the job needs.
        n_read: Rows that Spark has handed over.
    """

    frame: DataFrame
    crossing: CrossingColumns
    job: ScoreFilesJob
    conf: Mapping[str, str]
    n_read: int = 0
    _uncut: DataFrame | None = None

    def n_bytes(self) -> int | None:
        """Bytes of the files that are read; None where the cut may not be the same twice."""
        with session_conf(self._spark, self.conf):
            self._uncut = self._rows()
            return scan_bytes(self._uncut)

    def chunks(self, chunk_bytes: int) -> list[str]:
        """A plain scan, cut into chunks of about so many bytes, each of which is one task."""
        # A plan is cut when it is first asked for, and another plan of a large table takes long.
        frame, self._uncut = self._uncut, None
        with session_conf(self._spark, {**self.conf, **cut_conf(chunk_bytes)}):
            return _chunks(self._rows() if frame is None else frame)

    def run(self, resumed: Resumption | None) -> list[TaskResult]:
        """Score what is left, and say what the tasks have done.

        Args:
            resumed: Which chunks are done, and where tasks say so; None: nothing is kept.

        Raises:
            InternalError: Spark would cut the rows otherwise than into the chunks that are known.
        """
        if resumed is None:
            return self._run()
        if not resumed.left:
            return []
        with session_conf(self._spark, cut_conf(resumed.chunk_bytes)):
            return self._run(resumed)

    def _run(self, resumed: Resumption | None = None) -> list[TaskResult]:
        with session_conf(self._spark, self.conf):
            if resumed is None:
                results = self._results(score_mapper(self.crossing, self.job))
                rows = results.collect()
            else:
                mapper = score_mapper(self.crossing, self.job, resumed.ledger, resumed.cut)
                results = self._results(mapper)
                if _chunks(results) != list(resumed.cut):
                    raise InternalError("Spark has cut the source twice, and not the same way")
                rows = rows_of(results, resumed.left)
            self.n_read = observed(results, _READ)
        return [TaskResult.from_json(row["result"]) for row in rows]

    def _results(self, mapper: ArrowMapper) -> DataFrame:
        return self._rows().mapInArrow(mapper, "result string")

    def _rows(self) -> DataFrame:
        """A new frame each time, since a frame keeps the cut that was once made of it."""
        counted = self.frame.observe(_READ, sf.count(sf.lit(1)).alias("n_rows"))
        return counted.selectExpr(*crossing_expressions(self.crossing))

    @property
    def _spark(self) -> SparkSession:
        return self.frame.sparkSession


def _chunks(frame: DataFrame) -> list[str]:
    return [chunk_id(pieces) for pieces in scan_pieces(frame)]
