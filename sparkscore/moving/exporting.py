"""Experiments and runs to a server of MLflow's, or of ours, by its protocol.

A run's end is told last: one that has ended there is complete, and is not looked at again. Of one
that has not, only the points that the server lacks are sent, since some servers keep a point as
often as it comes. Servers of MLflow's choose ids by themselves; a tag says whose copy a record is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from sparkscore.errors import RecordNotFoundError, SparkscoreError, StoreUnavailableError
from sparkscore.moving.files import copy_files
from sparkscore.moving.tally import Tally
from sparkscore.names import RunId, parse_experiment_name, parse_run_id
from sparkscore.records import (
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import Page, Query, View
from sparkscore.stores import rules
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.experiments import find_or_create_experiment
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.stores.transfers import for_each

ORIGIN_TAG = "sparkscore.origin"
"""On the server: the id here of what a record is a copy of."""

NO_LOGGED_MODELS = "the server is of MLflow's second series, which has none"

_PARENT_TAG = "mlflow.parentRunId"
_HISTORY_TAG = "mlflow.log-model.history"
_VERSIONS_TAG = "mlflow.modelVersions"
_PAGE = 1000
_POINTS_PAGE = 10_000
_N_PARAMS = 100

_Item = TypeVar("_Item")
PointId = tuple[str, rules.PointKey]


class Stores(Protocol):
    """What one side of an export keeps."""

    @property
    def runs(self) -> RunStore:
        """Experiments and runs."""
        ...

    @property
    def logged_models(self) -> LoggedModelStore:
        """Models of experiments."""
        ...

    @property
    def models(self) -> ModelStore:
        """Registered models."""
        ...

    def artifacts_at(self, uri: str) -> ArtifactStore:
        """The files below a URI that records of this side name."""
        ...


@dataclass(frozen=True)
class Copied:
    """What the server has of a record."""

    record_id: str
    artifact_uri: str
    is_ended: bool


@dataclass
class Place:
    """An experiment of the server, and what is there of ours, by our ids."""

    experiment: Experiment
    seen: set[str] = field(default_factory=set)
    """Runs and logged models that this export has counted."""
    runs: dict[str, Copied] = field(default_factory=dict)
    models: dict[str, Copied] = field(default_factory=dict)
    keeps_models: bool = True
    """Whether the server knows logged models; MLflow's of its second series do not."""


