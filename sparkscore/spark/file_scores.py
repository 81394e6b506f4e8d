"""The driver's part where Python writes the score table: what tasks are told, and the commit."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sparkscore.errors import SparkscoreError, listed
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.files.writing import WrittenFile, new_attempt
from sparkscore.scoring.checks import Profile, merged
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.outcome import BatchReport, Outcome, OutcomeStatus
from sparkscore.scoring.panel import ROUTE_RECORD
from sparkscore.scoring.plan import model_record
from sparkscore.scoring.rejects import InvalidRows, RejectCounts, added_reasons, check_budgets
from sparkscore.scoring.shadow import SHADOW_LABEL
from sparkscore.scoring.sketch import ColumnSketch
from sparkscore.scoring.table_write import (
    TableWrite,
    checked_write,
    recipe,
    reject_run,
    reject_sweep,
    reject_write,
    rejects_of,
    score_write,
)
from sparkscore.spark.cancellation import cancellable, is_ending
from sparkscore.spark.failures import SPARK_FAILURES, translated
from sparkscore.spark.reject_files import RejectsTable, copied, partition_name
from sparkscore.spark.resuming import HasFiles, Resumption, cleaned
from sparkscore.spark.score_files import ModelRows, ScoreFilesJob, TaskResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.files.predicate import Predicate
    from sparkscore.files.writing import FileLayout
    from sparkscore.scoring.outcome import Commit
    from sparkscore.scoring.plan import RunIdentity, ScoringPlan
    from sparkscore.scoring.target import HistoryEntry
    from sparkscore.spark.worker import ScoringTask


class RejectsSink(Protocol):
    """A table of rejected rows, whoever writes it."""

    def remove(self, write: TableWrite, rows: str, facts: RunFacts) -> None:
        """Remove the rows that `write` replaces, once, if `rows` is true of any."""
        ...


class ScoresSink(Protocol):
    """A score table whose rows workers write into files, whoever commits them."""

    @property
    def uri(self) -> str:
        """Where the table and the files lie."""
        ...

    def find(self, identity: RunIdentity) -> Commit | None:
        """The commit that this logical run made before, or None."""
        ...

    def history(self) -> Iterator[HistoryEntry]:
        """The table's commits that say something, the newest first."""
        ...

    def predicate(self, write: TableWrite) -> Predicate | None:
        """What each row has to satisfy when it is written; None: nothing."""
        ...

    def layout(self, write: TableWrite) -> FileLayout:
        """How the run's files are to be written."""
        ...

    def write(self, scores: WrittenScores, write: TableWrite, facts: RunFacts) -> Commit:
        """Commit the rows of the files in one transaction."""
        ...

    def clean(self, identity: RunIdentity, attempts: Collection[str]) -> None:
        """Remove what attempts at a run wrote and its commit does not name."""
        ...


def score_files_job(
    plan: ScoringPlan,
    sink: ScoresSink,
    task: ScoringTask,
    facts: RunFacts,
    max_reports: int,
    rejects: FilesSink | None = None,
    packed: Collection[str] = (),
    shadow: FilesSink | None = None,
) -> ScoreFilesJob:
    """What the tasks of a new attempt at a run share.

    Args:
        plan: The run.
        sink: Where it writes.
        task: How a batch is scored.
        facts: What stands in each row.
        max_reports: Reports of one task.
        rejects: Where its rejected rows are kept, if in a table of their own.
        packed: Source columns that come to the model as doubles, null as NaN.
        shadow: Where the scores of a model in the shadow go.
    """
    sketched = dict.fromkeys((*plan.request.checks.columns, *plan.request.sketched))
    predicted = set(plan.predictions.names)
    read = {binding.source.name for binding in plan.bindings if binding.source is not None}
    job = ScoreFilesJob(
        scoring=task,
        layout=sink.layout(score_write(plan)),
        carried=tuple(column.name for column in plan.carried),
        keys=plan.request.keys,
        constants=_constants(plan, facts),
        replace_where=sink.predicate(score_write(plan)),
        attempt=new_attempt(),
        max_reports=max_reports,
        models=_model_rows(plan),
        sketched=tuple(name for name in sketched if name in predicted),
        sketched_inputs=tuple(name for name in sketched if name in read - predicted),
        keeps_rejected=plan.request.keeps_rejected,
        tells_reasons=plan.request.is_inline,
        rejects=None if rejects is None else _rejects_table(plan, rejects, facts, packed),
    )
    return job if shadow is None else replace(job, shadow=_shadow_job(plan, job, shadow))


