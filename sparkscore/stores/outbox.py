"""A RunStore that keeps writes on disk while the real one is away, and delivers them later.

Delivery may happen twice (a crash in the middle of a replay): every operation of a RunStore does
nothing the second time, so a replay starts a run's journal from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparkscore.errors import RecordNotFoundError, SparkscoreError, StoreUnavailableError
from sparkscore.names import ArtifactPath, ExperimentName, RunId, parse_experiment_name
from sparkscore.records import (
    ArtifactInfo,
    DatasetInput,
    Experiment,
    LifecycleStage,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import ArtifactStore, Clock, RunStore, system_clock
from sparkscore.stores.experiments import find_or_create_experiment
from sparkscore.stores.journal import (
    CreateRun,
    DeleteRunTag,
    Journal,
    LogBatch,
    LogInputs,
    LogOutputs,
    Operation,
    PutArtifact,
    RenameRun,
    RunWrite,
    UpdateRun,
)

# Stands before an experiment's name where its id, and a run's id where its place, is not known.
_PLACEHOLDER = "outbox:"


@dataclass(frozen=True)
class RefusedRun:
    """A queued run that the store will never take as it is; nothing of its journal is lost."""

    run_id: RunId
    reason: str
    path: Path


@dataclass(frozen=True)
class ReplayReport:
    """What a replay did with the queued runs."""

    delivered: tuple[RunId, ...]
    left: tuple[RunId, ...]
    refused: tuple[RefusedRun, ...]


class OutboxRunStore:
    """`inner`, but what a run writes of itself is queued when it is unavailable.

    That is create_run, log_batch, update_run, rename_run, delete_run_tag, log_inputs and
    log_outputs. Once something of a run is queued, all that follows of it queues behind, so that
    order is kept; `replay` delivers. Reads pass through, and so does what is done to experiments,
    and to a run from outside (delete_run, restore_run, purge_run): who does that waits for the
    answer. While `inner` is away, an experiment that is asked for by name is answered with a
    placeholder, and found or created at delivery.

    Args:
        inner: The store to write to.
        folder: Where the journal lies; on a disk of this machine.
        open_artifacts: Opens the place that a run's artifact URI names.
        clock: Milliseconds since the epoch.
    """

    def __init__(
        self,
        inner: RunStore,
        folder: Path,
        open_artifacts: Callable[[str], ArtifactStore],
        clock: Clock = system_clock,
    ) -> None:
        self._inner = inner
        self._journal = Journal(folder, clock)
        self._open_artifacts = open_artifacts
        self._clock = clock
        self._seen: dict[str, Run] = {}

    def replay(self) -> ReplayReport:
        """Deliver all queued runs, the longest waiting first; stops when the store is away.

        A run of which the store refuses an operation is moved to `refused/` in the folder.
        Called twice, or by two processes at once, it does no harm.

        Raises:
            StoreUnavailableError: The outbox itself cannot be read, or is being replayed.
        """
        delivered: list[RunId] = []
        refused: list[RefusedRun] = []
        with self._journal.replaying():
            for run_id in self._journal.waiting():
                try:
                    self._deliver_all(run_id)
                    delivered.append(run_id)
                except StoreUnavailableError:
                    break
                except SparkscoreError as exc:
                    path = self._journal.set_aside(run_id, f"[{exc.code}] {exc}")
                    refused.append(RefusedRun(run_id, str(exc), path))
            left = tuple(self._journal.waiting())
        return ReplayReport(tuple(delivered), left, tuple(refused))

    def waiting(self) -> Sequence[RunId]:
        """Runs with something queued, the longest waiting first."""
        return self._journal.waiting()

    def open_artifacts(self, run: Run) -> OutboxArtifactStore:
        """The files of a run, of which puts are queued like the run's other writes."""
        return OutboxArtifactStore(run, self._open_artifacts, self._journal)

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """See RunStore; one with a location or tags of its own is not queued."""
        try:
            return self._inner.create_experiment(name, artifact_location, tags)
        except StoreUnavailableError:
            if artifact_location is not None or tags:
                raise
            return self._placeholder(name)

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        return self._inner.get_experiment(experiment_id)

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore; a placeholder while the store is away."""
        try:
            return self._inner.find_experiment(name)
        except StoreUnavailableError:
            return self._placeholder(name)

    def search_experiments(self, query: Query) -> Page[Experiment]:
        """See RunStore."""
        return self._inner.search_experiments(query)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        return self._inner.list_experiments(limit=limit)

    def rename_experiment(self, experiment_id: str, name: ExperimentName) -> None:
        """See RunStore."""
        self._inner.rename_experiment(experiment_id, name)

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See RunStore."""
        self._inner.set_experiment_tags(experiment_id, tags)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """See RunStore."""
        self._inner.delete_experiment_tag(experiment_id, key)

    def delete_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        self._inner.delete_experiment(experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        self._inner.restore_experiment(experiment_id)

    def purge_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        self._inner.purge_experiment(experiment_id)

    def create_run(
        self,
        experiment_id: str,
        *,
        run_id: RunId,
        run_name: str,
        user_id: str,
        start_time_ms: int,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """See RunStore; the artifact URI of a queued run is a placeholder."""
        rules.check_new_run(run_name, user_id, start_time_ms, tags)
        operation = CreateRun(experiment_id, run_name, user_id, start_time_ms, dict(tags or {}))
        queued = Run(
            run_id=run_id,
            run_name=run_name,
            experiment_id=experiment_id,
            user_id=user_id,
            status=RunStatus.RUNNING,
            start_time_ms=start_time_ms,
            end_time_ms=None,
            artifact_uri=f"{_PLACEHOLDER}/{run_id}/artifacts",
            lifecycle_stage=LifecycleStage.ACTIVE,
            tags=operation.tags,
        )
        self._seen[run_id] = self._send(run_id, operation) or queued
        return self._seen[run_id]

    def get_run(self, run_id: RunId) -> Run:
        """See RunStore."""
        self._seen[run_id] = self._inner.get_run(run_id)
        return self._seen[run_id]

    def search_runs(self, experiment_ids: Sequence[str], query: Query) -> Page[Run]:
        """See RunStore."""
        return self._inner.search_runs(experiment_ids, query)

    def search_datasets(
        self, experiment_ids: Sequence[str], *, limit: int = 1000
    ) -> Sequence[tuple[str, DatasetInput]]:
        """See RunStore."""
        return self._inner.search_datasets(experiment_ids, limit=limit)

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """See RunStore."""
        return self._inner.list_runs(experiment_ids=experiment_ids, tags=tags, limit=limit)

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See RunStore; what is wrong in itself is refused at once, queued or not."""
        rules.check_batch(metrics, params, tags)
        self._send(run_id, LogBatch(tuple(metrics), dict(params or {}), dict(tags or {})))

    def rename_run(self, run_id: RunId, name: str) -> Run:
        """See RunStore; the answer to a queued call is the run as this process last saw it."""
        rules.check_run_name(name)
        sent = self._send(run_id, RenameRun(name))
        last = self._seen.get(run_id) or _unseen(run_id)
        tags = {**last.tags, rules.RUN_NAME_TAG: name}
        self._seen[run_id] = sent or replace(last, run_name=name, tags=tags)
        return self._seen[run_id]

    def delete_run_tag(self, run_id: RunId, key: str) -> None:
        """See RunStore; that there is no such tag is not known while the call is queued."""
        self._send(run_id, DeleteRunTag(key))

    def delete_run(self, run_id: RunId) -> None:
        """See RunStore."""
        self._inner.delete_run(run_id)

    def restore_run(self, run_id: RunId) -> None:
        """See RunStore."""
        self._inner.restore_run(run_id)

    def purge_run(self, run_id: RunId) -> None:
        """See RunStore."""
        self._inner.purge_run(run_id)

    def log_inputs(
        self,
        run_id: RunId,
        *,
        datasets: Sequence[DatasetInput] = (),
        model_ids: Sequence[str] = (),
    ) -> None:
        """See RunStore; what is wrong in itself is refused at once, queued or not."""
        rules.check_inputs(datasets, model_ids)
        self._send(run_id, LogInputs(tuple(datasets), tuple(model_ids)))

    def log_outputs(self, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """See RunStore; what is wrong in itself is refused at once, queued or not."""
        rules.check_outputs(models)
        self._send(run_id, LogOutputs(tuple(models)))

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore; the answer to a queued call is the run as this process last saw it."""
        rules.check_int64(end_time_ms or 0, "end time")
        sent = self._send(run_id, UpdateRun(status, end_time_ms))
        last = self._seen.get(run_id) or _unseen(run_id)
        self._seen[run_id] = sent or replace(last, status=status, end_time_ms=end_time_ms)
        return self._seen[run_id]

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        return self._inner.metric_history(run_id, key)

    def metric_history_page(
        self, run_id: RunId, key: str, *, limit: int, token: str | None = None
    ) -> Page[Metric]:
        """See RunStore."""
        return self._inner.metric_history_page(run_id, key, limit=limit, token=token)

    def _send(self, run_id: RunId, operation: Operation) -> Run | None:
        if not self._journal.is_waiting(run_id):
            try:
                return self._deliver(run_id, operation)
            except StoreUnavailableError:
                pass
        self._journal.append(run_id, operation)
        return None

    def _deliver_all(self, run_id: RunId) -> None:
        n_delivered = 0
        while True:
            operations = self._journal.operations(run_id)
            for operation in operations[n_delivered:]:
                self._deliver_again(run_id, operation)
            n_delivered = len(operations)
            # The run may still be going on: what it queued meanwhile comes next.
            if self._journal.remove(run_id, n_delivered):
                return

    def _deliver_again(self, run_id: RunId, operation: Operation) -> None:
        try:
            self._deliver(run_id, operation)
        except RecordNotFoundError:
            # The one operation that is refused the second time: there is no tag any more.
            if not isinstance(operation, DeleteRunTag):
                raise

    def _deliver(self, run_id: RunId, operation: Operation) -> Run | None:
        if not isinstance(operation, PutArtifact):
            return self._write(run_id, operation)
        place = self._open_artifacts(self._inner.get_run(run_id).artifact_uri)
        place.put(self._journal.artifact_file(run_id, operation), operation.path)
        return None

    def _write(self, run_id: RunId, operation: RunWrite) -> Run | None:
        if isinstance(operation, CreateRun):
            return self._inner.create_run(
                self._known_experiment_id(operation.experiment_id),
                run_id=run_id,
                run_name=operation.run_name,
                user_id=operation.user_id,
                start_time_ms=operation.start_time_ms,
                tags=operation.tags,
            )
        if isinstance(operation, UpdateRun):
            return self._inner.update_run(run_id, operation.status, operation.end_time_ms)
        if isinstance(operation, RenameRun):
            return self._inner.rename_run(run_id, operation.name)
        if isinstance(operation, LogBatch):
            self._inner.log_batch(
                run_id, metrics=operation.metrics, params=operation.params, tags=operation.tags
            )
        elif isinstance(operation, LogInputs):
            self._inner.log_inputs(
                run_id, datasets=operation.datasets, model_ids=operation.model_ids
            )
        elif isinstance(operation, LogOutputs):
            self._inner.log_outputs(run_id, operation.models)
        else:
            self._inner.delete_run_tag(run_id, operation.key)
        return None

    def _known_experiment_id(self, experiment_id: str) -> str:
        if not experiment_id.startswith(_PLACEHOLDER):
            return experiment_id
        name = parse_experiment_name(experiment_id.removeprefix(_PLACEHOLDER))
        return find_or_create_experiment(self._inner, name).experiment_id

    def _placeholder(self, name: ExperimentName) -> Experiment:
        now = self._clock()
        return Experiment(
            experiment_id=f"{_PLACEHOLDER}{name}",
            name=name,
            artifact_location=_PLACEHOLDER,
            lifecycle_stage=LifecycleStage.ACTIVE,
            creation_time_ms=now,
            last_update_time_ms=now,
        )


class OutboxArtifactStore:
    """The files of one run; `put` is queued while the store is away or the run is queued."""

    def __init__(
        self, run: Run, open_artifacts: Callable[[str], ArtifactStore], journal: Journal
    ) -> None:
        self._run = run
        self._open_artifacts = open_artifacts
        self._journal = journal

    @property
    def root_uri(self) -> str:
        """See ArtifactStore."""
        return self._run.artifact_uri

    def put(self, local: Path, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        run_id = RunId(self._run.run_id)
        if not self._journal.is_waiting(run_id):
            try:
                self._inner().put(local, path)
            except StoreUnavailableError:
                pass
            else:
                return
        self._journal.append_artifact(run_id, local, path)

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """See ArtifactStore."""
        return self._inner().get(path, local)

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """See ArtifactStore."""
        return self._inner().list(path)

    def delete(self, path: ArtifactPath) -> None:
        """See ArtifactStore."""
        self._inner().delete(path)

    def _inner(self) -> ArtifactStore:
        if self._run.artifact_uri.startswith(_PLACEHOLDER):
            raise StoreUnavailableError(
                f"the files of run {self._run.run_id!r} wait in the outbox: replay it first"
            )
        return self._open_artifacts(self._run.artifact_uri)


def _unseen(run_id: RunId) -> Run:
    return Run(
        run_id=run_id,
        run_name="",
        experiment_id="",
        user_id="",
        status=RunStatus.RUNNING,
        start_time_ms=0,
        end_time_ms=None,
        artifact_uri=f"{_PLACEHOLDER}/{run_id}/artifacts",
        lifecycle_stage=LifecycleStage.ACTIVE,
    )