class RunExporter:
    """Copies experiments with their runs and logged models; safe to be called again."""

    def __init__(self, ours: Stores, theirs: Stores, tally: Tally) -> None:
        self._ours = ours
        self._theirs = theirs
        self._tally = tally
        self._places: dict[str, Place] = {}

    def export_experiment(self, experiment: Experiment) -> None:
        """Copy an experiment with its active runs and logged models.

        Raises:
            StoreUnavailableError: The server or a store here did not answer.
        """
        place = self.place_of(experiment)
        if place is None:
            return
        parents = {
            run.run_id: run.tags.get(_PARENT_TAG)
            for run in every(
                lambda query: self._ours.runs.search_runs([experiment.experiment_id], query)
            )
        }
        while parents:
            # Parents first, since their ids there stand in their children's tags; a ring at once.
            level = [run for run, parent in parents.items() if parent not in parents]
            level = level or list(parents)
            for_each(lambda run_id: self._guarded(run_id, place), level)
            for run_id in level:
                del parents[run_id]
        self._export_other_models(experiment, place)

    def export_run(self, run_id: str) -> Copied | None:
        """Copy one run, if there is one of this id; what the server has of it then.

        Raises:
            StoreUnavailableError: The server or a store here did not answer.
            SparkscoreError: What the server refuses.
        """
        try:
            run = self._ours.runs.get_run(parse_run_id(run_id))
        except RecordNotFoundError:
            return None
        place = self.place_of(self._ours.runs.get_experiment(run.experiment_id))
        if place is None or run.lifecycle_stage is LifecycleStage.DELETED:
            return None
        self._export(run.run_id, place)
        return place.runs[run.run_id]

    def export_model(self, model_id: str) -> Copied | None:
        """Copy one logged model, if there is one of this id, with its run.

        Raises:
            StoreUnavailableError: The server or a store here did not answer.
            SparkscoreError: What the server refuses.
        """
        try:
            model = self._ours.logged_models.get_logged_model(model_id)
        except RecordNotFoundError:
            return None
        place = self.place_of(self._ours.runs.get_experiment(model.experiment_id))
        if place is None or not place.keeps_models:
            return None
        if model.source_run_id:
            self.export_run(model.source_run_id)
        self._export_model(model, place)
        return place.models[model_id]

    def place_of(self, experiment: Experiment) -> Place | None:
        """The experiment of the same name there, made if there is none; None if it is deleted."""
        if experiment.experiment_id in self._places:
            return self._places[experiment.experiment_id]
        name = parse_experiment_name(experiment.name)
        is_new = self._theirs.runs.find_experiment(name) is None
        found = find_or_create_experiment(self._theirs.runs, name)
        if found.lifecycle_stage is LifecycleStage.DELETED:
            why = "the server's experiment of this name is deleted: restore it there"
            self._tally.refuse("experiment", name, why)
            return None
        self._tally.count("experiment", new=is_new, there=not is_new)
        tags = {key: text for key, text in experiment.tags.items() if key not in found.tags}
        self._theirs.runs.set_experiment_tags(found.experiment_id, tags)
        place = self._places[experiment.experiment_id] = Place(found)
        for run in every(
            lambda query: self._theirs.runs.search_runs([found.experiment_id], query), View.ALL
        ):
            place.runs[run.tags.get(ORIGIN_TAG, run.run_id)] = _copied_run(run)
        self._look_for_models(place)
        return place

    def _look_for_models(self, place: Place) -> None:
        ids = [place.experiment.experiment_id]
        try:
            for model in every(
                lambda query: self._theirs.logged_models.search_logged_models(ids, query)
            ):
                place.models[model.tags.get(ORIGIN_TAG, model.model_id)] = _copied_model(model)
        except RecordNotFoundError:
            place.keeps_models = False

    def _guarded(self, run_id: str, place: Place) -> None:
        try:
            self._export(run_id, place)
        except StoreUnavailableError:
            raise
        except SparkscoreError as exc:
            self._tally.refuse("run", run_id, str(exc))

    def _export(self, run_id: str, place: Place) -> None:
        known = place.runs.get(run_id)
        self._count("run", run_id, place, is_new=known is None)
        if known is not None and known.is_ended:
            return
        run = self._ours.runs.get_run(RunId(run_id))
        runs, tags = self._theirs.runs, _tags(run, place)
        if known is None:
            created = runs.create_run(
                place.experiment.experiment_id,
                run_id=RunId(run_id),
                run_name=run.run_name,
                user_id=run.user_id,
                start_time_ms=run.start_time_ms,
                tags={ORIGIN_TAG: run_id},
            )
            place.runs[run_id] = _copied_run(created)
        there = place.runs[run_id]
        their_id = RunId(there.record_id)
        runs.log_batch(their_id, params=run.params, tags=tags)
        made = [it.model_id for it in run.model_outputs if place.keeps_models]
        owned = [self._ours.logged_models.get_logged_model(it) for it in made]
        for model in owned:
            self._export_model(model, place)
        self._log_inputs(run, their_id, place)
        self._log_points(run, their_id, owned, place, is_new=known is None)
        self._copy_files(run.artifact_uri, there.artifact_uri)
        if run.status not in (RunStatus.RUNNING, RunStatus.SCHEDULED):
            runs.update_run(their_id, run.status, run.end_time_ms)
            place.runs[run_id] = replace(there, is_ended=True)

    def _log_inputs(self, run: Run, their_id: RunId, place: Place) -> None:
        used = [place.models[it].record_id for it in run.model_inputs if it in place.models]
        if run.datasets or used:
            self._theirs.runs.log_inputs(their_id, datasets=run.datasets, model_ids=used)
        made = [
            ModelOutput(place.models[it.model_id].record_id, it.step)
            for it in run.model_outputs
            if it.model_id in place.models
        ]
        if made:
            self._theirs.runs.log_outputs(their_id, made)

    def _log_points(
        self,
        run: Run,
        their_id: RunId,
        models: Sequence[LoggedModel],
        place: Place,
        *,
        is_new: bool,
    ) -> None:
        owners = {
            (point.key, rules.point_key(point)): place.models[model.model_id].record_id
            for model in models
            for point in model.metrics
        }
        for key in run.metrics:
            known: set[PointId] = set()
            if not is_new:
                history = self._theirs.runs.metric_history(their_id, key)
                known = {(key, rules.point_key(point)) for point in history}
            for page in _histories(self._ours, run, key):
                new = list(_missing(page, known, owners))
                self._theirs.runs.log_batch(their_id, metrics=new)
                self._tally.count("metric point", new=len(new), there=len(page) - len(new))

    def _export_other_models(self, experiment: Experiment, place: Place) -> None:
        """Copy the logged models that no run of the experiment has brought along."""
        for model in self._models_in(experiment):
            if not place.keeps_models:
                self._tally.refuse("logged model", model.model_id, NO_LOGGED_MODELS)
            elif model.model_id not in place.models:
                try:
                    self._export_model(model, place)
                except StoreUnavailableError:
                    raise
                except SparkscoreError as exc:
                    self._tally.refuse("logged model", model.model_id, str(exc))

    def _export_model(self, model: LoggedModel, place: Place) -> None:
        known = place.models.get(model.model_id)
        self._count("logged model", model.model_id, place, is_new=known is None)
        if known is not None and known.is_ended:
            return
        models = self._theirs.logged_models
        if known is None:
            of_run = place.runs.get(model.source_run_id)
            tags = {key: text for key, text in model.tags.items() if key != _VERSIONS_TAG}
            made = models.create_logged_model(
                place.experiment.experiment_id,
                model_id=model.model_id,
                name=model.name,
                model_type=model.model_type,
                source_run_id="" if of_run is None else of_run.record_id,
                tags={**tags, ORIGIN_TAG: model.model_id},
            )
            known = place.models[model.model_id] = _copied_model(made)
        params = list(model.params.items())
        for start in range(0, len(params), _N_PARAMS):
            some = dict(params[start : start + _N_PARAMS])
            models.log_logged_model_params(known.record_id, some)
        self._copy_files(model.artifact_uri, known.artifact_uri)
        if model.status is not LoggedModelStatus.PENDING:
            models.finish_logged_model(known.record_id, model.status)
            place.models[model.model_id] = replace(known, is_ended=True)

    def _count(self, kind: str, record_id: str, place: Place, *, is_new: bool) -> None:
        if record_id not in place.seen:
            place.seen.add(record_id)
            self._tally.count(kind, new=is_new, there=not is_new)

    def _models_in(self, experiment: Experiment) -> Iterator[LoggedModel]:
        return every(
            lambda query: self._ours.logged_models.search_logged_models(
                [experiment.experiment_id], query
            )
        )

    def _copy_files(self, uri: str, to: str) -> None:
        moved = copy_files(self._ours.artifacts_at(uri), self._theirs.artifacts_at(to), "")
        self._tally.count("file", new=moved.n_files)
        self._tally.count("byte", new=moved.n_bytes)