def scored_and_committed(
    spark: SparkSession,
    score: Callable[[], Sequence[TaskResult]],
    job: ScoreFilesJob,
    plan: ScoringPlan,
    sink: ScoresSink,
    facts: RunFacts,
    rejects: FilesSink | None = None,
    resumed: Resumption | None = None,
    shadow: FilesSink | None = None,
) -> Outcome:
    """Run the tasks and commit their files: rejected rows first, and then the scores.

    Files that are in no commit when it ends are removed, but for those that a next attempt may
    go on with, or that a check holds; what Spark still writes then is left to `score clean`, and
    no reader sees it.

    Args:
        spark: The session whose tasks these are.
        score: Runs them.
        job: What they share.
        plan: The run.
        sink: Where it writes.
        facts: Which attempt this is.
        rejects: Where its rejected rows are kept, if in a table of their own.
        resumed: What earlier attempts have done; None: nothing is kept between attempts.
        shadow: Where the scores of a model in the shadow go; that fails without harm.

    Raises:
        RejectBudgetError: More rows were rejected than the run may have.
        CheckFailedError: The scores are not what the job's checks ask for.
        SparkscoreError: What the sinks, the model or the rows refuse; no score was committed,
            unless a store did not answer.
    """
    started = time.perf_counter()
    earlier = () if resumed is None else tuple(resumed.results.values())
    run_ids = () if resumed is None else resumed.run_ids
    folders: list[tuple[HasFiles, RunIdentity]] = [(sink, plan.identity)]
    if rejects is not None:
        folders.append((rejects, reject_write(plan, facts.run_id).identity))
    if shadow is not None and plan.shadow is not None:
        folders.append((shadow, plan.shadow.plan.identity))
    with cleaned(folders, job.attempt, resumed):
        try:
            results = [*earlier, *_scored(spark, score, plan, sink)]
            found = _reject_counts(results, job)
            if plan.request.on_invalid is not InvalidRows.FAIL:
                check_budgets(found, plan.request.max_rejects, plan.request.max_partition_rejects)
            scored = time.perf_counter()
            if resumed is not None:
                resumed.ledger.check_claim()
            files = tuple(file for result in results for file in result.files)
            written = WrittenScores(files, job.attempt, run_ids)
            profile = _profile(results)
            write = checked_write(plan, sink, profile, _held_text(sink, files))
            rejects_commit = _rejects_committed(results, earlier, job, plan, rejects, facts)
            shadow_failure = _shadow_committed(results, job, plan, shadow, facts)
            commit = sink.write(written, write, facts)
        except SparkscoreError:
            won = _won_by_another(sink, plan, facts)
            if won is None:
                raise
            if rejects is not None:
                sweep_rejects(plan, rejects, won)
            return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=won)
        if rejects is not None:
            sweep_rejects(plan, rejects, commit)
    ended = time.perf_counter()
    if commit.run_id != facts.run_id:  # Another attempt at the same run was faster.
        return Outcome(status=OutcomeStatus.ALREADY_SCORED, commit=commit)
    reports = [BatchReport(**report) for result in results for report in result.reports]
    n_beside = 0 if plan.panel is None else plan.panel.n_beside(reports)
    n_kept = sum(file.n_rows for file in files) - n_beside
    is_nulled = plan.request.on_invalid is InvalidRows.NULL
    return Outcome(
        status=OutcomeStatus.SUCCEEDED,
        commit=commit,
        n_read=found.n_read,
        n_scored=n_kept - (found.n_rejected if job.keeps_rejected else 0),
        n_beside=n_beside,
        n_rejected=0 if is_nulled else found.n_rejected,
        n_nulled=found.n_rejected if is_nulled else 0,
        is_inline=plan.request.is_inline,
        rejects=rejects_commit,
        shadow_failure=shadow_failure,
        sketches=profile.columns,
        seconds={
            "score_and_commit": ended - started,
            "commit": ended - scored,
            "in_workers_read": sum(result.read_s for result in results),
            "in_workers_write": sum(result.write_s for result in results),
            "in_workers_tasks": sum(result.task_s for result in results),
        },
        n_cores=spark.sparkContext.defaultParallelism,
        batches=reports,
        n_chunks_resumed=len(earlier),
        n_rows_resumed=sum(
            report["n_rows"] - report["n_rejected"]
            for result in earlier
            for report in result.reports
        ),
        resumed_from=run_ids,
    )


