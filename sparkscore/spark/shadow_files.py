"""Scores of a model in the shadow, written by one task as files of a table of their own.

Imported by Python workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa

from sparkscore.errors import SparkscoreError
from sparkscore.files.writing import FileLayout, ScoreWriter, WrittenFile


class ShadowFiles:
    """What a task writes for the shadow; nothing of it harms the scores.

    Args:
        layout: How the files are written; None: there is no shadow.
        name: What all names of its files begin with.

    Attributes:
        failure: Why there are no files; None: nothing failed.
    """

    def __init__(self, layout: FileLayout | None, name: str) -> None:
        self.failure: str | None = None
        self._layout = layout
        self._name = name
        self._writer: ScoreWriter | None = None

    def add(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows; after a failure none are."""
        if self._layout is None or self.failure is not None:
            return
        try:
            if self._writer is None:
                self._writer = ScoreWriter(self._layout, self._name)
            for batch in batches:
                self._writer.write(batch)
        except (SparkscoreError, OSError, pa.ArrowException) as exc:
            self._give_up(exc)

    def finish(self) -> list[WrittenFile]:
        """Close the files, and name them; none where something failed."""
        if self._writer is None or self.failure is not None:
            return []
        try:
            return self._writer.finish()
        except (SparkscoreError, OSError, pa.ArrowException) as exc:
            self._give_up(exc)
            return []

    def abort(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            with suppress(OSError):  # What is left is in no commit; `score clean` finds it.
                self._writer.abort()

    def _give_up(self, exc: Exception) -> None:
        self.failure = str(exc)
        self.abort()
