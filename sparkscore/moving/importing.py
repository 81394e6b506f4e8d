"""A store of MLflow's, copied into ours: records as they are, then their files with digests.

What is complete is not looked at again, so that a copy that was broken off goes on where it was.
A run's end is written last; one that has not ended is copied anew, and none of its points twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from sparkscore.errors import InvalidNameError, SparkscoreError, StoreUnavailableError
from sparkscore.moving.checked import (
    kept_experiment,
    kept_logged_model,
    kept_model,
    kept_points,
    kept_run,
    kept_version,
)
from sparkscore.moving.files import copy_files, local_path, package_digest, path_below
from sparkscore.moving.tally import Tally
from sparkscore.names import ModelName
from sparkscore.records import (
    Experiment,
    LifecycleStage,
    LoggedModel,
    ModelVersion,
    Run,
    RunStatus,
    VersionStatus,
)
from sparkscore.registry import folder_of
from sparkscore.stores import mlflow_values
from sparkscore.stores.base import ArtifactStore
from sparkscore.stores.copies_base import CopyStore, KnownCopy, ModelCopy, RecordSource, RunPoint
from sparkscore.stores.transfers import for_each

ARTIFACT_ROOT = "mlflow-artifacts:"
"""Names our place of files, whether it is reached by a server or by itself."""

OTHER_ID = "its id is taken here or is none of ours, or its name is here under another"
BY_DESIGN = (*mlflow_values.LEFT_OUT_BY_DESIGN, OTHER_ID)
"""Reasons that need nobody's hand."""

_Item = TypeVar("_Item")

_N_TOLD = 10_000