def _shadow_committed(
    results: Sequence[TaskResult],
    job: ScoreFilesJob,
    plan: ScoringPlan,
    shadow: FilesSink | None,
    facts: RunFacts,
) -> str | None:
    """Commit the scores of the model in the shadow, if there is one; why that failed, if it did.

    Before the scores: after them, nobody would try again.
    """
    if shadow is None or plan.shadow is None:
        return None
    failure = next((each.shadow_failure for each in results if each.shadow_failure), None)
    if failure is not None:
        return failure
    written = WrittenScores(tuple(file for each in results for file in each.shadow), job.attempt)
    try:
        shadow.write(written, score_write(plan.shadow.plan), facts)
    except SparkscoreError as exc:
        return str(exc)
    return None


def _rejects_committed(
    results: Sequence[TaskResult],
    earlier: Sequence[TaskResult],
    job: ScoreFilesJob,
    plan: ScoringPlan,
    rejects: FilesSink | None,
    facts: RunFacts,
) -> Commit | None:
    """The commit of the rejected rows, if there are any.

    Those of earlier attempts are copied: whose rows they are stands in the names of their folders,
    and an attempt that wakes up may commit and remove what it has written itself.
    """
    if rejects is None or job.rejects is None:
        return None
    of_earlier = [file for result in earlier for file in result.rejects]
    own = [file for result in results[len(earlier) :] for file in result.rejects]
    if of_earlier:
        own += copied(of_earlier, job.rejects, job.attempt)
    if not own:
        return None
    written = WrittenScores(tuple(own), job.attempt)
    return rejects.write(written, reject_write(plan, facts.run_id), facts)


def _profile(results: Sequence[TaskResult]) -> Profile:
    sketches = [
        {name: ColumnSketch.from_facts(facts) for name, facts in result.sketches.items()}
        for result in results
    ]
    n_rows = sum(file.n_rows for result in results for file in result.files)
    return Profile(n_rows, merged(sketches))


def _held_text(sink: ScoresSink, files: Sequence[WrittenFile]) -> str:
    """Where files are that a check has held, and what can be done with them."""
    clean = f"sparkscore score clean {shlex.quote(sink.uri)} --older-than 0"
    return (
        f"Nothing was published. The scores lie in Parquet files in {sink.uri}, which no reader of "
        f"the table sees: {listed(file.path for file in files)}; `{clean}` lists them, and removes "
        "them with --remove. Mend the source or the model, or publish by the same command with "
        "--accept-checks"
    )


def _scored(
    spark: SparkSession,
    score: Callable[[], Sequence[TaskResult]],
    plan: ScoringPlan,
    sink: ScoresSink,
) -> Sequence[TaskResult]:
    try:
        return cancellable(spark, score)
    except (*SPARK_FAILURES, ConnectionError) as exc:
        what = f"scoring {plan.source.uri!r} into {sink.uri!r}"
        source = plan.source.uri
        raise translated(exc, what, source=source, is_ending=is_ending(spark)) from exc


def _won_by_another(sink: ScoresSink, plan: ScoringPlan, facts: RunFacts) -> Commit | None:
    """The commit of another attempt, which may have removed what this one was about to use."""
    try:
        commit = sink.find(plan.identity)
    except SparkscoreError:
        return None  # What has failed before says more.
    return None if commit is None or commit.run_id == facts.run_id else commit


