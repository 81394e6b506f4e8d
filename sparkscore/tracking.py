"""Start a run, log to it, end it: the record of one execution, whatever store keeps it."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from sparkscore.artifact_forms import (
    appended,
    mapping_text,
    save_figure,
    save_image,
    table_record,
)
from sparkscore.errors import (
    RecordNotFoundError,
    SparkscoreError,
    SparkStoppedError,
    UsageError,
    is_interrupt,
    shown,
)
from sparkscore.log_queue import BACKGROUND, LogCall
from sparkscore.names import (
    ArtifactPath,
    RunId,
    parse_artifact_path,
    parse_experiment_name,
    parse_run_id,
)
from sparkscore.records import DatasetInput, Metric, ModelOutput, Run, RunStatus
from sparkscore.stores.base import ArtifactStore, Clock, RunStore, system_clock
from sparkscore.stores.experiments import find_or_create_experiment

if TYPE_CHECKING:
    from sparkscore.package.layout import Package

# What one call of MLflow's REST API takes at most.
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_TAGS = 100
_N_NAME_CHARS = 6
# Where clients of MLflow 2 find a run's models.
_MODELS_TAG = "mlflow.log-model.history"
_MAX_MODELS_IN_TAG = 20
# What an error has the id under of the run that it ended.
_RUN_OF_ERROR = "_sparkscore_run_id"

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class RunOrigin:
    """Who and what started a run; kept as MLflow's system tags, empty ones left out."""

    user: str = ""
    source_name: str = ""
    source_type: str = "JOB"
    git_commit: str = ""

    def as_tags(self) -> dict[str, str]:
        """The tags that MLflow's page and clients look for."""
        tags = {
            "mlflow.user": self.user,
            "mlflow.source.name": self.source_name,
            "mlflow.source.type": self.source_type,
            "mlflow.source.git.commit": self.git_commit,
        }
        return {key: value for key, value in tags.items() if value}


