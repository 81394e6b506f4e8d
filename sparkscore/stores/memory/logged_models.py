"""Models that experiments hold, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparkscore.records import LifecycleStage, LoggedModel, LoggedModelStatus
from sparkscore.search import LOGGED_MODELS, Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.matching import logged_model_values, page_of
from sparkscore.stores.memory.state import MemoryState


class MemoryLoggedModelStore:
    """Logged models beside the runs of a MemoryRunStore, safe to share between threads.

    Args:
        state: The one of the MemoryRunStore that it stands beside.
        clock: Milliseconds since the epoch.
    """

    def __init__(self, state: MemoryState, clock: Clock = system_clock) -> None:
        self._state = state
        self._clock = clock
        self._lock = state.lock

    def create_logged_model(
        self,
        experiment_id: str,
        *,
        model_id: str,
        name: str,
        model_type: str = "",
        source_run_id: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """See LoggedModelStore."""
        rules.check_new_logged_model(model_id, name, model_type, source_run_id, params, tags)
        with self._lock:
            experiment = self._state.experiments.get(experiment_id)
            if experiment is None:
                raise rules.no_experiment(experiment_id)
            rules.check_active(experiment)
            if model_id in self._state.logged_models:
                raise rules.logged_model_exists(model_id)
            now = self._clock()
            return self._keep(
                LoggedModel(
                    model_id=model_id,
                    experiment_id=experiment_id,
                    name=name,
                    model_type=model_type,
                    source_run_id=source_run_id,
                    status=LoggedModelStatus.PENDING,
                    artifact_uri=rules.logged_model_place(experiment, model_id),
                    creation_time_ms=now,
                    last_update_time_ms=now,
                    params=dict(params or {}),
                    tags=dict(tags or {}),
                )
            )

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """See LoggedModelStore."""
        with self._lock:
            model = self._state.logged_models.get(model_id)
            if model is None or not (
                allow_deleted or model.lifecycle_stage is LifecycleStage.ACTIVE
            ):
                raise rules.no_logged_model(model_id)
            return self._whole(model)

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        query: Query,
        *,
        datasets: Sequence[tuple[str, str]] = (),
    ) -> Page[LoggedModel]:
        """See LoggedModelStore."""
        ids = sorted(set(experiment_ids))
        with self._lock:
            known = [it for it in self._state.logged_models.values() if it.experiment_id in ids]
            in_view = [
                self._whole(model)
                for model in known
                if rules.is_in_view(model.lifecycle_stage, query.view)
            ]
        values = logged_model_values(datasets)
        return page_of(in_view, query, LOGGED_MODELS, values, [ids, list(datasets)])

    def finish_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """See LoggedModelStore."""
        rules.check_finish_logged(status)
        with self._lock:
            model = self.get_logged_model(model_id)
            return self._keep(replace(model, status=status, last_update_time_ms=self._clock()))

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_tags(tags, rules.MAX_RUN_TAG_CHARS)
        with self._lock:
            model = self.get_logged_model(model_id)
            self._keep(replace(model, tags={**model.tags, **tags}))

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """See LoggedModelStore."""
        with self._lock:
            model = self.get_logged_model(model_id)
            if key not in model.tags:
                raise rules.no_tag(f"logged model {model_id!r}", key, model.tags)
            left = {name: value for name, value in model.tags.items() if name != key}
            self._keep(replace(model, tags=left))

    def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_params(params)
        with self._lock:
            model = self.get_logged_model(model_id)
            rules.check_params_kept(f"logged model {model_id!r}", model.params, params)
            self._keep(replace(model, params={**model.params, **params}))

    def delete_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore."""
        with self._lock:
            model = self.get_logged_model(model_id)
            now = self._clock()
            self._keep(
                replace(model, lifecycle_stage=LifecycleStage.DELETED, last_update_time_ms=now)
            )

    def purge_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore."""
        with self._lock:
            model = self.get_logged_model(model_id, allow_deleted=True)
            rules.check_purgeable(model, self._state.experiments[model.experiment_id])
            self._state.remove_logged_model(model_id)

    def _whole(self, model: LoggedModel) -> LoggedModel:
        points = [
            point
            for (owner, _), by_key in self._state.model_points.items()
            if owner == model.model_id
            for point in by_key.values()
        ]
        points.sort(key=rules.model_point_order)
        return replace(model, metrics=tuple(points))

    def _keep(self, model: LoggedModel) -> LoggedModel:
        self._state.logged_models[model.model_id] = model
        return model
