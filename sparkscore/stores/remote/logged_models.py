"""Models of experiments on a server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sparkscore.errors import UsageError
from sparkscore.records import LoggedModel, LoggedModelStatus
from sparkscore.search import FieldKind, Order, Page, Query, View
from sparkscore.stores import rules
from sparkscore.stores.remote.filters import filter_text
from sparkscore.stores.remote.paging import next_token, page_fields
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.stores.search_pages import check_limit
from sparkscore.wire.json_to_records import logged_model_of
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, pairs_to_json

_PREFIXES = {FieldKind.METRIC: "metrics.", FieldKind.PARAM: "params.", FieldKind.TAG: "tags."}
_MAX_RESULTS = 50_000
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.\-/]*", re.ASCII)


class RemoteLoggedModelStore:
    """See LoggedModelStore; a server of MLflow's chooses the ids of models by itself."""

    def __init__(self, server: RemoteServer) -> None:
        self._server = server

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
        if not experiment_id:  # the protocol takes an empty field for one that was forgotten
            raise rules.no_experiment(experiment_id)
        fields: Json = {
            "experiment_id": experiment_id,
            "model_id": model_id,
            "name": name,
            "model_type": model_type or None,
            "source_run_id": source_run_id or None,
            "params": pairs_to_json(params or {}),
            "tags": pairs_to_json(tags or {}),
        }
        return _model(self._server.ask("create_logged_model", fields))

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """See LoggedModelStore."""
        fields = {"model_id": model_id, "allow_deleted": allow_deleted or None}
        return _model(self._server.ask("get_logged_model", fields))

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        query: Query,
        *,
        datasets: Sequence[tuple[str, str]] = (),
    ) -> Page[LoggedModel]:
        """See LoggedModelStore."""
        check_limit(query)
        is_plain = query.where is None and query.view is View.ACTIVE_ONLY
        is_mlflow = not is_plain and not self._server.is_sparkscore
        if is_mlflow and query.view is not View.ACTIVE_ONLY:
            raise UsageError(
                f"{self._server.uri} is a server of MLflow's, which finds no deleted models"
            )
        fields: Json = {
            "experiment_ids": list(experiment_ids),
            "filter": filter_text(query.where, is_mlflow=is_mlflow) or None,
            "datasets": [_dataset(name, digest) for name, digest in datasets],
            "order_by": [_order(order) for order in query.order],
            "view_type": None if query.view is View.ACTIVE_ONLY else query.view.value,
            **page_fields(query.limit, query.token, _MAX_RESULTS),
        }
        answer = self._server.ask("search_logged_models", fields)
        items = tuple(logged_model_of(item) for item in answer.each("models"))
        return Page(items, next_token(answer))

    def finish_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """See LoggedModelStore."""
        rules.check_finish_logged(status)
        fields = {"model_id": model_id, "status": status.value}
        return _model(self._server.ask("finish_logged_model", fields))

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_tags(tags, rules.MAX_RUN_TAG_CHARS)
        fields = {"model_id": model_id, "tags": pairs_to_json(tags)}
        self._server.ask("set_logged_model_tags", fields)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """See LoggedModelStore."""
        self._server.ask("delete_logged_model_tag", {"model_id": model_id, "tag_key": key})

    def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_params(params)
        fields = {"model_id": model_id, "params": pairs_to_json(params)}
        self._server.ask("log_logged_model_params", fields)

    def delete_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore."""
        self._server.ask("delete_logged_model", {"model_id": model_id})

    def purge_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore.

        Raises:
            UsageError: The server is MLflow's, which purges by `mlflow gc` alone.
        """
        self._server.refuse_mlflow("purge a logged model")
        self._server.ask("purge_logged_model", {"model_id": model_id})


def _model(answer: Given) -> LoggedModel:
    return logged_model_of(answer.one("model"))


def _dataset(name: str, digest: str) -> Json:
    return {"dataset_name": name, **({"dataset_digest": digest} if digest else {})}


def _order(order: Order) -> Json:
    key = order.field.key
    if not _PLAIN_KEY.fullmatch(key):  # quoted only then: not every server reads quotes here
        key = f"`{key}`"
    fields: Json = {
        "field_name": _PREFIXES.get(order.field.kind, "") + key,
        "ascending": order.ascending,
    }
    if order.dataset is not None:
        name, digest = order.dataset
        fields |= _dataset(name, digest)
    return fields