class Tracking:
    """Starts runs in one store.

    Args:
        runs: Where runs are kept.
        artifacts: Opens the place for a run's files.
        clock: Milliseconds since the epoch.
        new_id: Makes run ids; each must be new.
    """

    def __init__(
        self,
        runs: RunStore,
        artifacts: Callable[[Run], ArtifactStore],
        clock: Clock = system_clock,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._runs = runs
        self._artifacts = artifacts
        self._clock = clock
        self._new_id = new_id

    def start_run(
        self,
        name: str,
        experiment: str = "Default",
        *,
        experiment_id: str | None = None,
        origin: RunOrigin | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> ActiveRun:
        """A new RUNNING run, to be used in a `with` block, which ends it.

        Args:
            name: What the run is called; the start of its id is added, to tell reruns apart.
            experiment: Its experiment, created if there is none of this name.
            experiment_id: In the place of a name; there must be such an experiment.
            origin: Who and what started the run.
            tags: Further tags; they win over the origin's.
            run_id: Chosen by the caller, else a new one. A run that exists is continued, and is
                RUNNING again if it had ended.

        Raises:
            InvalidNameError: The experiment's name, the run id or a tag's key is not usable.
            InvalidStateError: The experiment is deleted.
            RecordNotFoundError: There is no experiment of this id.
            StoreUnavailableError: The store did not answer.
        """
        origin = origin or RunOrigin()
        chosen_id = parse_run_id(self._new_id() if run_id is None else run_id)
        run_name = f"{name}-{chosen_id[:_N_NAME_CHARS]}"
        all_tags = {"mlflow.runName": run_name, **origin.as_tags(), **(tags or {})}
        first, *more = _batches(all_tags.items(), _MAX_TAGS)
        if experiment_id is None:
            home = find_or_create_experiment(self._runs, parse_experiment_name(experiment))
            experiment_id = home.experiment_id
        run = self._runs.create_run(
            experiment_id,
            run_id=chosen_id,
            run_name=run_name,
            user_id=origin.user,
            start_time_ms=self._clock(),
            tags=dict(first),
        )
        for batch in more:
            self._runs.log_batch(RunId(run.run_id), tags=dict(batch))
        if run.status is not RunStatus.RUNNING:
            run = self._runs.update_run(RunId(run.run_id), RunStatus.RUNNING, None)
        return ActiveRun(run, self._runs, self._artifacts(run), self._clock)

    def run(self, run_id: str) -> ActiveRun:
        """A run that exists, to log to; nothing of it is changed by this.

        Raises:
            InvalidNameError: The id is not usable.
            RecordNotFoundError: There is no such run.
            StoreUnavailableError: The store did not answer.
        """
        found = self._runs.get_run(parse_run_id(run_id))
        return ActiveRun(found, self._runs, self._artifacts(found), self._clock)


class ActiveRun:
    """A run that is going on; leaving its `with` block ends it.

    It ends FINISHED, FAILED on an exception, and KILLED on KeyboardInterrupt, SystemExit and
    SparkStoppedError; the exception goes on. What is logged with `synchronous=False` is sent by
    another thread, at the latest when the run ends; what the store refuses of it is raised then.
    """

    def __init__(self, run: Run, runs: RunStore, artifacts: ArtifactStore, clock: Clock) -> None:
        self._run = run
        self._runs = runs
        self._artifacts = artifacts
        self._clock = clock
        self._models: list[dict[str, object]] = json.loads(run.tags.get(_MODELS_TAG, "[]"))
        self._at_end: list[Callable[[], object]] = []
        self._has_ended = False

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return RunId(self._run.run_id)

    @property
    def run_name(self) -> str:
        """The run's name."""
        return self._run.run_name

    @property
    def experiment_id(self) -> str:
        """The id of the run's experiment."""
        return self._run.experiment_id

    @property
    def artifact_uri(self) -> str:
        """Where the run's files lie."""
        return self._run.artifact_uri

    @property
    def artifacts(self) -> ArtifactStore:
        """The run's files."""
        return self._artifacts

    @property
    def info(self) -> Run:
        """The run as it was when it was started, or ended."""
        return self._run

    def log_param(self, key: str, value: object, *, synchronous: bool = True) -> None:
        """Keep one setting of the run; see `log_params`."""
        self.log_params({key: value}, synchronous=synchronous)

    def log_params(self, params: Mapping[str, object], *, synchronous: bool = True) -> None:
        """Keep settings of the run, as text; a param never changes.

        Raises:
            InvalidStateError: A param is known with another value.
            InvalidNameError: A key is not usable.
            UsageError: A value has over 6000 characters.
        """
        for batch in _batches(params.items(), _MAX_PARAMS):
            texts = {key: str(value) for key, value in batch}
            self._send(LogCall(self._runs, self.run_id, params=texts), synchronous)

    def log_metric(
        self,
        key: str,
        value: float,
        *,
        step: int = 0,
        timestamp_ms: int | None = None,
        synchronous: bool = True,
    ) -> None:
        """Keep one measured value; see `log_metrics`."""
        self.log_metrics(
            {key: value}, step=step, timestamp_ms=timestamp_ms, synchronous=synchronous
        )

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        *,
        step: int = 0,
        timestamp_ms: int | None = None,
        synchronous: bool = True,
    ) -> None:
        """Keep values measured at one step; the time is now unless it is given.

        Raises:
            InvalidNameError: A key is not usable.
            UsageError: A value is no number, or the step no whole one.
        """
        now = self._clock() if timestamp_ms is None else timestamp_ms
        at = _whole("step", step)
        points = [Metric(key, _number(key, value), now, at) for key, value in metrics.items()]
        self.log_points(points, synchronous=synchronous)

    def log_points(self, points: Sequence[Metric], *, synchronous: bool = True) -> None:
        """Keep points of metrics, each with its own step and time, such as a whole series.

        Raises:
            InvalidNameError: A key is not usable.
        """
        for batch in _batches(points, _MAX_METRICS):
            self._send(LogCall(self._runs, self.run_id, metrics=batch), synchronous)

    def set_tag(self, key: str, value: object, *, synchronous: bool = True) -> None:
        """Add or replace one tag; see `set_tags`."""
        self.set_tags({key: value}, synchronous=synchronous)

    def set_tags(self, tags: Mapping[str, object], *, synchronous: bool = True) -> None:
        """Add or replace tags, as text.

        Raises:
            InvalidNameError: A key is not usable.
            UsageError: A value has over 8000 characters.
        """
        for batch in _batches(tags.items(), _MAX_TAGS):
            texts = {key: str(value) for key, value in batch}
            self._send(LogCall(self._runs, self.run_id, tags=texts), synchronous)

    def log_inputs(
        self, datasets: Sequence[DatasetInput] = (), model_ids: Sequence[str] = ()
    ) -> None:
        """Keep what the run used.

        Raises:
            UsageError: A text is over its limit.
        """
        self._runs.log_inputs(self.run_id, datasets=datasets, model_ids=model_ids)

    def log_outputs(self, models: Sequence[ModelOutput]) -> None:
        """Keep which logged models the run made."""
        self._runs.log_outputs(self.run_id, models)

    def log_text(self, text: str, path: str) -> None:
        """Keep `text` as the UTF-8 artifact `path`.

        Raises:
            InvalidNameError: The path is not a plain relative path.
        """
        with self._as_file(path) as file:
            file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")

    def log_json(self, content: object, path: str) -> None:
        """Keep plain lists, mappings, text and numbers as the JSON artifact `path`.

        Raises:
            InvalidNameError: The path is not a plain relative path.
        """
        self.log_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)

    def log_dict(self, content: object, path: str) -> None:
        """Keep plain lists and mappings as YAML where the path says `.yaml`, else as JSON.

        Raises:
            InvalidNameError: The path is not a plain relative path.
            UsageError: Something else is in it.
        """
        self.log_text(mapping_text(content, path), path)

    def log_figure(self, figure: object, path: str, **how: object) -> None:
        """Keep a figure of matplotlib or plotly, in the format that the path ends with.

        Args:
            figure: The figure.
            path: Such as `roc.png`, or `roc.html` for plotly.
            how: What the library's own function takes besides, such as `dpi=200`.

        Raises:
            InvalidNameError: The path is not a plain relative path.
            UsageError: It is no such figure.
        """
        with self._as_file(path) as file:
            save_figure(figure, file, **how)

    def log_image(self, image: object, path: str) -> None:
        """Keep one of Pillow's images, or an array as PNG.

        Raises:
            InvalidNameError: The path is not a plain relative path.
            UsageError: It is no image; see `artifact_forms.save_image`.
        """
        with self._as_file(path) as file:
            save_image(image, file)

    def log_table(self, data: object, path: str) -> None:
        """Keep a table as JSON; rows of a table that is there already are added to it.

        Args:
            data: A pandas DataFrame, or a mapping of column to values.
            path: Ends with `.json`.

        Raises:
            InvalidNameError: The path is not a plain relative path.
            UsageError: It is no table, or the one that is there has other columns.
        """
        table = table_record(data)
        with tempfile.TemporaryDirectory() as folder:
            try:
                held = self._artifacts.get(parse_artifact_path(path), Path(folder) / "table")
            except RecordNotFoundError:
                pass
            else:
                table = appended(table, held.read_text(encoding="utf-8"), path)
        self.log_text(json.dumps(table, ensure_ascii=False), path)

    def log_file(self, local: Path, path: str | None = None) -> None:
        """Keep a local file or folder as the artifact `path`, by default under its own name.

        Raises:
            RecordNotFoundError: There is nothing at `local`.
            InvalidNameError: The path is not a plain relative path.
        """
        place: ArtifactPath = parse_artifact_path(local.name if path is None else path)
        self._artifacts.put(local, place)

    def log_package(self, package: Package, path: str = "model") -> str:
        """Keep a model's package as the artifact folder `path`, and say so where MLflow looks.

        A second model of the run gets a folder of its own: `model-2` and so on.

        Returns:
            The artifact folder.

        Raises:
            InvalidNameError: The path is not a plain relative path.
        """
        taken = {entry["artifact_path"] for entry in self._models}
        numbered = (f"{path}-{n}" for n in count(2))
        place = parse_artifact_path(next(p for p in chain([path], numbered) if p not in taken))
        self._artifacts.put(package.folder, place)
        entry: dict[str, object] = {
            "run_id": self.run_id,
            "artifact_path": place,
            "utc_time_created": package.description.utc_time_created,
            "model_uuid": package.description.model_uuid,
            # By name alone: their details are in MLmodel, and a tag holds 8000 characters.
            "flavors": {key: {} for key in package.description.flavors},
        }
        self._models = [*self._models, entry][-_MAX_MODELS_IN_TAG:]
        self.set_tags({_MODELS_TAG: json.dumps(self._models)})
        return place

    def at_end(self, call: Callable[[], object]) -> None:
        """Have something called before the run ends; what was added last comes first."""
        self._at_end.append(call)

    def end(self, status: RunStatus = RunStatus.FINISHED) -> None:
        """End the run; nothing happens where it has ended.

        Raises:
            SparkscoreError: The store refused what was logged in the background.
        """
        if self._has_ended:
            return
        self._has_ended = True
        while self._at_end:
            self._at_end.pop()()
        refused: SparkscoreError | None = None
        try:
            BACKGROUND.flush(self.run_id)
        except SparkscoreError as exc:
            refused = exc
        self._run = self._runs.update_run(self.run_id, status, self._clock())
        if refused is not None:
            raise refused

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            vars(error).setdefault(_RUN_OF_ERROR, str(self.run_id))
        self.end(_end_status(error))

    def _send(self, call: LogCall, synchronous: bool) -> None:
        if synchronous:
            call.send()
        else:
            BACKGROUND.put(call)

    @contextmanager
    def _as_file(self, path: str) -> Iterator[Path]:
        """A path of the artifact's name, which is kept as `path` once the block has filled it."""
        place = parse_artifact_path(path)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / (Path(place).name or "artifact")
            yield file
            self._artifacts.put(file, place)


def run_of(exc: BaseException) -> str | None:
    """The id of the run that an error ended; None: there was none, or it is not known."""
    seen: BaseException | None = exc
    while seen is not None and _RUN_OF_ERROR not in vars(seen):
        seen = seen.__cause__
    return None if seen is None else vars(seen)[_RUN_OF_ERROR]


def _end_status(error: BaseException | None) -> RunStatus:
    if error is None:
        return RunStatus.FINISHED
    is_stopped = isinstance(error, SystemExit | GeneratorExit | SparkStoppedError)
    is_stopped = is_stopped or is_interrupt(error)
    return RunStatus.KILLED if is_stopped else RunStatus.FAILED


def _number(key: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as exc:
        raise UsageError(f"metric {key!r} is {shown(value)}, which is no number") from exc


def _whole(noun: str, number: int) -> int:
    try:
        # NumPy's whole numbers too, which loops over an array count by.
        return index(number)
    except TypeError as exc:
        raise UsageError(f"{noun} {shown(number)} is no whole number") from exc


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