def sweep_rejects(plan: ScoringPlan, rejects: RejectsSink, commit: Commit) -> None:
    """Remove rejected rows of attempts at a run whose scores are not those of its commit.

    Raises:
        SparkscoreError: The rejects table cannot be written. The scores are committed; the same
            command tries again.
    """
    scored_at = dt.datetime.now(dt.UTC)
    facts = RunFacts(run_id=commit.run_id, scored_at=scored_at)
    rejects.remove(reject_sweep(plan, commit.run_id), rejects_of(plan), facts)


def _reject_counts(results: Sequence[TaskResult], job: ScoreFilesJob) -> RejectCounts:
    n_rows: Counter[str] = Counter()
    n_rejected: Counter[str] = Counter()
    for result in results:
        for file in result.files:
            n_rows[partition_name(file.partition)] += file.n_rows
        n_rejected.update(result.partition_rejects)
    if not job.keeps_rejected:
        n_rows.update(n_rejected)
    reports = [report for result in results for report in result.reports]
    return RejectCounts(
        n_read=sum(report["n_rows"] for report in reports),
        n_rejected=sum(report["n_rejected"] for report in reports),
        reasons=added_reasons(report["reasons"] for report in reports),
        partitions={name: (n_rows[name], n) for name, n in n_rejected.items()},
    )


def _rejects_table(
    plan: ScoringPlan, rejects: FilesSink, facts: RunFacts, packed: Collection[str]
) -> RejectsTable:
    write = reject_write(plan, facts.run_id)
    inputs = {b.source.name: b.source.type for b in plan.bindings if b.source is not None}
    inputs |= {column.name: column.type for column in plan.carried}
    return RejectsTable(
        layout=rejects.layout(write),
        keys=plan.request.keys,
        inputs=inputs,
        packed=frozenset(packed),
        constants={
            **model_record(plan.model),
            "reject_job": recipe(plan),
            "rejected_at": facts.scored_at,
            "app_id": reject_run(plan.identity),
            "run_id": facts.run_id,
        },
    )


def _shadow_job(plan: ScoringPlan, job: ScoreFilesJob, sink: FilesSink) -> ScoreFilesJob:
    """How a batch's answers become rows of the shadow's table."""
    panel, shadow = plan.panel, plan.shadow
    assert panel is not None
    assert shadow is not None
    place = panel.answers.names.index(SHADOW_LABEL)
    answers = ModelRows(tuple(shadow.plan.predictions.names), place)
    return replace(
        job,
        layout=sink.layout(score_write(shadow.plan)),
        constants={**job.constants, **model_record(shadow.plan.model)},
        replace_where=None,
        models=(answers,),
        sketched=(),
        sketched_inputs=(),
        keeps_rejected=False,
        tells_reasons=False,
        rejects=None,
    )


def _constants(
    plan: ScoringPlan, facts: RunFacts
) -> dict[str, str | int | dt.date | dt.datetime | None]:
    """What stands in each row: columns that the predicate pins, and where the row comes from."""
    constants: dict[str, str | int | dt.date | dt.datetime | None] = {}
    for pinned in plan.constants:
        if pinned.type == "date":
            constants[pinned.column] = dt.date.fromisoformat(pinned.value)
        else:
            is_text = pinned.type == "string"
            constants[pinned.column] = pinned.value if is_text else int(pinned.value)
    told = {} if ROUTE_RECORD.names[0] in plan.answers.names else model_record(plan.model)
    return constants | told | {"run_id": facts.run_id, "scored_at": facts.scored_at}


def _model_rows(plan: ScoringPlan) -> tuple[ModelRows, ...]:
    panel = plan.panel
    if panel is None or not panel.is_long:
        return (ModelRows(tuple(plan.answers.names)),)
    head_columns = tuple(panel.head_answers.names)
    (model_column,) = plan.model_column.names
    head = ModelRows(head_columns, None, {model_column: panel.label})
    beside = (
        ModelRows(
            tuple(one.model.predictions.names),
            place,
            {model_column: one.label, **model_record(one.model)},
        )
        for place, one in enumerate(panel.challengers, start=len(head_columns))
    )
    return (head, *beside)
