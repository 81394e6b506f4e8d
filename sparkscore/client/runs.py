"""A client's calls of experiments, runs and their files."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparkscore.artifact_forms import table_frame
from sparkscore.client.found import Found, query_of
from sparkscore.names import RunId, parse_artifact_path, parse_experiment_name, parse_run_id
from sparkscore.provenance import run_origin
from sparkscore.records import (
    ArtifactInfo,
    DatasetInput,
    Experiment,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import EXPERIMENTS, RUNS, View
from sparkscore.stores.base import RunStore, system_clock
from sparkscore.tracking import ActiveRun
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_PARENT_TAG = "mlflow.parentRunId"
_MAX_RESULTS = 1000


class RunCalls:
    """Experiments and runs of one workspace, by the names of MLflow's client.

    Every call may raise StoreUnavailableError and what the RunStore's call of its name raises.
    What is logged waits in the outbox where the store is away.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """The id of a new experiment."""
        parsed = parse_experiment_name(name)
        return self._runs.create_experiment(parsed, artifact_location, tags).experiment_id

    def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment, deleted or not."""
        return self._runs.get_experiment(experiment_id)

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of this name, deleted or not, or None."""
        return self._runs.find_experiment(parse_experiment_name(name))

    def search_experiments(
        self,
        view_type: str = View.ACTIVE_ONLY,
        max_results: int = _MAX_RESULTS,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Found[Experiment]:
        """One page of experiments that fit; without an order newest first."""
        query = query_of(EXPERIMENTS, filter_string, order_by, max_results, page_token, view_type)
        return Found.of(self._runs.search_experiments(query))

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an experiment another name."""
        self._runs.rename_experiment(experiment_id, parse_experiment_name(new_name))

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs as deleted."""
        self._runs.delete_experiment(experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """Make a deleted experiment active again, with the runs that were deleted with it."""
        self._runs.restore_experiment(experiment_id)

    def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
        """Add or replace a tag."""
        self._runs.set_experiment_tags(experiment_id, {key: str(value)})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag."""
        self._runs.delete_experiment_tag(experiment_id, key)

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """A new RUNNING run, which no thread is in; `set_terminated` ends it."""
        run_id = RunId(uuid.uuid4().hex)
        name = run_name or f"run-{run_id[:6]}"
        origin = run_origin()
        return self._workspace.outbox.create_run(
            experiment_id,
            run_id=run_id,
            run_name=name,
            user_id=origin.user,
            start_time_ms=system_clock() if start_time is None else start_time,
            tags={**origin.as_tags(), "mlflow.runName": name, **(tags or {})},
        )

    def get_run(self, run_id: str) -> Run:
        """A run with its params, tags and latest metrics."""
        return self._runs.get_run(parse_run_id(run_id))

    def get_parent_run(self, run_id: str) -> Run | None:
        """The run that this one is a child of, or None."""
        parent = self.get_run(run_id).tags.get(_PARENT_TAG)
        return None if parent is None else self.get_run(parent)

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: str = View.ACTIVE_ONLY,
        max_results: int = _MAX_RESULTS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Found[Run]:
        """One page of runs that fit; without an order newest start first."""
        query = query_of(RUNS, filter_string, order_by, max_results, page_token, run_view_type)
        return Found.of(self._runs.search_runs(experiment_ids, query))

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> Run:
        """The run with another status or name."""
        parsed = parse_run_id(run_id)
        run = self._runs.get_run(parsed) if name is None else self._runs.rename_run(parsed, name)
        if status is None:
            return run
        return self._runs.update_run(parsed, RunStatus(status), run.end_time_ms)

    def set_terminated(
        self, run_id: str, status: str = RunStatus.FINISHED, end_time: int | None = None
    ) -> None:
        """End a run; `end_time` in milliseconds since the epoch, by default now."""
        ended = system_clock() if end_time is None else end_time
        self._workspace.outbox.update_run(parse_run_id(run_id), RunStatus(status), ended)

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted."""
        self._runs.delete_run(parse_run_id(run_id))

    def restore_run(self, run_id: str) -> None:
        """Make a run active again."""
        self._runs.restore_run(parse_run_id(run_id))

    def log_metric(
        self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int = 0
    ) -> None:
        """Add one point of a metric; `timestamp` in milliseconds, by default now."""
        now = system_clock() if timestamp is None else timestamp
        self.log_batch(run_id, metrics=[Metric(key, float(value), now, step)])

    def log_param(self, run_id: str, key: str, value: object) -> None:
        """Add a param, as text."""
        self.log_batch(run_id, params={key: str(value)})

    def set_tag(self, run_id: str, key: str, value: object) -> None:
        """Add or replace a tag, as text."""
        self.log_batch(run_id, tags={key: str(value)})

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics, params and tags, all or nothing."""
        self._workspace.outbox.log_batch(
            parse_run_id(run_id), metrics=metrics, params=params, tags=tags
        )

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag."""
        self._runs.delete_run_tag(parse_run_id(run_id), key)

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] = (),
        models: Sequence[str] = (),
    ) -> None:
        """Add datasets and logged models (by id) that the run used."""
        self._runs.log_inputs(parse_run_id(run_id), datasets=datasets, model_ids=models)

    def log_outputs(self, run_id: str, models: Sequence[ModelOutput]) -> None:
        """Add logged models that the run made."""
        self._runs.log_outputs(parse_run_id(run_id), models)

    def get_metric_history(self, run_id: str, key: str) -> Sequence[Metric]:
        """All points of a metric by step and time."""
        return self._runs.metric_history(parse_run_id(run_id), key)

    def log_artifact(
        self, run_id: str, local_path: str | Path, artifact_path: str | None = None
    ) -> None:
        """Keep a local file or folder under its own name, in the folder `artifact_path`."""
        local = Path(local_path)
        place = f"{artifact_path}/{local.name}" if artifact_path else local.name
        self._run(run_id).log_file(local, place)

    def log_artifacts(
        self, run_id: str, local_dir: str | Path, artifact_path: str | None = None
    ) -> None:
        """Keep what lies in a local folder, in the folder `artifact_path`."""
        self._run(run_id).log_file(Path(local_dir), artifact_path or "")

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Keep text as a UTF-8 file."""
        self._run(run_id).log_text(text, artifact_file)

    def log_dict(self, run_id: str, dictionary: object, artifact_file: str) -> None:
        """Keep plain lists and mappings as JSON, or as YAML where the path says so."""
        self._run(run_id).log_dict(dictionary, artifact_file)

    def log_figure(
        self, run_id: str, figure: object, artifact_file: str, **save_kwargs: object
    ) -> None:
        """Keep a figure of matplotlib or plotly."""
        self._run(run_id).log_figure(figure, artifact_file, **save_kwargs)

    def log_image(self, run_id: str, image: object, artifact_file: str) -> None:
        """Keep one of Pillow's images, or an array as PNG."""
        self._run(run_id).log_image(image, artifact_file)

    def log_table(self, run_id: str, data: object, artifact_file: str) -> None:
        """Keep a table as JSON, behind the rows that are there already."""
        self._run(run_id).log_table(data, artifact_file)

    def load_table(self, run_id: str, artifact_file: str) -> pd.DataFrame:
        """A table that `log_table` kept."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.download_artifacts(run_id, artifact_file, Path(folder) / "table")
            return table_frame(Path(file).read_text(encoding="utf-8"), artifact_file)

    def list_artifacts(self, run_id: str, path: str | None = None) -> Sequence[ArtifactInfo]:
        """What lies directly in an artifact folder of a run."""
        return self._run(run_id).artifacts.list(parse_artifact_path(path or ""))

    def download_artifacts(
        self, run_id: str, path: str = "", dst_path: str | Path | None = None
    ) -> str:
        """The local path of a copy of a run's file or folder.

        Args:
            run_id: The run.
            path: Which of its files; `""`: all.
            dst_path: The copy, which must not exist; None: a new temporary folder, which stays.
        """
        if dst_path is None:
            dst_path = Path(tempfile.mkdtemp(prefix="sparkscore-")) / (Path(path).name or "files")
        store = self._run(run_id).artifacts
        return str(store.get(parse_artifact_path(path.strip("/")), Path(dst_path)))

    @property
    def _runs(self) -> RunStore:
        return self._workspace.runs

    def _run(self, run_id: str) -> ActiveRun:
        return self._workspace.tracking.run(run_id)
