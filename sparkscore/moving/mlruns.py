"""MLflow's `mlruns` folders, read as they lie: a file a value, and a `meta.yaml` a record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sparkscore.errors import RecordNotFoundError, shown
from sparkscore.moving.files import local_path
from sparkscore.records import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    Metric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
    Run,
)
from sparkscore.stores import mlflow_values as values
from sparkscore.stores.copies_base import ModelCopy, Refuse, RunPoint

_META = "meta.yaml"
_TRASH = ".trash"
_REGISTRY = "models"
_NO_RUNS = ("tags", "datasets", "traces", "models")
_VERSION = "version-"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Eight times as fast, where it is built.
# Fields of a line: time, value and step; older lines have no step, and some are of a dataset.
_N_BARE, _N_PLAIN, _N_OF_MODEL = 2, 3, 4

Meta = Mapping[str, Any]


class MlrunsFolder:
    """A folder that MLflow's file store wrote; a registry lies in its folder `models`.

    Raises:
        RecordNotFoundError: It is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        if not any(self._experiment_folders()) and not (self._root / _REGISTRY).is_dir():
            raise RecordNotFoundError(
                f"{str(self._root)!r} holds no experiment of MLflow's (NUMBER/{_META}) and no "
                f"registry ({_REGISTRY}/): name the folder that MLflow calls mlruns"
            )
        self._folders: dict[str, Path] = {}
        self._former_roots: set[str] = set()

    def experiments(self, refuse: Refuse) -> Iterator[Experiment]:
        """See RecordSource."""
        for folder in self._experiment_folders():
            meta = _meta(folder, "experiment", refuse)
            if meta is None:
                continue
            experiment_id = str(meta.get("experiment_id", folder.name))
            location = str(meta.get("artifact_location") or "")
            self._folders[experiment_id] = folder
            self._remember_root(location, f"/{experiment_id}")
            stage = LifecycleStage.ACTIVE
            if folder.parent.name == _TRASH or meta.get("lifecycle_stage") == "deleted":
                stage = LifecycleStage.DELETED
            n_traces = sum(1 for _ in _folders(folder / "traces"))
            if n_traces:
                refuse("trace", f"{n_traces} of experiment {experiment_id}", values.NO_TRACES)
            yield Experiment(
                experiment_id=experiment_id,
                name=str(meta.get("name", "")),
                artifact_location=location,
                lifecycle_stage=stage,
                creation_time_ms=values.whole(meta.get("creation_time")),
                last_update_time_ms=values.whole(meta.get("last_update_time")),
                tags=_texts(folder / "tags", "experiment tag", refuse),
            )

    def run_ids(self, experiment_id: str) -> Iterator[str]:
        """See RecordSource."""
        for folder in _folders(self._folders[experiment_id]):
            if folder.name not in _NO_RUNS:
                yield folder.name

    def runs(self, experiment_id: str, run_ids: Sequence[str], refuse: Refuse) -> Iterator[Run]:
        """See RecordSource."""
        for run_id in run_ids:
            meta = _meta(self._folders[experiment_id] / run_id, "run", refuse)
            if meta is None:
                continue
            try:
                yield self._run(experiment_id, run_id, meta, refuse)
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                refuse("run", run_id, f"{_META} is not a run's: {exc!r}")

    def points(self, runs: Sequence[Run], refuse: Refuse) -> Iterator[RunPoint]:
        """See RecordSource."""
        for run in runs:
            metrics = self._folders[run.experiment_id] / run.run_id / "metrics"
            for key, path in _files(metrics):
                for fields in _lines(path, f"{run.run_id}/{key}", refuse):
                    point = _point(key, fields, _N_PLAIN)
                    if point is None:
                        _refuse_line(refuse, f"{run.run_id}/{key}", fields)
                    else:
                        yield RunPoint(run.run_id, point)

    def logged_models(self, experiment_id: str, refuse: Refuse) -> Iterator[LoggedModel]:
        """See RecordSource."""
        for folder in _folders(self._folders[experiment_id] / "models"):
            meta = _meta(folder, "logged model", refuse)
            if meta is None:
                continue
            try:
                yield _logged_model(experiment_id, folder, meta, refuse)
            except (KeyError, TypeError, ValueError) as exc:
                refuse("logged model", folder.name, f"{_META} is not a logged model's: {exc!r}")

    def models(self, refuse: Refuse) -> Iterator[ModelCopy]:
        """See RecordSource."""
        for folder in _folders(self._root / _REGISTRY):
            meta = _meta(folder, "registered model", refuse)
            if meta is None:
                continue
            found = list(_versions(folder, str(meta.get("name", folder.name)), refuse))
            aliases = _texts(folder / "aliases", "alias", refuse)
            model = RegisteredModel(
                name=str(meta.get("name", folder.name)),
                creation_time_ms=values.whole(meta.get("creation_timestamp")),
                last_update_time_ms=values.whole(meta.get("last_updated_timestamp")),
                description=str(meta.get("description") or ""),
                tags=_texts(folder / "tags", "model tag", refuse),
                aliases={key: int(text) for key, text in aliases.items() if text.isdecimal()},
            )
            kept = tuple(version for _, version in found if version is not None)
            yield ModelCopy(model, kept, max((number for number, _ in found), default=0))

    def places(self, ids: Sequence[str]) -> Mapping[str, str]:
        """See RecordSource."""
        found: dict[str, str] = {}
        wanted = [("artifact_uri", Path(it)) for it in ids]
        wanted += [("artifact_location", Path("models") / it) for it in ids]
        for key, below in wanted:
            for experiment in self._folders.values():
                if (experiment / below / _META).is_file():
                    meta = _meta(experiment / below, "record", _nobody)
                    found[below.name] = str((meta or {}).get(key) or "")
        return found

    def current_place(self, uri: str) -> str:
        """See RecordSource; a folder that was moved as a whole is found where it is now."""
        path = local_path(uri)
        if path is None or Path(path).exists():
            return uri
        for former in self._former_roots:
            if path.startswith(f"{former}/"):
                return (self._root / path[len(former) + 1 :]).as_uri()
        return uri

    def _experiment_folders(self) -> Iterator[Path]:
        for parent in (self._root, self._root / _TRASH):
            for folder in _folders(parent):
                if folder.name not in (_TRASH, _REGISTRY) and (folder / _META).is_file():
                    yield folder

    def _remember_root(self, location: str, suffix: str) -> None:
        path = local_path(location)
        if path is not None and path.endswith(suffix):
            self._former_roots.add(path.removesuffix(suffix))

    def _run(self, experiment_id: str, run_id: str, meta: Meta, refuse: Refuse) -> Run:
        folder = self._folders[experiment_id] / run_id
        said = str(meta.get("run_id") or meta["run_uuid"])
        if said != run_id:
            raise ValueError(f"it says that it is of run {said!r}")
        tags = _texts(folder / "tags", "tag", refuse)
        return Run(
            run_id=run_id,
            run_name=str(meta.get("run_name") or tags.get("mlflow.runName", "")),
            experiment_id=experiment_id,
            user_id=str(meta.get("user_id") or ""),
            status=values.run_status(meta.get("status")),
            start_time_ms=values.whole(meta.get("start_time")),
            end_time_ms=values.whole_or_none(meta.get("end_time")),
            artifact_uri=str(meta.get("artifact_uri") or ""),
            lifecycle_stage=values.stage(meta.get("lifecycle_stage")),
            params=_texts(folder / "params", "param", refuse),
            tags=tags,
            datasets=tuple(self._datasets(folder, refuse)),
            model_inputs=tuple(
                str(it["source_id"])
                for it in _all_meta(folder / "inputs", refuse)
                if it.get("source_type") == "MODEL"
            ),
            model_outputs=tuple(
                ModelOutput(str(it["destination_id"]), values.whole(it.get("step")))
                for it in _all_meta(folder / "outputs", refuse)
            ),
        )

    def _datasets(self, run: Path, refuse: Refuse) -> Iterator[DatasetInput]:
        for used in _all_meta(run / "inputs", refuse):
            if used.get("source_type") != "DATASET":
                continue
            meta = _meta(run.parent / "datasets" / str(used["source_id"]), "dataset", refuse)
            if meta is not None:
                tags = {str(k): str(v) for k, v in (used.get("tags") or {}).items()}
                yield DatasetInput(values.dataset(meta), tags)


