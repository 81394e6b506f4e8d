"""What of a run earlier attempts have finished, what is left to do, and what stays of this one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Protocol

import sparkscore
from sparkscore.errors import (
    BatchDeadlineError,
    CheckFailedError,
    InternalError,
    ModelTooLargeError,
    RunKeyConflictError,
    SparkscoreError,
    StoreUnavailableError,
    TargetError,
    TemporaryError,
    WorkerCrashError,
)
from sparkscore.files.ledger import Earlier, Ledger, are_there, together
from sparkscore.spark.score_files import TaskResult

if TYPE_CHECKING:
    from sparkscore.scoring.engine import RunFacts
    from sparkscore.scoring.plan import RunIdentity, ScoringPlan
    from sparkscore.spark.score_files import ScoreFilesJob


class HasFiles(Protocol):
    """A table into whose folder workers write before anything is committed."""

    def clean(self, identity: RunIdentity, attempts: Collection[str]) -> None:
        """Remove what attempts at a run wrote and its commit does not name."""
        ...


_MENDABLE = (
    CheckFailedError,
    TemporaryError,
    TargetError,
    InternalError,
    BatchDeadlineError,
    ModelTooLargeError,
    WorkerCrashError,
)
"""What ends an attempt and not the run: memory, disks, rights, time, consent come: it goes on."""

Cut = Sequence[str]
"""A run's input as chunks, each of which is one task; each is told from all others by its text."""
_Finished = tuple[str, TaskResult]
"""Run id and result of a chunk."""


@dataclass(frozen=True)
class Resumption:
    """A run between its attempts.

    Attributes:
        ledger: Where this attempt keeps what it finishes.
        attempts: The earlier attempts.
        results: By the place of each finished chunk in `cut`.
        run_ids: Under which names those are on record that finished them.
        chunk_bytes: Into chunks of about how many bytes the run is cut.
        cut: All chunks of the run.
    """

    ledger: Ledger
    attempts: frozenset[str]
    results: dict[int, TaskResult]
    run_ids: tuple[str, ...]
    chunk_bytes: int
    cut: Cut

    @property
    def left(self) -> list[int]:
        """The place of each chunk that is still to be scored."""
        return [place for place in range(len(self.cut)) if place not in self.results]


def resumption(
    plan: ScoringPlan,
    job: ScoreFilesJob,
    facts: RunFacts,
    cut_into: Callable[[int], Cut],
    chunk_bytes: int,
) -> Resumption | None:
    """What is left of a run; None for one of a single chunk, or whose input is not pinned.

    Chunks are told by what they read, so that an attempt that would cut otherwise, as on a cluster
    of another size, takes the cut of the earlier one, if more of it is done that way.

    Args:
        plan: The run.
        job: What its tasks share.
        facts: Which attempt this is.
        cut_into: The run's input, cut into chunks of about so many bytes.
        chunk_bytes: How many this attempt would take.

    Raises:
        TargetUnwritableError: The target's folder takes no files.
        StoreUnavailableError: The store that it lies in does not answer.
    """
    if not plan.source.version:
        return None
    cut = cut_into(chunk_bytes)
    if len(cut) <= 1:
        return None
    inputs = _inputs_digest(plan, job)
    ledger = Ledger(job.layout.folder, plan.identity.app_id, job.attempt, facts.run_id, inputs)
    earlier = ledger.claim(chunk_bytes)
    finished = _finished(earlier, job)
    cuts = {chunk_bytes: cut, **{n: cut_into(n) for n in sorted(earlier.cuts - {chunk_bytes})}}
    done = {n: _done(cut, finished) for n, cut in cuts.items()}
    best = max(done, key=lambda n: _n_rows(result for _, result in done[n].values()))
    return Resumption(
        ledger=ledger,
        attempts=earlier.attempts,
        results={place: result for place, (_, result) in done[best].items()},
        run_ids=tuple(sorted({run_id for run_id, _ in done[best].values()})),
        chunk_bytes=best,
        cut=cuts[best],
    )


