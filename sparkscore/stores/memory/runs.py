"""Runs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparkscore.names import ExperimentName, RunId
from sparkscore.records import (
    DatasetInput,
    LifecycleStage,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import RUNS, Page, Query
from sparkscore.stores import metric_pages, rules
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.matching import page_of, run_values
from sparkscore.stores.memory.experiments import MemoryExperiments
from sparkscore.stores.memory.state import MemoryState


class MemoryRunStore(MemoryExperiments):
    """Experiments and runs of one process, safe to share between its threads.

    Args:
        artifact_root: URI below which experiments without a location of their own keep files.
        clock: Milliseconds since the epoch.
        state: What it shares with a MemoryLoggedModelStore; without one its records are its own.
    """

    def __init__(
        self, artifact_root: str, clock: Clock = system_clock, state: MemoryState | None = None
    ) -> None:
        super().__init__(artifact_root, clock, state or MemoryState())
        self.create_experiment(ExperimentName(rules.DEFAULT_EXPERIMENT_NAME))

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
        """See RunStore."""
        rules.check_new_run(run_name, user_id, start_time_ms, tags)
        with self._lock:
            experiment = self._active_experiment(experiment_id)
            if run_id in self._state.runs:
                rules.check_same_experiment(self._state.runs[run_id], experiment_id)
                return self._state.runs[run_id]
            return self._keep_run(
                Run(
                    run_id=run_id,
                    run_name=run_name,
                    experiment_id=experiment_id,
                    user_id=user_id,
                    status=RunStatus.RUNNING,
                    start_time_ms=start_time_ms,
                    end_time_ms=None,
                    artifact_uri=f"{experiment.artifact_location}/{run_id}/artifacts",
                    lifecycle_stage=LifecycleStage.ACTIVE,
                    tags=dict(tags or {}),
                )
            )

    def get_run(self, run_id: RunId) -> Run:
        """See RunStore."""
        with self._lock:
            if run_id not in self._state.runs:
                raise rules.no_run(run_id)
            return self._state.runs[run_id]

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """See RunStore."""
        with self._lock:
            fitting = [
                run
                for run in self._state.runs.values()
                if run.lifecycle_stage is LifecycleStage.ACTIVE
                and (not experiment_ids or run.experiment_id in experiment_ids)
                and (tags or {}).items() <= run.tags.items()
            ]
        fitting.sort(key=lambda run: (-run.start_time_ms, run.run_id))
        return fitting[:limit]

    def search_runs(self, experiment_ids: Sequence[str], query: Query) -> Page[Run]:
        """See RunStore."""
        scope = sorted(set(experiment_ids))
        with self._lock:
            known = [run for run in self._state.runs.values() if run.experiment_id in scope]
        in_view = [run for run in known if rules.is_in_view(run.lifecycle_stage, query.view)]
        return page_of(in_view, query, RUNS, run_values, scope)

    def search_datasets(
        self, experiment_ids: Sequence[str], *, limit: int = 1000
    ) -> Sequence[tuple[str, DatasetInput]]:
        """See RunStore."""
        with self._lock:
            known = list(self._state.runs.values())
        uses = (
            (run.experiment_id, rules.context_of(item))
            for run in known
            if run.experiment_id in experiment_ids and run.lifecycle_stage is LifecycleStage.ACTIVE
            for item in run.datasets
        )
        found = {rules.use_order(*use): use for use in uses}
        return [found[place] for place in sorted(found)[:limit]]

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See RunStore."""
        rules.check_batch(metrics, params, tags)
        with self._lock:
            run = self._active_run(run_id)
            rules.check_params_kept(f"run {run_id!r}", run.params, params or {})
            for metric in metrics:
                if metric.model_id and metric.model_id not in self._state.logged_models:
                    raise rules.no_logged_model(metric.model_id)
            for metric in metrics:
                points = self._state.points.setdefault((run_id, metric.key), {})
                points.setdefault(rules.point_key(metric), metric)
                if metric.model_id:
                    place = (metric.model_id, metric.key)
                    points = self._state.model_points.setdefault(place, {})
                    points.setdefault(rules.point_key(metric), metric)
            self._keep_run(
                replace(
                    run,
                    params={**run.params, **(params or {})},
                    tags={**run.tags, **(tags or {})},
                    metrics=rules.latest_points([*run.metrics.values(), *metrics]),
                )
            )

    def rename_run(self, run_id: RunId, name: str) -> Run:
        """See RunStore."""
        rules.check_run_name(name)
        with self._lock:
            run = self._active_run(run_id)
            tags = {**run.tags, rules.RUN_NAME_TAG: name}
            return self._keep_run(replace(run, run_name=name, tags=tags))

    def delete_run_tag(self, run_id: RunId, key: str) -> None:
        """See RunStore."""
        with self._lock:
            run = self._active_run(run_id)
            if key not in run.tags:
                raise rules.no_tag(f"run {run_id!r}", key, run.tags)
            left = {name: value for name, value in run.tags.items() if name != key}
            self._keep_run(replace(run, tags=left))

    def delete_run(self, run_id: RunId) -> None:
        """See RunStore."""
        with self._lock:
            if self.get_run(run_id).lifecycle_stage is LifecycleStage.ACTIVE:
                self._delete_run(run_id, self._clock())

    def restore_run(self, run_id: RunId) -> None:
        """See RunStore."""
        with self._lock:
            run = self.get_run(run_id)
            rules.check_restorable(run, self.get_experiment(run.experiment_id))
            self._restore_run(run_id)

    def purge_run(self, run_id: RunId) -> None:
        """See RunStore."""
        with self._lock:
            rules.check_deleted(self.get_run(run_id))
            self._state.remove_run(run_id)

    def log_inputs(
        self,
        run_id: RunId,
        *,
        datasets: Sequence[DatasetInput] = (),
        model_ids: Sequence[str] = (),
    ) -> None:
        """See RunStore."""
        rules.check_inputs(datasets, model_ids)
        with self._lock:
            run = self._active_run(run_id)
            used = {rules.dataset_key(item): item for item in run.datasets}
            for item in datasets:
                key = rules.dataset_key(item)
                known = self._state.datasets.setdefault((run.experiment_id, *key), item.dataset)
                used[key] = DatasetInput(known, dict(item.tags))
            self._keep_run(
                replace(
                    run,
                    datasets=tuple(used[key] for key in sorted(used)),
                    model_inputs=tuple(sorted({*run.model_inputs, *model_ids})),
                )
            )

    def log_outputs(self, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """See RunStore."""
        rules.check_outputs(models)
        with self._lock:
            run = self._active_run(run_id)
            made = {item.model_id: item for item in (*run.model_outputs, *models)}
            outputs = sorted(made.values(), key=rules.output_order)
            self._keep_run(replace(run, model_outputs=tuple(outputs)))

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore."""
        rules.check_int64(end_time_ms or 0, "end time")
        with self._lock:
            run = self._active_run(run_id)
            return self._keep_run(replace(run, status=status, end_time_ms=end_time_ms))

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        with self._lock:
            self.get_run(run_id)
            return sorted(self._state.points.get((run_id, key), {}).values(), key=rules.point_key)

    def metric_history_page(
        self, run_id: RunId, key: str, *, limit: int, token: str | None = None
    ) -> Page[Metric]:
        """See RunStore."""
        metric_pages.check_limit(limit)
        after = metric_pages.last_seen(token, run_id, key)
        points = self.metric_history(run_id, key)
        if after is not None:
            points = [point for point in points if rules.point_key(point) > after]
        return metric_pages.page_of(points, run_id, key, limit)

    def _active_run(self, run_id: RunId) -> Run:
        run = self.get_run(run_id)
        rules.check_active(run)
        return run

    def _keep_run(self, run: Run) -> Run:
        self._state.runs[run.run_id] = run
        return run