def _copied_run(run: Run) -> Copied:
    is_ended = run.status not in (RunStatus.RUNNING, RunStatus.SCHEDULED)
    is_deleted = run.lifecycle_stage is LifecycleStage.DELETED
    return Copied(run.run_id, run.artifact_uri, is_ended or is_deleted)


def _copied_model(model: LoggedModel) -> Copied:
    is_ended = model.status is not LoggedModelStatus.PENDING
    return Copied(model.model_id, model.artifact_uri, is_ended)


def _tags(run: Run, place: Place) -> dict[str, str]:
    """The run's tags, with ids as the server has them; its name the server knows."""
    tags = {key: text for key, text in run.tags.items() if key != rules.RUN_NAME_TAG}
    parent = place.runs.get(tags.get(_PARENT_TAG, ""))
    if parent is not None:
        tags[_PARENT_TAG] = parent.record_id
    if _HISTORY_TAG in tags:
        their_id = place.runs[run.run_id].record_id if run.run_id in place.runs else run.run_id
        tags[_HISTORY_TAG] = tags[_HISTORY_TAG].replace(run.run_id, their_id)
    return tags


def _histories(ours: Stores, run: Run, key: str) -> Iterator[Sequence[Metric]]:
    token: str | None = None
    while True:
        page = ours.runs.metric_history_page(
            RunId(run.run_id), key, limit=_POINTS_PAGE, token=token
        )
        yield page.items
        token = page.next_token
        if token is None:
            return


def _missing(
    points: Sequence[Metric], known: set[PointId], owners: Mapping[PointId, str]
) -> Iterator[Metric]:
    """The points that the server lacks, each of the logged model that it is of there."""
    for point in points:
        point_id = (point.key, rules.point_key(point))
        if point_id not in known:
            yield replace(point, model_id=owners.get(point_id, ""))


def every(search: Callable[[Query], Page[_Item]], view: View = View.ACTIVE_ONLY) -> Iterator[_Item]:
    """All that a search finds, page by page."""
    page = search(Query(view=view, limit=_PAGE))
    yield from page.items
    while page.next_token is not None:
        page = search(Query(view=view, limit=_PAGE, token=page.next_token))
        yield from page.items
