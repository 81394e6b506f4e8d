"""Registered models to a server of MLflow's, or of ours, with the numbers of their versions."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from sparkscore.errors import RecordNotFoundError, SparkscoreError, StoreUnavailableError
from sparkscore.moving.exporting import ORIGIN_TAG, Copied, RunExporter, Stores
from sparkscore.moving.files import copy_files, path_below
from sparkscore.moving.tally import Tally
from sparkscore.names import AliasName, ModelName, RunId
from sparkscore.records import ModelVersion, RegisteredModel, RunStatus, Stage, VersionStatus
from sparkscore.stores import rules

OTHER_NUMBER = "the server has versions of its own under that number"
_PLACEHOLDER = "a number that is left free"
_FOLDER = "model"


class ModelExporter:
    """Copies registered models with versions, aliases, stages and packages; safe to call again."""

    def __init__(self, ours: Stores, theirs: Stores, runs: RunExporter, tally: Tally) -> None:
        self._ours = ours
        self._theirs = theirs
        self._runs = runs
        self._tally = tally

    def export(self, model: RegisteredModel) -> None:
        """Copy a model with all its versions.

        Raises:
            StoreUnavailableError: The server or a store here did not answer.
        """
        name, models = ModelName(model.name), self._theirs.models
        there = self._their_model(model)
        versions = sorted(self._ours.models.list_versions(name), key=lambda it: it.version)
        known = {it.tags.get(ORIGIN_TAG): it for it in models.list_versions(name)}
        copies: dict[int, int] = {}
        for version in versions:
            try:
                copy = self._export_version(version, known.get(_origin(version)))
                copies[version.version] = copy
            except StoreUnavailableError:
                raise
            except SparkscoreError as exc:
                self._tally.refuse("model version", _named(version), str(exc))
        for version in models.list_versions(name):
            if version.tags.get(ORIGIN_TAG) == _PLACEHOLDER:
                models.delete_version(name, version.version)
        for alias, number in model.aliases.items():
            if number in copies and there.aliases.get(alias) != copies[number]:
                models.set_alias(name, AliasName(alias), copies[number])

    def _their_model(self, model: RegisteredModel) -> RegisteredModel:
        name, models = ModelName(model.name), self._theirs.models
        found: RegisteredModel | None = None
        with suppress(RecordNotFoundError):
            found = models.get_model(name)
        self._tally.count("registered model", new=found is None, there=found is not None)
        if found is None:
            return models.create_model(name, model.description, model.tags)
        models.set_model_tags(name, {k: v for k, v in model.tags.items() if k not in found.tags})
        return found

    def _export_version(self, version: ModelVersion, known: ModelVersion | None) -> int:
        """Copy a version; its number on the server."""
        name, models = ModelName(version.name), self._theirs.models
        self._tally.count("model version", new=known is None, there=known is not None)
        if known is None:
            source, run_id, model_id = self._source_there(version)
            self._fill_numbers(name, version, (source, run_id, model_id))
            known = models.create_version(
                name,
                source=source,
                run_id=run_id,
                description=version.description,
                tags={**version.tags, ORIGIN_TAG: _origin(version)},
                run_link=version.run_link,
                model_id=model_id,
                user_id=version.user_id,
            )
            if known.version != version.version:
                told = f"{_named(version)} is {known.version} there"
                self._tally.refuse("version number", told, OTHER_NUMBER)
        ends = version.status is not VersionStatus.PENDING_REGISTRATION
        if known.status is VersionStatus.PENDING_REGISTRATION and ends:
            models.finish_version(
                name,
                known.version,
                version.status,
                digest=version.digest,
                message=version.status_message,
            )
        if version.stage is not known.stage and version.stage is not Stage.NONE:
            models.move_version(name, known.version, version.stage, archive_others=False)
        return known.version

    def _fill_numbers(
        self, name: ModelName, version: ModelVersion, place: tuple[str, str, str]
    ) -> None:
        """Take the numbers before a version's, since servers count by themselves.

        Those whose versions are gone here are given free when all versions are there.
        """
        models, (source, run_id, model_id) = self._theirs.models, place
        highest = max((it.version for it in models.list_versions(name)), default=0)
        while highest < version.version - 1:
            tags = {ORIGIN_TAG: _PLACEHOLDER}
            highest = models.create_version(
                name, source=source, run_id=run_id, model_id=model_id, tags=tags
            ).version

    def _source_there(self, version: ModelVersion) -> tuple[str, str, str]:
        """Where the package is on the server: source, run and logged model."""
        model = self._runs.export_model(version.model_id) if version.model_id else None
        if model is not None:
            rest = version.source.removeprefix(f"models:/{version.model_id}").strip("/")
            if version.source.startswith(f"models:/{version.model_id}"):
                source = f"models:/{model.record_id}/{rest}".rstrip("/")
                return source, self._run_there(version.run_id), model.record_id
        run = self._runs.export_run(version.run_id) if version.run_id else None
        if run is not None:
            ours = self._ours.runs.get_run(RunId(version.run_id))
            below = path_below(version.source, ours.artifact_uri)
            if below is not None:
                return f"{run.artifact_uri}/{below}".rstrip("/"), run.record_id, ""
        owner = run or self._run_for(version)
        place = f"{_FOLDER}s/{version.name}/{version.version}"
        files = self._ours.artifacts_at(version.source)
        moved = copy_files(files, self._theirs.artifacts_at(owner.artifact_uri), place)
        self._tally.count("file", new=moved.n_files)
        self._tally.count("byte", new=moved.n_bytes)
        return f"{owner.artifact_uri}/{place}", owner.record_id, ""

    def _run_there(self, run_id: str) -> str:
        run = self._runs.export_run(run_id) if run_id else None
        return "" if run is None else run.record_id

    def _run_for(self, version: ModelVersion) -> Copied:
        """A run on the server that holds the package of a version without one."""
        origin = _origin(version)
        chosen = RunId(hashlib.sha256(origin.encode()).hexdigest()[:32])
        made = self._theirs.runs.create_run(
            rules.DEFAULT_EXPERIMENT_ID,
            run_id=chosen,
            run_name=f"{version.name} version {version.version}",
            user_id=version.user_id,
            start_time_ms=version.creation_time_ms,
            tags={ORIGIN_TAG: origin},
        )
        if made.status is RunStatus.RUNNING:
            self._theirs.runs.update_run(
                RunId(made.run_id), RunStatus.FINISHED, version.creation_time_ms
            )
        return Copied(made.run_id, made.artifact_uri, is_ended=True)


def _named(version: ModelVersion) -> str:
    return f"{version.name}/{version.version}"


def _origin(version: ModelVersion) -> str:
    """What tells a version from those of that number in other stores."""
    return f"{_named(version)} of {version.creation_time_ms}"
