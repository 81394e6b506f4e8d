"""Experiments and runs on a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparkscore.errors import RecordNotFoundError
from sparkscore.names import ExperimentName, RunId
from sparkscore.records import (
    Dataset,
    DatasetInput,
    Experiment,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import (
    All,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Operator,
    Page,
    Query,
    View,
)
from sparkscore.stores import metric_pages, rules
from sparkscore.stores.remote.filters import filter_text, order_text
from sparkscore.stores.remote.paging import all_items, next_token, page_fields
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.stores.search_pages import check_limit
from sparkscore.wire import routes_runs
from sparkscore.wire.json_to_records import experiment_of, metric_of, run_of
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import (
    Json,
    dataset_input_to_json,
    metric_to_json,
    model_output_to_json,
    pairs_to_json,
)

# MLflow's servers choose the ids of runs; this tag says which one the caller wanted.
_CHOSEN_ID_TAG = "sparkscore.runId"
_CONTEXT_TAG = "mlflow.data.context"
_MAX_SEARCHED_EXPERIMENTS = 20
_HISTORY_PAGE = 25_000
_MAX_POINTS = 2**31 - 1


class RemoteRunStore:
    """See RunStore.

    On a server of MLflow's a run gets an id of the server's: `create_run` returns it, and the one
    that the caller chose stays good for all calls, as a tag of the run.
    """

    def __init__(self, server: RemoteServer) -> None:
        self._server = server
        self._ids: dict[str, str] = {}

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """See RunStore."""
        rules.check_new_experiment(artifact_location, tags)
        fields: Json = {
            "name": name,
            "artifact_location": artifact_location,
            "tags": pairs_to_json(tags or {}),
        }
        answer = self._server.ask("create_experiment", fields)
        return self.get_experiment(answer.text("experiment_id"))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        answer = self._of_experiment("get_experiment", experiment_id)
        return experiment_of(answer.one("experiment"))

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore."""
        try:
            answer = self._server.ask("get_experiment_by_name", {"experiment_name": name})
        except RecordNotFoundError:
            return None
        return experiment_of(answer.one("experiment"))

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        return all_items(self.search_experiments, Query(limit=limit))

    def search_experiments(self, query: Query) -> Page[Experiment]:
        """See RunStore."""
        answer = self._server.ask("search_experiments", self._search(query, "view_type"))
        items = tuple(experiment_of(item) for item in answer.each("experiments"))
        return Page(items, next_token(answer))

    def rename_experiment(self, experiment_id: str, name: ExperimentName) -> None:
        """See RunStore."""
        self._of_experiment("update_experiment", experiment_id, {"new_name": name})

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See RunStore; the protocol takes one tag a call."""
        rules.check_tags(tags, rules.MAX_EXPERIMENT_TAG_CHARS)
        for key, value in tags.items():
            self._of_experiment("set_experiment_tag", experiment_id, {"key": key, "value": value})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """See RunStore."""
        self._of_experiment("delete_experiment_tag", experiment_id, {"key": key})

    def delete_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        self._of_experiment("delete_experiment", experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """See RunStore."""
        self._of_experiment("restore_experiment", experiment_id)

    def purge_experiment(self, experiment_id: str) -> None:
        """See RunStore.

        Raises:
            UsageError: The server is MLflow's, which purges by `mlflow gc` alone.
        """
        self._server.refuse_mlflow("purge an experiment")
        self._of_experiment("purge_experiment", experiment_id)

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
        all_tags = dict(tags or {})
        if not self._server.is_sparkscore:
            found = self._found(run_id, [experiment_id])
            if found is not None:
                rules.check_same_experiment(found, experiment_id)
                return found
            all_tags[_CHOSEN_ID_TAG] = run_id
        fields: Json = {
            "experiment_id": experiment_id,
            "run_id": run_id,
            "run_name": run_name or None,
            "user_id": user_id or None,
            "start_time": start_time_ms,
            "tags": pairs_to_json(all_tags),
        }
        run = run_of(self._server.ask("create_run", fields).one("run"))
        self._ids[run_id] = run.run_id
        return run

    def get_run(self, run_id: RunId) -> Run:
        """See RunStore."""
        return run_of(self._of_run("get_run", run_id).one("run"))

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """See RunStore."""
        ids = list(experiment_ids) or self._all_experiment_ids()
        query = Query(where=_with_tags(tags or {}), limit=limit)
        return all_items(lambda asked: self.search_runs(ids, asked), query)

    def search_runs(self, experiment_ids: Sequence[str], query: Query) -> Page[Run]:
        """See RunStore."""
        fields = self._search(query, "run_view_type") | {"experiment_ids": list(experiment_ids)}
        answer = self._server.ask("search_runs", fields)
        return Page(tuple(run_of(item) for item in answer.each("runs")), next_token(answer))

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See RunStore; a batch over the protocol's limits takes several requests."""
        rules.check_batch(metrics, params, tags)
        for batch in _batches(metrics, params or {}, tags or {}):
            self._of_run("log_batch", run_id, batch)

    def rename_run(self, run_id: RunId, name: str) -> Run:
        """See RunStore."""
        rules.check_run_name(name)
        self._of_run("update_run", run_id, {"run_name": name})
        return self.get_run(run_id)

    def delete_run_tag(self, run_id: RunId, key: str) -> None:
        """See RunStore."""
        self._of_run("delete_tag", run_id, {"key": key})

    def delete_run(self, run_id: RunId) -> None:
        """See RunStore."""
        self._of_run("delete_run", run_id)

    def restore_run(self, run_id: RunId) -> None:
        """See RunStore."""
        self._of_run("restore_run", run_id)

    def purge_run(self, run_id: RunId) -> None:
        """See RunStore.

        Raises:
            UsageError: The server is MLflow's, which purges by `mlflow gc` alone.
        """
        self._server.refuse_mlflow("purge a run")
        self._of_run("purge_run", run_id)

    def log_inputs(
        self,
        run_id: RunId,
        *,
        datasets: Sequence[DatasetInput] = (),
        model_ids: Sequence[str] = (),
    ) -> None:
        """See RunStore."""
        rules.check_inputs(datasets, model_ids)
        fields: Json = {
            "datasets": [dataset_input_to_json(used) for used in datasets],
            "models": [{"model_id": model_id} for model_id in model_ids],
        }
        self._of_run("log_inputs", run_id, fields)

    def log_outputs(self, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """See RunStore."""
        rules.check_outputs(models)
        fields: Json = {"models": [model_output_to_json(model) for model in models]}
        self._of_run("log_outputs", run_id, fields)

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore."""
        rules.check_int64(end_time_ms or 0, "end time")
        self._of_run("update_run", run_id, {"status": status.value, "end_time": end_time_ms})
        return self.get_run(run_id)

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        points: list[Metric] = []
        page = self.metric_history_page(run_id, key, limit=_HISTORY_PAGE)
        points += page.items
        while page.next_token is not None:
            page = self.metric_history_page(run_id, key, limit=_HISTORY_PAGE, token=page.next_token)
            points += page.items
        return sorted(points, key=rules.metric_order)

    def metric_history_page(
        self, run_id: RunId, key: str, *, limit: int, token: str | None = None
    ) -> Page[Metric]:
        """See RunStore."""
        metric_pages.check_limit(limit)
        fields = {"metric_key": key, **page_fields(limit, token, _MAX_POINTS)}
        answer = self._of_run("get_metric_history", run_id, fields)
        return Page(tuple(metric_of(item) for item in answer.each("metrics")), next_token(answer))

    def search_datasets(
        self, experiment_ids: Sequence[str], *, limit: int = 1000
    ) -> Sequence[tuple[str, DatasetInput]]:
        """See RunStore; the protocol tells name, digest and context alone."""
        found: list[tuple[str, DatasetInput]] = []
        for start in range(0, len(experiment_ids), _MAX_SEARCHED_EXPERIMENTS):
            some = list(experiment_ids[start : start + _MAX_SEARCHED_EXPERIMENTS])
            answer = self._server.ask("search_datasets", {"experiment_ids": some}, as_page=True)
            found += map(_summary, answer.each("dataset_summaries"))
        return found[:limit]

    def _search(self, query: Query, view: str) -> Json:
        check_limit(query)
        is_mlflow = query.where is not None and not self._server.is_sparkscore
        return {
            "filter": filter_text(query.where, is_mlflow=is_mlflow) or None,
            "order_by": [order_text(order) for order in query.order],
            view: query.view.value,
            **page_fields(query.limit, query.token, routes_runs.MAX_RESULTS),
        }

    def _of_experiment(self, name: str, experiment_id: str, fields: Json | None = None) -> Given:
        if not experiment_id:  # the protocol takes an empty field for one that was forgotten
            raise rules.no_experiment(experiment_id)
        return self._server.ask(name, {"experiment_id": experiment_id, **(fields or {})})

    def _of_run(self, name: str, run_id: RunId, fields: Json | None = None) -> Given:
        known = self._ids.get(run_id, run_id)
        try:
            return self._server.ask(name, {"run_id": known, **(fields or {})})
        except RecordNotFoundError:
            # Of a run that another process created under an id which the server did not take.
            if known != run_id or self._server.is_sparkscore:
                raise
            found = self._chosen(run_id, self._all_experiment_ids())
            if found is None:
                raise
            return self._server.ask(name, {"run_id": found.run_id, **(fields or {})})

    def _found(self, run_id: RunId, experiment_ids: Sequence[str]) -> Run | None:
        """The run of this id, or of this chosen id, on a server of MLflow's."""
        try:
            return run_of(self._server.ask("get_run", {"run_id": run_id}).one("run"))
        except RecordNotFoundError:
            return self._chosen(run_id, experiment_ids)

    def _chosen(self, run_id: RunId, experiment_ids: Sequence[str]) -> Run | None:
        where = _with_tags({_CHOSEN_ID_TAG: run_id})
        page = self.search_runs(experiment_ids, Query(where=where, view=View.ALL, limit=1))
        for run in page.items:
            self._ids[run_id] = run.run_id
            return run
        return None

    def _all_experiment_ids(self) -> list[str]:
        found = all_items(self.search_experiments, Query(limit=routes_runs.MAX_RESULTS))
        return [experiment.experiment_id for experiment in found]


def _with_tags(tags: Mapping[str, str]) -> Condition | None:
    parts = tuple(
        Comparison(Field(FieldKind.TAG, key), Operator.EQUAL, value) for key, value in tags.items()
    )
    return All(parts) if parts else None


def _batches(
    metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[Json]:
    """What one request takes at a time; one empty request if there is nothing, which is checked."""
    parts: list[tuple[str, Sequence[object], int]] = [
        ("params", pairs_to_json(params), routes_runs.MAX_PARAMS),
        ("metrics", [metric_to_json(metric) for metric in metrics], routes_runs.MAX_METRICS),
        ("tags", pairs_to_json(tags), routes_runs.MAX_TAGS),
    ]
    n_requests = max(1, *(-(-len(items) // size) for _, items, size in parts))
    for number in range(n_requests):
        yield {
            name: items[number * size : (number + 1) * size]
            for name, items, size in parts
            if items[number * size : (number + 1) * size]
        }


def _summary(given: Given) -> tuple[str, DatasetInput]:
    context = given.text("context")
    used = DatasetInput(
        Dataset(given.text("name"), given.text("digest"), source_type="", source=""),
        {_CONTEXT_TAG: context} if context else {},
    )
    return given.text("experiment_id"), used