def _nobody(kind: str, name: str, why: str) -> None:
    """Told before, when the record itself was read."""


def _logged_model(experiment_id: str, folder: Path, meta: Meta, refuse: Refuse) -> LoggedModel:
    model_id = str(meta["model_id"])
    points: list[Metric] = []
    for key, path in _files(folder / "metrics"):
        for fields in _lines(path, f"{model_id}/{key}", refuse):
            point = _point(key, fields, _N_OF_MODEL)
            if point is None:
                _refuse_line(refuse, f"{model_id}/{key}", fields)
            else:
                points.append(point)
    return LoggedModel(
        model_id=model_id,
        experiment_id=experiment_id,
        name=str(meta["name"]),
        model_type=str(meta.get("model_type") or ""),
        source_run_id=str(meta.get("source_run_id") or ""),
        status=values.logged_status(meta.get("status")),
        artifact_uri=str(meta.get("artifact_location") or ""),
        creation_time_ms=values.whole(meta.get("creation_timestamp")),
        last_update_time_ms=values.whole(meta.get("last_updated_timestamp")),
        lifecycle_stage=values.stage(meta.get("lifecycle_stage")),
        status_message=str(meta.get("status_message") or ""),
        params=_texts(folder / "params", "param", refuse),
        tags=_texts(folder / "tags", "tag", refuse),
        metrics=tuple(points),
    )


