"""Remove for good what was deleted: records first, then their files, then what was left before.

A purge notes its files in the transaction that removes the record (`PurgeStore`). Whatever ends the
process, a record is there whole or not at all, and the next purge removes the files still noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from sparkscore.errors import (
    InvalidStateError,
    RecordNotFoundError,
    SparkscoreError,
    UsageError,
    listed,
)
from sparkscore.names import ArtifactPath, RunId, same_place
from sparkscore.records import DeletedRecord, ModelVersion, RecordKind, Removal, VersionStatus
from sparkscore.search import Query
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.stores.purges_base import PurgeStore

_PAGE = 1000
_ROOT = ArtifactPath("")
_OF_RUN = re.compile(r"runs:/+([^/]+)")
_OF_LOGGED_MODEL = re.compile(r"models:/+(m-[^/]+)")


class Fate(StrEnum):
    """What becomes of a deleted record and its files."""

    TO_BE_REMOVED = "to be removed"
    REMOVED = "removed"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(frozen=True)
class PurgedStores:
    """What a purge works on.

    Attributes:
        open_at: Opens the files at an artifact URI.
    """

    runs: RunStore
    logged_models: LoggedModelStore
    models: ModelStore
    purges: PurgeStore
    open_at: Callable[[str], ArtifactStore]


@dataclass(frozen=True)
class Selection:
    """What shall be purged of all that is deleted; without any ids, all.

    Attributes:
        before_ms: What was deleted at this time or before.
        experiment_ids: These, with all that they hold.
    """

    before_ms: int
    run_ids: tuple[str, ...] = ()
    logged_model_ids: tuple[str, ...] = ()
    experiment_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Purged:
    """What became of one record; of kind `files`, of files whose record went in an earlier purge.

    Attributes:
        n_bytes: Of its files, as is n_files.
        detail: Why it was kept, or what failed.
        error: What failed.
    """

    kind: str
    record_id: str
    experiment_id: str
    artifact_uri: str
    deletion_time_ms: int | None
    fate: Fate
    n_rows: int = 0
    n_files: int = 0
    n_bytes: int = 0
    detail: str = ""
    error: SparkscoreError | None = field(default=None, compare=False)


def purge(stores: PurgedStores, selection: Selection, *, is_dry: bool) -> list[Purged]:
    """Remove what is selected, and the files that earlier purges left.

    Files of a version that is READY, or may become so, are never removed: a record that holds such
    files stays whole. Called again after it was ended, it finishes.

    Args:
        stores: Records and files.
        selection: What.
        is_dry: Say what would be done, and change nothing.

    Raises:
        UsageError: An id names nothing that is deleted.
        StoreUnavailableError: The records cannot be read or changed; what was noted stays so.
    """
    chosen = _chosen(stores.purges.list_deleted(selection.before_ms), selection)
    held = HeldFiles.of(stores)
    lines: list[Purged] = []
    blocked: dict[str, str] = {}
    for record in chosen:
        line = _looked_at(stores, held, blocked, record)
        if line.fate is Fate.TO_BE_REMOVED and not is_dry:
            line = _without_record(stores, line)
        if line.fate in (Fate.KEPT, Fate.FAILED):
            blocked.setdefault(line.experiment_id, f"{line.kind} {line.record_id} stays")
        lines.append(line)
    if is_dry:
        return lines + [_left(stores, held, removal) for removal in stores.purges.list_removals()]
    # Asked again: what was registered meanwhile keeps its files, and the record that a further
    # version would have to name is gone.
    held = HeldFiles.of(stores)
    noted = {removal.artifact_uri: removal for removal in stores.purges.list_removals()}
    lines = [
        _without_files(stores, held, line, noted.pop(line.artifact_uri, None)) for line in lines
    ]
    left = [(_left(stores, held, removal), removal) for removal in noted.values()]
    return lines + [_without_files(stores, held, *pair) for pair in left]


class HeldFiles:
    """The files of versions that are READY or may become so.

    Args:
        runs: The version of each run that a source names by its id.
        logged_models: The version of each such logged model.
        places: The version at each URI.
    """

    def __init__(
        self, runs: Mapping[str, str], logged_models: Mapping[str, str], places: Mapping[str, str]
    ) -> None:
        self._runs = runs
        self._logged_models = logged_models
        self._places = places
        self._above = {folder: held for uri, held in places.items() for folder in _folders(uri)}

    @classmethod
    def of(cls, stores: PurgedStores) -> Self:
        """Those of all versions that there are now."""
        runs: dict[str, str] = {}
        logged_models: dict[str, str] = {}
        places: dict[str, str] = {}
        for version in _versions(stores.models):
            if version.status is VersionStatus.FAILED_REGISTRATION:
                continue
            told = f"version {version.version} of model {version.name!r} has files there"
            of_run = _OF_RUN.match(version.source)
            logged = _OF_LOGGED_MODEL.match(version.source)
            if version.model_id:
                logged_models[version.model_id] = told
            if of_run is not None:
                runs[of_run[1]] = told
            elif logged is not None:
                logged_models[logged[1]] = told
            else:
                places[_canonical(stores, version.source)] = told
        return cls(runs, logged_models, places)

    def holder(self, stores: PurgedStores, record: DeletedRecord) -> str | None:
        """The version that holds files of a record, told; None: there is none."""
        if record.kind is RecordKind.EXPERIMENT:
            return None
        if record.kind is RecordKind.RUN:
            found = self._runs.get(record.record_id)
        else:
            found = self._logged_models.get(record.record_id) or self._runs.get(
                # Clients of 3.x name a model by its run, and keep its files elsewhere.
                _source_run(stores, record.record_id)
            )
        return found or self.holder_of_place(stores, record.record_id, record.artifact_uri)

    def holder_of_place(self, stores: PurgedStores, record_id: str, uri: str) -> str | None:
        """The version with files at a place or below it, or whose files it is among, told."""
        place = _canonical(stores, _folder(record_id, uri))
        if place in self._above:
            return self._above[place]
        return next(
            (self._places[it] for it in (place, *_folders(place)) if it in self._places), None
        )


def _chosen(deleted: Sequence[DeletedRecord], selection: Selection) -> list[DeletedRecord]:
    asked = {
        RecordKind.RUN: set(selection.run_ids),
        RecordKind.LOGGED_MODEL: set(selection.logged_model_ids),
        RecordKind.EXPERIMENT: set(selection.experiment_ids),
    }
    for kind, ids in asked.items():
        missing = ids - {it.record_id for it in deleted if it.kind is kind}
        if missing:
            raise UsageError(
                f"no deleted {kind} has the id {listed(sorted(missing))}: it is in use, was "
                "deleted later than --older-than says, or is gone; see `sparkscore gc --dry-run`"
            )
    if not any(asked.values()):
        return list(deleted)
    return [
        it
        for it in deleted
        if it.record_id in asked[it.kind] or it.experiment_id in asked[RecordKind.EXPERIMENT]
    ]


def _looked_at(
    stores: PurgedStores, held: HeldFiles, blocked: Mapping[str, str], record: DeletedRecord
) -> Purged:
    line = Purged(
        kind=record.kind,
        record_id=record.record_id,
        experiment_id=record.experiment_id,
        artifact_uri=record.artifact_uri,
        deletion_time_ms=record.deletion_time_ms,
        fate=Fate.TO_BE_REMOVED,
        n_rows=record.n_rows,
    )
    if record.kind is RecordKind.EXPERIMENT:
        why = blocked.get(record.record_id)
        return line if why is None else replace(line, fate=Fate.KEPT, detail=why)
    return _measured(stores, line, lambda: held.holder(stores, record))


def _left(stores: PurgedStores, held: HeldFiles, removal: Removal) -> Purged:
    """Files that an earlier purge noted."""
    uri = removal.artifact_uri
    line = Purged("files", removal.record_id, "", uri, None, Fate.TO_BE_REMOVED)
    return _measured(stores, line, lambda: held.holder_of_place(stores, removal.record_id, uri))


def _measured(stores: PurgedStores, line: Purged, holder: Callable[[], str | None]) -> Purged:
    """The line with the size of its files, kept if a version holds them."""
    try:
        why = holder()
        sizes = list(_sizes(_files(stores, line.record_id, line.artifact_uri), _ROOT))
    except SparkscoreError as exc:  # Files that cannot be read are no reason to stop for others.
        return replace(line, fate=Fate.FAILED, detail=str(exc), error=exc)
    line = replace(line, n_files=len(sizes), n_bytes=sum(sizes))
    return line if why is None else replace(line, fate=Fate.KEPT, detail=why)


def _without_record(stores: PurgedStores, line: Purged) -> Purged:
    try:
        if line.kind == RecordKind.RUN:
            stores.runs.purge_run(RunId(line.record_id))
        elif line.kind == RecordKind.LOGGED_MODEL:
            stores.logged_models.purge_logged_model(line.record_id)
        else:
            stores.runs.purge_experiment(line.record_id)
    except RecordNotFoundError:
        pass  # Another purge was quicker.
    except InvalidStateError:
        return replace(line, fate=Fate.KEPT, detail="it was restored meanwhile")
    return replace(line, fate=Fate.REMOVED) if line.kind == RecordKind.EXPERIMENT else line


def _without_files(
    stores: PurgedStores, held: HeldFiles, line: Purged, removal: Removal | None
) -> Purged:
    if line.fate is not Fate.TO_BE_REMOVED:
        return line
    if removal is not None:
        try:
            why = held.holder_of_place(stores, removal.record_id, removal.artifact_uri)
            if why is not None:
                return replace(line, fate=Fate.KEPT, detail=why)
            _files(stores, removal.record_id, removal.artifact_uri).delete(_ROOT)
        except SparkscoreError as exc:  # They stay noted for the next purge.
            return replace(line, fate=Fate.FAILED, detail=str(exc), error=exc)
        stores.purges.forget_removal(removal.removal_id)
    return replace(line, fate=Fate.REMOVED)


def _files(stores: PurgedStores, record_id: str, uri: str) -> ArtifactStore:
    return stores.open_at(_folder(record_id, uri))


def _folder(record_id: str, uri: str) -> str:
    """The folder that is the record's own: `.../RECORD_ID/artifacts` lies in one of its name."""
    above = uri.rstrip("/").removesuffix("/artifacts")
    return above if above.endswith(f"/{record_id}") else uri


def _sizes(store: ArtifactStore, folder: ArtifactPath) -> Iterator[int]:
    for info in store.list(folder):
        if info.is_folder:
            yield from _sizes(store, ArtifactPath(info.path))
        else:
            yield info.n_bytes or 0


def _source_run(stores: PurgedStores, model_id: str) -> str:
    try:
        return stores.logged_models.get_logged_model(model_id, allow_deleted=True).source_run_id
    except RecordNotFoundError:
        return ""  # Another purge was quicker.


def _versions(models: ModelStore) -> Iterator[ModelVersion]:
    token: str | None = None
    while True:
        page = models.search_versions(Query(None, limit=_PAGE, token=token))
        yield from page.items
        token = page.next_token
        if token is None:
            return


def _canonical(stores: PurgedStores, uri: str) -> str:
    """One text for the ways to name a place; what opens nothing here is left as it is."""
    with suppress(SparkscoreError):
        uri = stores.open_at(uri).root_uri
    return same_place(uri).rstrip("/")


def _folders(uri: str) -> Iterator[str]:
    """The folders that a place lies in, the innermost first."""
    top = len(uri) - len(urlsplit(uri).path)
    while (end := uri.rfind("/")) > top:
        uri = uri[:end]
        yield uri