@dataclass(frozen=True)
class Importer:
    """Copies one source.

    Attributes:
        source: Where records come from.
        records: Takes experiments, runs and logged models.
        registry: Takes registered models.
        artifacts: Takes files; None leaves them where they are.
        open_at: Opens the place of files by its URI.
        moved: A beginning of URIs in the source, and where that is now.
        announce: Told now and then how far it is.
        tally: Counts.
        n_runs: How many are looked for at once.
        max_points: How many metric points a transaction takes, and memory holds.
    """

    source: RecordSource
    records: CopyStore
    registry: CopyStore
    artifacts: ArtifactStore | None
    open_at: Callable[[str], ArtifactStore]
    moved: Mapping[str, str]
    announce: Callable[[str], None]
    tally: Tally
    n_runs: int = 1000
    max_points: int = 50_000

    def run(self) -> None:
        """Copy all.

        Raises:
            StoreUnavailableError: The source or our database did not answer; what came over stays.
        """
        for found in self.source.experiments(self.tally.refuse):
            experiment = kept_experiment(found, self.tally.refuse)
            if experiment is None:
                continue
            ours, is_new = self.records.put_experiment(experiment, ARTIFACT_ROOT)
            self.tally.count("experiment", new=is_new, there=not is_new)
            if ours.experiment_id != found.experiment_id:
                ids = f"{found.experiment_id} is {ours.experiment_id} here"
                self.tally.refuse("experiment id", ids, OTHER_ID)
            self._copy_logged_models(found, ours)
            self._copy_runs(found, ours)
        for copy in self.source.models(self.tally.refuse):
            self._copy_model(copy)

    def _copy_runs(self, theirs: Experiment, ours: Experiment) -> None:
        for ids in _sliced(self.source.run_ids(theirs.experiment_id), self.n_runs):
            known = self.records.known_runs(ids)
            wanted = [it for it in ids if not self._is_here(known.get(it))]
            found = self.source.runs(theirs.experiment_id, wanted, self.tally.refuse)
            runs = [run for it in found if (run := kept_run(it, self.tally.refuse))]

            def place(run: Run) -> tuple[str, str]:
                return run.artifact_uri, f"{ours.experiment_id}/{run.run_id}/artifacts"

            uris = self._copied({run.run_id: place(run) for run in runs}, "run")
            runs = [run for run in runs if run.run_id in uris]
            self._put_runs(
                [
                    replace(run, experiment_id=ours.experiment_id, artifact_uri=uris[run.run_id])
                    for run in runs
                ],
                self.source.points(runs, self.tally.refuse),
            )
            n_new = sum(run.run_id not in known for run in runs)
            self.tally.count("run", new=n_new, there=len(known))
            self._tell(n_new)

    def _put_runs(self, runs: Sequence[Run], points: Iterable[RunPoint]) -> None:
        """Put runs, some at once; one whose points are not all there yet has not ended."""
        waiting = {run.run_id: run for run in runs}
        done: list[Run] = []
        batch: list[RunPoint] = []
        current = ""
        for it in kept_points(points, self.tally.refuse):
            if it.run_id != current:
                if current:
                    done.append(waiting.pop(current))
                current = it.run_id
            batch.append(it)
            if len(batch) >= self.max_points:
                open_run = replace(
                    waiting[current],
                    status=RunStatus.RUNNING,
                    end_time_ms=None,
                    lifecycle_stage=LifecycleStage.ACTIVE,
                )
                n_new = self.records.put_runs([*done, open_run], batch)
                self.tally.count("metric point", new=n_new)
                done, batch = [], []
        rest = [*done, *waiting.values()]
        if rest:
            self.tally.count("metric point", new=self.records.put_runs(rest, batch))

    def _copy_logged_models(self, theirs: Experiment, ours: Experiment) -> None:
        found = self.source.logged_models(theirs.experiment_id, self.tally.refuse)
        for slice_ in _sliced(found, self.n_runs):
            known = self.records.known_logged_models([it.model_id for it in slice_])
            wanted = [it for it in slice_ if not self._is_here(known.get(it.model_id))]
            models = [it for one in wanted if (it := kept_logged_model(one, self.tally.refuse))]

            def place(model: LoggedModel) -> tuple[str, str]:
                return model.artifact_uri, f"{ours.experiment_id}/models/{model.model_id}/artifacts"

            uris = self._copied({it.model_id: place(it) for it in models}, "logged model")
            moved = [
                replace(it, experiment_id=ours.experiment_id, artifact_uri=uris[it.model_id])
                for it in models
                if it.model_id in uris
            ]
            self.records.put_logged_models(moved)
            n_new = sum(it.model_id not in known for it in moved)
            self.tally.count("logged model", new=n_new, there=len(known))

    def _copy_model(self, copy: ModelCopy) -> None:
        refuse, name = self.tally.refuse, copy.model.name
        if copy.model.tags.get(mlflow_values.PROMPT_TAG) == "true":
            refuse("registered model", name, mlflow_values.NO_PROMPTS)
            return
        model = kept_model(copy.model, refuse)
        if model is None:
            return
        known = self.registry.known_versions(name)
        new: list[ModelVersion] = []
        owners = self._owners(copy.versions)
        for version in copy.versions:
            made_ms = known.get(version.version)
            if made_ms == version.creation_time_ms:
                self.tally.count("model version", there=1)
            elif made_ms is not None:
                why = "this registry has another version of that number: copy into an empty one"
                refuse("model version", f"{name}/{version.version}", why)
            else:
                kept = kept_version(version, refuse)
                moved = None if kept is None else self._moved_version(kept, owners)
                new += [] if moved is None else [moved]
        is_new = self.registry.put_model(ModelCopy(model, tuple(new), copy.last_version))
        self.tally.count("registered model", new=is_new, there=not is_new)
        self.tally.count("model version", new=len(new))

    def _owners(self, versions: Sequence[ModelVersion]) -> Mapping[str, tuple[str, str]]:
        """Where files of runs and logged models of versions lay, and lie now, by id."""
        ids = sorted({owner for version in versions for owner in _owners_of(version)})
        theirs = self.source.places(ids)
        ours = {**self.records.known_runs(ids), **self.records.known_logged_models(ids)}
        return {it: (theirs.get(it, ""), ours[it].artifact_uri) for it in ours}

    def _moved_version(
        self, version: ModelVersion, owners: Mapping[str, tuple[str, str]]
    ) -> ModelVersion | None:
        """The version with the place of its files here and the digest of its package."""
        if self.artifacts is None:
            return version
        try:
            uri = _place_of_owner(version, owners)
            if uri is None:
                place = f"{folder_of(ModelName(version.name))}/imported-{version.version}"
                self._copy(version.source, place, self.artifacts)
                uri = f"{ARTIFACT_ROOT}/{place}"
            digest = ""
            if version.status is VersionStatus.READY:
                digest = package_digest(self.artifacts, _place(uri))
        except SparkscoreError as exc:
            name = f"{version.name}/{version.version}"
            self._refuse_files("model version", name, version.source, exc)
            return None
        source = version.source if version.source.startswith("models:/") else uri
        return replace(version, source=source, digest=digest)

    def _is_here(self, known: KnownCopy | None) -> bool:
        if known is None or not known.is_ended:
            return False
        return self.artifacts is None or known.artifact_uri.startswith(f"{ARTIFACT_ROOT}/")

    def _copied(self, places: Mapping[str, tuple[str, str]], kind: str) -> Mapping[str, str]:
        """Where the files of each record lie from now on, of those whose files were copied."""
        artifacts = self.artifacts
        if artifacts is None:
            return {record: uri for record, (uri, _) in places.items()}
        uris: dict[str, str] = {}

        def copy(record: str) -> None:
            uri, place = places[record]
            try:
                self._copy(uri, place, artifacts)
                uris[record] = f"{ARTIFACT_ROOT}/{place}"
            except SparkscoreError as exc:
                self._refuse_files(kind, record, uri, exc)

        if places:
            for_each(copy, list(places))
        return uris

    def _refuse_files(self, kind: str, name: str, uri: str, error: SparkscoreError) -> None:
        """Go on without a record whose files cannot be copied, unless all others wait too.

        Raises:
            StoreUnavailableError: A store of another machine did not answer.
        """
        if isinstance(error, StoreUnavailableError) and local_path(self._current(uri)) is None:
            raise error
        self.tally.refuse(kind, name, f"its files were not copied: {error}")

    def _current(self, uri: str) -> str:
        """Where files are now that the source says are at `uri`."""
        for former, now in self.moved.items():
            below = path_below(uri, former)
            if below is not None:
                return f"{now.rstrip('/')}/{below}".rstrip("/")
        return self.source.current_place(uri)

    def _copy(self, uri: str, place: str, artifacts: ArtifactStore) -> None:
        if not uri:  # The folder of this process, it would be.
            raise InvalidNameError("the record names no place")
        uri = self._current(uri)
        if uri.startswith(("mlflow-artifacts:", "runs:", "models:")):
            raise InvalidNameError(
                f"a server of MLflow keeps them below {uri.partition(':')[0]}:/ ; say where that "
                "is on this machine or in a bucket, by --artifacts-at mlflow-artifacts:/=PLACE"
            )
        moved = copy_files(self.open_at(uri), artifacts, place)
        self.tally.count("file", new=moved.n_files)
        self.tally.count("byte", new=moved.n_bytes)

    def _tell(self, n_runs: int) -> None:
        before = self.tally.new["run"] - n_runs
        if before // _N_TOLD != self.tally.new["run"] // _N_TOLD:
            self.announce(f"{self.tally.new['run']:,} runs are here")


