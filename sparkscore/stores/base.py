"""The seams behind which runs and files are kept; those of models are in `models_base`.

Every implementation passes the contract suites in `sparkscore.testing`. Clocks are handed in,
so that a store never decides what time it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from sparkscore.names import ArtifactPath, ExperimentName, RunId
from sparkscore.records import (
    ArtifactInfo,
    DatasetInput,
    Experiment,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import Page, Query

Clock = Callable[[], int]
"""Returns the present as milliseconds since the epoch, UTC."""


def system_clock() -> int:
    """The machine's own clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class RunStore(Protocol):
    """Experiments and runs.

    Any call may raise StoreUnavailableError: nothing of it was kept, and the same call may
    succeed later.
    """

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """A new experiment; without a location it gets one below the store's artifact root.

        Raises:
            RecordExistsError: The name is taken, by a deleted experiment too.
        """
        ...

    def get_experiment(self, experiment_id: str) -> Experiment:
        """The experiment of this id, deleted or not.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """The experiment of this name, deleted or not, or None."""
        ...

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """Active experiments, newest first."""
        ...

    def search_experiments(self, query: Query) -> Page[Experiment]:
        """Experiments that fit; without an order newest first.

        Raises:
            UsageError: The token is of another query, or of none.
        """
        ...

    def rename_experiment(self, experiment_id: str, name: ExperimentName) -> None:
        """Give an experiment another name.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is deleted.
            RecordExistsError: The name is taken.
        """
        ...

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is deleted.
            InvalidNameError: A key is not usable.
            UsageError: A value is over its limit.
        """
        ...

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            RecordNotFoundError: There is no such experiment or tag.
            InvalidStateError: The experiment is deleted.
        """
        ...

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an active experiment and its active runs as deleted; nothing is lost yet.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is deleted already.
        """
        ...

    def restore_experiment(self, experiment_id: str) -> None:
        """Make a deleted experiment active again, with the runs that were deleted with it.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is active.
        """
        ...

    def purge_experiment(self, experiment_id: str) -> None:
        """Remove a deleted experiment with all its runs and logged models, for good.

        The files of these are noted to be removed; see PurgeStore.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is active.
        """
        ...

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
        """A new RUNNING run under an id that the caller chose (so that it can be queued).

        Called again with the same id and experiment it returns the run that is there.

        Raises:
            RecordNotFoundError: No such experiment.
            InvalidStateError: The experiment is deleted.
            RecordExistsError: The id belongs to a run of another experiment.
        """
        ...

    def get_run(self, run_id: RunId) -> Run:
        """The run with its params, tags and latest metrics.

        Raises:
            RecordNotFoundError: There is none.
        """
        ...

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """Active runs that carry all of `tags`, newest start first; no ids: all experiments."""
        ...

    def search_runs(self, experiment_ids: Sequence[str], query: Query) -> Page[Run]:
        """Runs of these experiments that fit; without an order newest start first.

        An id of no experiment finds nothing.

        Raises:
            UsageError: The token is of another query, or of none.
        """
        ...

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run, all or nothing; a repeated identical metric point is kept once.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted, or a param is known with another value.
            InvalidNameError: A key is not usable.
            UsageError: A value is over its limit (`rules` has them); values are never cut.
        """
        ...

    def rename_run(self, run_id: RunId, name: str) -> Run:
        """The run under another name, which its tag `mlflow.runName` repeats.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted.
            UsageError: The name is too long.
        """
        ...

    def delete_run_tag(self, run_id: RunId, key: str) -> None:
        """Remove a tag.

        Raises:
            RecordNotFoundError: No such run or tag.
            InvalidStateError: The run is deleted.
        """
        ...

    def delete_run(self, run_id: RunId) -> None:
        """Mark a run as deleted; nothing happens where it is.

        Raises:
            RecordNotFoundError: No such run.
        """
        ...

    def restore_run(self, run_id: RunId) -> None:
        """Make a run active again; nothing happens where it is.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: Its experiment is deleted.
        """
        ...

    def purge_run(self, run_id: RunId) -> None:
        """Remove a deleted run with all its records, for good.

        Its files are noted to be removed; see PurgeStore.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is active.
        """
        ...

    def log_inputs(
        self,
        run_id: RunId,
        *,
        datasets: Sequence[DatasetInput] = (),
        model_ids: Sequence[str] = (),
    ) -> None:
        """Add what a run used; a dataset or model that it has is kept once, its tags replaced.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted.
            UsageError: A text is over its limit.
        """
        ...

    def log_outputs(self, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """Add logged models that a run made; one that it has is kept once.

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted.
        """
        ...

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """The run with a new status and end time (None: not ended).

        Raises:
            RecordNotFoundError: No such run.
            InvalidStateError: The run is deleted.
        """
        ...

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """All points of a metric by (step, timestamp, value); empty for an unknown key.

        Raises:
            RecordNotFoundError: No such run.
        """
        ...

    def metric_history_page(
        self, run_id: RunId, key: str, *, limit: int, token: str | None = None
    ) -> Page[Metric]:
        """One page of `metric_history`.

        Raises:
            RecordNotFoundError: No such run.
            UsageError: The token is of another history, or of none.
        """
        ...

    def search_datasets(
        self, experiment_ids: Sequence[str], *, limit: int = 1000
    ) -> Sequence[tuple[str, DatasetInput]]:
        """Datasets that active runs of these experiments used, as (experiment id, input)."""
        ...


class ArtifactStore(Protocol):
    """Files below one root. Paths were parsed by `names.parse_artifact_path`.

    Any call may raise StoreUnavailableError.
    """

    @property
    def root_uri(self) -> str:
        """URI of the root, without a trailing slash."""
        ...

    def put(self, local: Path, path: ArtifactPath) -> None:
        """Store a local file as `path`, or a local folder as the folder `path`.

        A file becomes visible whole or not at all; an existing file is replaced.

        Raises:
            RecordNotFoundError: `local` does not exist.
        """
        ...

    def get(self, path: ArtifactPath, local: Path) -> Path:
        """Copy the file or folder `path` to the new local path `local`, and return it.

        Raises:
            RecordNotFoundError: There is nothing at `path`.
        """
        ...

    def list(self, path: ArtifactPath) -> Sequence[ArtifactInfo]:
        """What lies directly in the folder `path`, by name; empty for a file or nothing."""
        ...

    def delete(self, path: ArtifactPath) -> None:
        """Remove the file or folder `path`; nothing happens where nothing is."""
        ...


@runtime_checkable
class StreamedArtifactStore(Protocol):
    """What an ArtifactStore may offer besides: files read and filled where they lie, uncopied.

    Any call may raise StoreUnavailableError.
    """

    def open(self, path: ArtifactPath) -> BinaryIO:
        """The file `path`, opened to be read; the caller closes it.

        Raises:
            RecordNotFoundError: There is no file at `path`.
        """
        ...

    def staging_path(self) -> Path:
        """A new local path; what is written there is not seen before it is taken in."""
        ...

    def take(self, staged: Path, path: ArtifactPath) -> None:
        """Move a file from its staging path to `path`: it becomes visible whole or not at all."""
        ...
