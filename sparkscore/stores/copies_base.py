"""The seams of a copy: what records are read from, and what takes them as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparkscore.records import (
    Experiment,
    LoggedModel,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
)


class Refuse(Protocol):
    """Told of what does not come over; a copy goes on without it."""

    def __call__(self, kind: str, name: str, why: str) -> None:
        """Note that the record `name` of this kind, such as `param`, is left out."""
        ...


@dataclass(frozen=True)
class RunPoint:
    """A metric point and the run that it is of."""

    run_id: str
    point: Metric


@dataclass(frozen=True)
class ModelCopy:
    """A registered model with its versions; `last_version` counts those that are deleted too."""

    model: RegisteredModel
    versions: tuple[ModelVersion, ...]
    last_version: int


@dataclass(frozen=True)
class KnownCopy:
    """What a store holds under an id; what has ended, or was deleted, is whole."""

    is_ended: bool
    artifact_uri: str


class RecordSource(Protocol):
    """A store of another product's, read from its first record to its last.

    What cannot be read is told to `refuse`, and left out.
    """

    def experiments(self, refuse: Refuse) -> Iterator[Experiment]:
        """All experiments, deleted ones too."""
        ...

    def run_ids(self, experiment_id: str) -> Iterator[str]:
        """The runs of an experiment, deleted ones too."""
        ...

    def runs(self, experiment_id: str, run_ids: Sequence[str], refuse: Refuse) -> Iterator[Run]:
        """These runs of an experiment, with all but their metrics."""
        ...

    def points(self, runs: Sequence[Run], refuse: Refuse) -> Iterator[RunPoint]:
        """All metric points of these runs of one experiment, in the order of `runs`."""
        ...

    def logged_models(self, experiment_id: str, refuse: Refuse) -> Iterator[LoggedModel]:
        """The logged models of an experiment, deleted ones too."""
        ...

    def models(self, refuse: Refuse) -> Iterator[ModelCopy]:
        """All registered models."""
        ...

    def places(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Where the files of these runs and logged models lie, by id; unknown ids are left out."""
        ...

    def current_place(self, uri: str) -> str:
        """Where files lie now that the records say are at `uri`."""
        ...


class CopyStore(Protocol):
    """Takes records as they are, with their ids and times; called again, it doubles nothing.

    Any call may raise StoreUnavailableError: nothing of it was kept, and the same call may
    succeed later.
    """

    def put_experiment(self, experiment: Experiment, artifact_root: str) -> tuple[Experiment, bool]:
        """The experiment of this name, and whether it is new.

        A new one keeps its id where that is free, and has its files below `artifact_root`. One
        that is here gets the tags that it has not.
        """
        ...

    def known_runs(self, run_ids: Sequence[str]) -> Mapping[str, KnownCopy]:
        """Which of these runs are here."""
        ...

    def known_logged_models(self, model_ids: Sequence[str]) -> Mapping[str, KnownCopy]:
        """Which of these logged models are here."""
        ...

    def put_runs(self, runs: Sequence[Run], points: Sequence[RunPoint]) -> int:
        """Add runs with metric points of theirs, all or nothing; what is here is replaced.

        Returns how many of the points are new.
        """
        ...

    def put_logged_models(self, models: Sequence[LoggedModel]) -> None:
        """Add logged models, all or nothing; those that are here are replaced."""
        ...

    def known_versions(self, name: str) -> Mapping[int, int]:
        """The creation time (ms) of each version of a registered model that is here."""
        ...

    def put_model(self, copy: ModelCopy) -> bool:
        """Add a registered model, its versions and aliases; whether the model is new.

        A model, version or alias that is here stays as it is.
        """
        ...