def chunk_id(facts: object) -> str:
    """What tells a chunk from all others of a source whose version is pinned.

    Args:
        facts: What is read, as values of JSON.
    """
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def n_resumed(resumed: Resumption | None) -> int:
    """Rows of the source in the chunks that earlier attempts have finished."""
    return 0 if resumed is None else _n_rows(resumed.results.values())


@contextmanager
def cleaned(
    folders: Sequence[tuple[HasFiles, RunIdentity]], attempt: str, resumed: Resumption | None
) -> Iterator[None]:
    """Remove, when a block has ended, what it left in the targets' folders and nobody needs.

    After the run's commit that is all that the commit does not name, of any attempt. Where an error
    ends the attempt that a next one would meet again, what this one wrote is removed, unless there
    is another attempt. After any other error it stays, for the next attempt or for `score clean`.

    Args:
        folders: The targets, and the identity of the run's commit to each.
        attempt: The attempt that the block makes.
        resumed: Its ledger; None: there is none.
    """
    try:
        yield
    except BaseException as exc:
        if not _may_go_on(exc, resumed):
            with suppress(SparkscoreError, OSError):  # The block's own error says more.
                if resumed is None or resumed.ledger.discard():
                    _remove(folders, attempt, resumed, frozenset())
        raise
    earlier = frozenset() if resumed is None else resumed.attempts
    with suppress(SparkscoreError, OSError):  # The scores are there; `score clean` finds the rest.
        _remove(folders, attempt, resumed, earlier)


def _may_go_on(exc: BaseException, resumed: Resumption | None) -> bool:
    """Whether another attempt may use the files, or a commit that was sent may need them."""
    if resumed is None:
        return isinstance(exc, StoreUnavailableError | CheckFailedError)
    if isinstance(exc, RunKeyConflictError):
        return False
    return isinstance(exc, _MENDABLE) or not isinstance(exc, SparkscoreError)


def _remove(
    folders: Sequence[tuple[HasFiles, RunIdentity]],
    attempt: str,
    resumed: Resumption | None,
    earlier: frozenset[str],
) -> None:
    for sink, identity in folders:
        sink.clean(identity, {attempt, *earlier})
    if resumed is not None:
        resumed.ledger.remove(earlier)  # Last: it says that the files may go.


def _finished(earlier: Earlier, job: ScoreFilesJob) -> dict[str, _Finished]:
    """Run id and result of each chunk that was finished and whose files are there."""
    results = [TaskResult.from_json(record.result) for record in earlier.records]
    there = together(partial(_is_there, job), results)
    return {
        record.chunk: (record.run_id, result)
        for record, result, is_there in zip(earlier.records, results, there, strict=True)
        if is_there
    }


def _is_there(job: ScoreFilesJob, result: TaskResult) -> bool:
    if job.rejects is not None and not are_there(job.rejects.layout.folder, result.rejects):
        return False
    return are_there(job.layout.folder, result.files)


def _done(cut: Cut, finished: Mapping[str, _Finished]) -> dict[int, _Finished]:
    """What is finished of a run that is cut so, by the places of its chunks."""
    return {place: finished[chunk] for place, chunk in enumerate(cut) if chunk in finished}


def _n_rows(results: Iterable[TaskResult]) -> int:
    return sum(report["n_rows"] for result in results for report in result.reports)


def _inputs_digest(plan: ScoringPlan, job: ScoreFilesJob) -> str:
    """Digest of all that decides which rows a chunk's files hold, and how they are told of."""
    layout = job.layout
    facts = [
        sparkscore.__version__,
        [field.name for field in fields(TaskResult)],
        plan.identity.app_id,
        sorted(plan.identity.fingerprint.items()),
        str(layout.schema),
        layout.partition_by,
        sorted(layout.mapped.items()),
        job.sketched,
        None if job.scoring.environment is None else job.scoring.environment.key,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