def _place_of_owner(version: ModelVersion, owners: Mapping[str, tuple[str, str]]) -> str | None:
    """Where a version's files are now as those of its run or logged model; None: by themselves.

    Raises:
        InvalidNameError: They are, but were left where they are.
    """
    for owner in _owners_of(version):
        theirs, ours = owners.get(owner, ("", ""))
        for root in filter(None, (theirs, f"runs:/{owner}", f"models:/{owner}")):
            below = path_below(version.source, root)
            if ours and below is not None:
                if not ours.startswith(f"{ARTIFACT_ROOT}/"):
                    raise InvalidNameError(f"those of {owner} were left where they are")
                return f"{ours}/{below}".rstrip("/")
    return None


def _owners_of(version: ModelVersion) -> list[str]:
    """Runs and logged models that a version says it is of."""
    scheme, _, rest = version.source.partition(":/")
    named = rest.strip("/").partition("/")[0] if scheme in ("runs", "models") else ""
    return [it for it in (named, version.model_id, version.run_id) if it]


def _place(uri: str) -> str:
    return uri.removeprefix(f"{ARTIFACT_ROOT}/")


def _sliced(items: Iterable[_Item], n: int) -> Iterator[list[_Item]]:
    waiting = iter(items)
    while part := list(islice(waiting, n)):
        yield part