def _versions(model: Path, name: str, refuse: Refuse) -> Iterator[tuple[int, ModelVersion | None]]:
    """The versions by number; None is one that was deleted, or cannot be read."""
    for folder in _folders(model):
        digits = folder.name.removeprefix(_VERSION)
        if not folder.name.startswith(_VERSION) or not digits.isdecimal():
            continue
        meta = _meta(folder, "model version", refuse)
        if meta is None:
            yield int(digits), None
            continue
        tags = _texts(folder / "tags", "version tag", refuse)
        yield int(digits), values.version(name, int(digits), meta, tags, refuse)


def _folders(parent: Path) -> Iterator[Path]:
    """The folders in a folder, by name; none where there is no folder."""
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield parent / name


def _files(parent: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The files below a folder by their keys: a key with `/` is a file in folders."""
    try:
        with os.scandir(parent) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, is_folder in found:
        if is_folder:
            yield from _files(parent / name, f"{prefix}{name}/")
        else:
            yield prefix + name, parent / name


def _texts(parent: Path, kind: str, refuse: Refuse) -> dict[str, str]:
    """What the files below a folder hold, by key."""
    texts: dict[str, str] = {}
    for key, path in _files(parent):
        try:
            texts[key] = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            refuse(kind, f"{parent.parent.name}/{key}", f"{path} cannot be read: {exc}")
    return texts


def _meta(folder: Path, kind: str, refuse: Refuse) -> Meta | None:
    """The record in a folder, or None, told to `refuse`."""
    path = folder / _META
    try:
        read: object = yaml.load(path.read_bytes(), _LOADER)  # noqa: S506 - one of the safe ones
    except FileNotFoundError:
        refuse(kind, folder.name, f"its folder has no {_META}")
        return None
    except (OSError, ValueError, yaml.YAMLError) as exc:
        refuse(kind, folder.name, f"{path} cannot be read: {shown(str(exc))}")
        return None
    if not isinstance(read, dict):
        refuse(kind, folder.name, f"{path} holds no record")
        return None
    return read


def _all_meta(parent: Path, refuse: Refuse) -> list[Meta]:
    found = (_meta(folder, parent.name, refuse) for folder in _folders(parent))
    return [meta for meta in found if meta is not None]


def _lines(path: Path, name: str, refuse: Refuse) -> Iterator[list[str]]:
    """The fields of each line of a file of metric points."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    _refuse_line(refuse, name, [line])  # It was cut off, maybe within a number.
                elif line.strip():
                    yield line.strip().split(" ")
    except (OSError, UnicodeDecodeError) as exc:
        refuse("metric point", name, f"{path} cannot be read: {exc}")


def _point(key: str, fields: list[str], n_plain: int) -> Metric | None:
    """The point that a line tells; None for one that was cut off, or is no number.

    Args:
        key: The metric's.
        fields: Time, value, step, of a model's points the run, then a dataset if there is one.
        n_plain: How many of them there are without a dataset.
    """
    if len(fields) not in (_N_BARE, n_plain) and len(fields) < n_plain + 2:
        return None
    try:
        time_ms, value = int(fields[0]), float(fields[1])
        step = int(fields[2]) if len(fields) > _N_BARE else 0
    except ValueError:
        return None
    *name, digest = fields[n_plain:] or ["", ""]
    return Metric(key, value, time_ms, step, "", " ".join(name), digest)


def _refuse_line(refuse: Refuse, name: str, fields: list[str]) -> None:
    refuse("metric point", name, f"its line {shown(' '.join(fields))} is no point")
