"""What a run did, in numbers that must balance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from sparkscore.errors import BooksError
from sparkscore.fused.levels import UnknownLevels, added
from sparkscore.scoring.rejects import ReasonCount, added_reasons

if TYPE_CHECKING:
    from sparkscore.scoring.sketch import ColumnSketch


class OutcomeStatus(StrEnum):
    """How a run ended, where it did not fail."""

    SUCCEEDED = "succeeded"
    ALREADY_SCORED = "skipped"


@dataclass(frozen=True)
class Commit:
    """The one commit of a run in the target's log.

    `n_rows` and `n_bytes` are what the log says was written; None where it does not say.
    `n_deleted` are rows that it took away, since their source is gone.
    """

    uri: str
    version: int
    run_id: str
    n_rows: int | None = None
    n_bytes: int | None = None
    n_deleted: int = 0


class ModelCounts(NamedTuple):
    """What became of the rows that one model of several was given.

    Attributes:
        n_rows: All of them.
        n_rejected: Those that it could not be given, or had no answer to.
        n_failed: Those of batches in which a challenger failed.
        predict_s: Seconds spent in the model.
        convert_s: Seconds spent on its columns and its answers.
        load_s: Seconds spent on loading it.
        n_loads: Times that it was loaded.
        failure: Why a challenger failed, the first time.
        n_compared: Of a shadow: rows compared with the published answer; see `scoring.shadow`.
        n_different: Those of them with another answer.
        difference: Sum of the differences of numbers.
        absolute: Sum of the sizes of these.
    """

    n_rows: int = 0
    n_rejected: int = 0
    n_failed: int = 0
    predict_s: float = 0.0
    convert_s: float = 0.0
    load_s: float = 0.0
    n_loads: int = 0
    failure: str | None = None
    n_compared: int = 0
    n_different: int = 0
    difference: float = 0.0
    absolute: float = 0.0

    @property
    def n_scored(self) -> int:
        """Rows with an answer."""
        return self.n_rows - self.n_rejected - self.n_failed

    def plus(self, other: ModelCounts) -> ModelCounts:
        """Both together."""
        return ModelCounts(
            n_rows=self.n_rows + other.n_rows,
            n_rejected=self.n_rejected + other.n_rejected,
            n_failed=self.n_failed + other.n_failed,
            predict_s=self.predict_s + other.predict_s,
            convert_s=self.convert_s + other.convert_s,
            load_s=self.load_s + other.load_s,
            n_loads=self.n_loads + other.n_loads,
            failure=self.failure or other.failure,
            n_compared=self.n_compared + other.n_compared,
            n_different=self.n_different + other.n_different,
            difference=self.difference + other.difference,
            absolute=self.absolute + other.absolute,
        )

    def as_metrics(self) -> dict[str, float]:
        """The numbers by name; units are in the names."""
        return {
            "rows_scored": self.n_scored,
            "rows_rejected": self.n_rejected,
            "rows_failed": self.n_failed,
            "seconds_predict": self.predict_s,
            "seconds_convert": self.convert_s,
            "seconds_load": self.load_s,
            "loads": self.n_loads,
        }


def added_models(each: Iterable[Mapping[str, ModelCounts]]) -> dict[str, ModelCounts]:
    """The counts of several batches as one, by model; what JSON made lists of is taken too."""
    total: dict[str, ModelCounts] = {}
    for models in each:
        for label, counts in models.items():
            total[label] = total.get(label, ModelCounts()).plus(ModelCounts(*counts))
    return total


@dataclass(frozen=True)
class BatchReport:
    """What one worker says of one batch, or of several in a row; times by its own clocks.

    Attributes:
        worker: Host and process id, and when the process began.
        ended_ms: Wall clock at the batch's end, milliseconds since the epoch.
        n_loads: Times this process has loaded this model so far.
        rss_bytes: Largest resident memory of the process so far.
        runtime: Who scored: the model's library (`native`), `compiled trees`, `fused pipeline`, ...
        n_threads: The most threads that a native library would use at once.
        n_splits: Times that rows were halved, since memory ran out on them.
        n_batches: Batches that it tells of.
        n_not_finite: Predicted numbers that are NaN or infinite.
        unknown_levels: Rows with values that the model was not fitted on, by the model's column.
        reasons: Why rows were rejected, and how many for each reason.
        models: Of several models: what became of the rows of each, by its label.
    """

    worker: str
    ended_ms: int
    n_rows: int
    n_rejected: int
    n_bytes: int
    convert_s: float
    predict_s: float
    load_s: float
    n_loads: int
    rss_bytes: int
    runtime: str = "native"
    n_threads: int = 1
    n_splits: int = 0
    n_batches: int = 1
    n_not_finite: int = 0
    unknown_levels: Mapping[str, UnknownLevels] = field(default_factory=dict)
    reasons: Sequence[ReasonCount] = ()
    models: Mapping[str, ModelCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The account of one run.

    Attributes:
        n_read: Rows that the source gave after its filter.
        n_scored: Rows with a prediction, all of them in the commit.
        n_rejected: Rows without one, whose reasons are kept.
        n_skipped: Rows left out by rule.
        n_nulled: Rows without a prediction that are in the commit all the same.
        is_inline: Whether the rejected rows are in the commit too.
        rejects: The commit of the rejected rows to a table of their own; None: there is none.
        other_reasons: Of rows that came into no batch.
        shadow_failure: Why the scores of the model in the shadow are not in their table; None: they
            are, or there is none.
        n_beside: Rows of challengers in the commit, where each model has rows of its own.
        sketches: How columns are spread that the request asks for: inputs of all rows, and
            predictions that were written.
        seconds: Wall time by phase; `in_workers_...`: added up over all tasks.
        n_cores: Cores that could score at once; None where the cluster does not say.
        n_chunks_resumed: Chunks of the input that earlier attempts had finished.
        n_rows_resumed: Rows that these have scored.
        resumed_from: Run ids of the attempts that did.
    """

    status: OutcomeStatus
    commit: Commit
    n_read: int = 0
    n_scored: int = 0
    n_rejected: int = 0
    n_skipped: int = 0
    n_nulled: int = 0
    is_inline: bool = False
    rejects: Commit | None = None
    other_reasons: Sequence[ReasonCount] = ()
    shadow_failure: str | None = None
    n_beside: int = 0
    sketches: Mapping[str, ColumnSketch] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    n_cores: int | None = None
    batches: Sequence[BatchReport] = ()
    n_chunks_resumed: int = 0
    n_rows_resumed: int = 0
    resumed_from: tuple[str, ...] = ()

    def check_books(self) -> None:
        """Compare what was read with what became of it and with the commit, if it is this run's.

        Raises:
            BooksError: A row is unaccounted for.
        """
        if self.status is OutcomeStatus.ALREADY_SCORED:  # Another attempt committed, and counted.
            return
        found = self.n_scored + self.n_rejected + self.n_nulled + self.n_skipped
        if self.n_read != found:
            raise BooksError(
                f"{self.n_read} rows were read, but {self.n_scored} scored + {self.n_rejected} "
                f"rejected + {self.n_nulled} without a prediction + {self.n_skipped} skipped are "
                f"{found}; table {self.commit.uri!r} version {self.commit.version} holds what was "
                "written and needs a look"
            )
        n_kept = self.n_rejected if self.is_inline else self.n_nulled
        _check_written(self.commit, self.n_scored + self.n_beside + n_kept, "scored or kept")
        if self.rejects is not None:
            _check_written(self.rejects, self.n_rejected, "rejected")

    @property
    def reasons(self) -> Sequence[ReasonCount]:
        """Why rows have no prediction, the most frequent reason first."""
        return added_reasons([self.other_reasons, *(batch.reasons for batch in self.batches)])

    @property
    def n_not_finite(self) -> int:
        """Predicted numbers that are NaN or infinite; they are stored as such."""
        return sum(batch.n_not_finite for batch in self.batches)

    @property
    def unknown_levels(self) -> Mapping[str, UnknownLevels]:
        """Rows with values that the model was not fitted on, by the model's column."""
        return added(batch.unknown_levels for batch in self.batches)

    @property
    def models(self) -> Mapping[str, ModelCounts]:
        """Of several models: what became of the rows of each, by its label."""
        return added_models(batch.models for batch in self.batches)

    def as_metrics(self) -> dict[str, float]:
        """The run's metrics by name; units are in the names."""
        metrics: dict[str, float] = {
            "rows_read": self.n_read,
            "rows_scored": self.n_scored,
            "rows_rejected": self.n_rejected,
            "rows_nulled": self.n_nulled,
            "rows_skipped": self.n_skipped,
            "rows_resumed": self.n_rows_resumed,
            "chunks_resumed": self.n_chunks_resumed,
            **{f"seconds_{phase}": value for phase, value in self.seconds.items()},
        }
        if self.commit.n_deleted:
            metrics["rows_deleted"] = self.commit.n_deleted
        if self.commit.n_bytes is not None:
            metrics["bytes_written"] = self.commit.n_bytes
        scoring_s = self.seconds.get("score_and_commit", 0.0)
        if scoring_s > 0:
            n_scored_now = self.n_scored - self.n_rows_resumed
            metrics["rows_per_second"] = n_scored_now / scoring_s
            if self.n_cores:
                metrics["rows_per_second_per_core"] = n_scored_now / scoring_s / self.n_cores
        if self.batches:
            metrics.update(_worker_metrics(self.batches))
            metrics["predictions_not_finite"] = self.n_not_finite
            metrics["values_unknown"] = sum(each.n_rows for each in self.unknown_levels.values())
        return metrics


def _check_written(commit: Commit, n_rows: int, what: str) -> None:
    if commit.n_rows is not None and commit.n_rows != n_rows:
        raise BooksError(
            f"{n_rows} rows were {what}, but version {commit.version} of {commit.uri!r} says that "
            f"{commit.n_rows} were written"
        )


def _worker_metrics(batches: Sequence[BatchReport]) -> dict[str, float]:
    loads: dict[str, int] = {}
    for batch in batches:
        loads[batch.worker] = max(loads.get(batch.worker, 0), batch.n_loads)
    return {
        "batches": sum(batch.n_batches for batch in batches),
        "batches_split": sum(batch.n_splits for batch in batches),
        "bytes_to_python": sum(batch.n_bytes for batch in batches),
        "seconds_in_workers_convert": sum(batch.convert_s for batch in batches),
        "seconds_in_workers_predict": sum(batch.predict_s for batch in batches),
        "seconds_in_workers_load": sum(batch.load_s for batch in batches),
        "python_workers": len(loads),
        "model_loads_max_per_worker": max(loads.values()),
        "model_loads": sum(1 for batch in batches if batch.load_s > 0),
        "worker_memory_peak_bytes": max(batch.rss_bytes for batch in batches),
    }
