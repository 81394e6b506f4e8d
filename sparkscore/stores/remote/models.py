"""Registered models on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparkscore.errors import RecordNotFoundError, UsageError
from sparkscore.names import AliasName, ModelName
from sparkscore.records import ModelVersion, RegisteredModel, Stage, VersionStatus
from sparkscore.search import Comparison, Field, FieldKind, Operator, Page, Query
from sparkscore.stores import rules
from sparkscore.stores.remote.filters import filter_text, order_text
from sparkscore.stores.remote.paging import all_items, next_token, page_fields
from sparkscore.stores.remote.server import RemoteServer
from sparkscore.stores.search_pages import check_limit
from sparkscore.wire.json_to_records import registered_model_of, version_of
from sparkscore.wire.reading import Given
from sparkscore.wire.records_to_json import Json, pairs_to_json

# What versions on MLflow's servers have no fields for.
_DIGEST_TAG = "sparkscore.digest"
_STATUS_TAG = "sparkscore.status"
_MESSAGE_TAG = "sparkscore.statusMessage"
_MAX_MODELS, _MAX_VERSIONS = 1000, 10_000
_MAX_NUMBER = 10**9


class RemoteModelStore:
    """See ModelStore.

    On a server of MLflow's a version is ready as soon as it is created; that it is pending, how
    it ended, and its digest are tags there, which only sparkscore heeds.
    """

    def __init__(self, server: RemoteServer) -> None:
        self._server = server

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        fields: Json = {
            "name": name,
            "description": description or None,
            "tags": pairs_to_json(tags or {}),
        }
        return _model(self._server.ask("create_registered_model", fields))

    def get_model(self, name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        return _model(self._server.ask("get_registered_model", {"name": name}))

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """See ModelStore."""
        return all_items(self.search_models, Query(limit=limit))

    def search_models(self, query: Query) -> Page[RegisteredModel]:
        """See ModelStore."""
        answer = self._server.ask("search_registered_models", self._search(query, _MAX_MODELS))
        items = tuple(registered_model_of(item) for item in answer.each("registered_models"))
        return Page(items, next_token(answer))

    def rename_model(self, name: ModelName, new_name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        fields = {"name": name, "new_name": new_name}
        return _model(self._server.ask("rename_registered_model", fields))

    def describe_model(self, name: ModelName, description: str) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        fields = {"name": name, "description": description}
        return _model(self._server.ask("update_registered_model", fields))

    def delete_model(self, name: ModelName) -> None:
        """See ModelStore."""
        self._server.ask("delete_registered_model", {"name": name})

    def set_model_tags(self, name: ModelName, tags: Mapping[str, str]) -> None:
        """See ModelStore; the protocol takes one tag a call."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        for key, value in tags.items():
            fields = {"name": name, "key": key, "value": value}
            self._server.ask("set_registered_model_tag", fields)

    def delete_model_tag(self, name: ModelName, key: str) -> None:
        """See ModelStore."""
        self._server.ask("delete_registered_model_tag", {"name": name, "key": key})

    def create_version(
        self,
        name: ModelName,
        *,
        source: str,
        run_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        run_link: str = "",
        model_id: str = "",
        user_id: str = "",
    ) -> ModelVersion:
        """See ModelStore."""
        links = {"source": source, "run id": run_id, "run link": run_link, "user id": user_id}
        rules.check_new_version(description, tags, links, model_id)
        pending = VersionStatus.PENDING_REGISTRATION.value
        is_ours = self._server.is_sparkscore
        all_tags = {**(tags or {}), **({} if is_ours else {_STATUS_TAG: pending})}
        fields: Json = {
            "name": name,
            "source": source,
            "run_id": run_id or None,
            "tags": pairs_to_json(all_tags),
            "run_link": run_link or None,
            "description": description or None,
            "model_id": model_id or None,
            "status": pending,
            "user_id": user_id or None,
        }
        return _version(self._server.ask("create_version", fields))

    def finish_version(
        self,
        name: ModelName,
        version: int,
        status: VersionStatus,
        *,
        source: str | None = None,
        digest: str = "",
        message: str = "",
    ) -> ModelVersion:
        """See ModelStore.

        Raises:
            UsageError: Another source, on a server of MLflow's, which keeps the first one.
        """
        if not self._server.is_sparkscore:
            return self._finish_by_tags(name, version, status, source, digest, message)
        fields: Json = {
            "status": status.value,
            "source": source,
            "digest": digest or None,
            "status_message": message or None,
        }
        return _version(self._of_version("update_version", name, version, fields))

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """See ModelStore."""
        return _version(self._of_version("get_version", name, version))

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """See ModelStore."""
        where = Comparison(Field(FieldKind.ATTRIBUTE, "name"), Operator.EQUAL, name)
        page = self.search_versions(Query(where=where, limit=_MAX_VERSIONS))
        found = list(page.items)
        while page.next_token is not None:
            query = Query(where=where, limit=_MAX_VERSIONS, token=page.next_token)
            page = self.search_versions(query)
            found += page.items
        if not found:
            self.get_model(name)
        return sorted(found, key=lambda version: version.version, reverse=True)

    def search_versions(self, query: Query) -> Page[ModelVersion]:
        """See ModelStore."""
        answer = self._server.ask("search_versions", self._search(query, _MAX_VERSIONS))
        items = tuple(_with_tags_read(version_of(item)) for item in answer.each("model_versions"))
        return Page(items, next_token(answer))

    def describe_version(self, name: ModelName, version: int, description: str) -> ModelVersion:
        """See ModelStore."""
        rules.check_description(description)
        fields: Json = {"description": description}
        return _version(self._of_version("update_version", name, version, fields))

    def move_version(
        self, name: ModelName, version: int, stage: Stage, *, archive_others: bool
    ) -> ModelVersion:
        """See ModelStore."""
        rules.check_archiving(stage, archive_others=archive_others)
        fields: Json = {"stage": stage.value, "archive_existing_versions": archive_others}
        return _version(self._of_version("move_version", name, version, fields))

    def delete_version(self, name: ModelName, version: int) -> None:
        """See ModelStore."""
        self._of_version("delete_version", name, version)

    def delete_version_tag(self, name: ModelName, version: int, key: str) -> None:
        """See ModelStore."""
        self._of_version("delete_version_tag", name, version, {"key": key})

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """See ModelStore; the protocol takes one tag a call."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        for key, value in tags.items():
            self._of_version("set_version_tag", name, version, {"key": key, "value": value})

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """See ModelStore."""
        if not self._server.is_sparkscore:
            rules.check_alias_target(self.get_version(name, version))
        self._of_version("set_alias", name, version, {"alias": alias})

    def delete_alias(self, name: ModelName, alias: AliasName) -> None:
        """See ModelStore."""
        self._server.ask("delete_alias", {"name": name, "alias": alias})

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """See ModelStore."""
        try:
            return _version(
                self._server.ask("get_version_by_alias", {"name": name, "alias": alias})
            )
        except RecordNotFoundError:
            raise
        except UsageError as exc:
            # The protocol's code for an alias that is not there is that of any wrong argument.
            raise rules.no_alias(name, alias, list(self.get_model(name).aliases)) from exc

    def _of_version(
        self, route: str, name: ModelName, version: int, fields: Json | None = None
    ) -> Given:
        if not 0 < version < _MAX_NUMBER:  # the protocol takes such a one for no number at all
            known = [found.version for found in self.list_versions(name)]
            raise rules.no_version(name, version, known)
        return self._server.ask(route, {"name": name, "version": str(version), **(fields or {})})

    def _search(self, query: Query, max_results: int) -> Json:
        check_limit(query)
        is_mlflow = query.where is not None and not self._server.is_sparkscore
        return {
            "filter": filter_text(query.where, is_mlflow=is_mlflow) or None,
            "order_by": [order_text(order) for order in query.order],
            **page_fields(query.limit, query.token, max_results),
        }

    def _finish_by_tags(
        self,
        name: ModelName,
        version: int,
        status: VersionStatus,
        source: str | None,
        digest: str,
        message: str,
    ) -> ModelVersion:
        pending = self.get_version(name, version)
        rules.check_finish(pending, status)
        if source is not None and source != pending.source:
            raise UsageError(
                f"version {version} of model {name!r} was registered at {pending.source}, and a "
                f"server of MLflow's cannot be told that it is at {source}: register it anew"
            )
        # The status last: what is pending may be finished once more.
        tags = {_DIGEST_TAG: digest, _MESSAGE_TAG: message}
        told = {key: value for key, value in tags.items() if value}
        self.set_version_tags(name, version, told | {_STATUS_TAG: status.value})
        return self.get_version(name, version)


def _model(answer: Given) -> RegisteredModel:
    return registered_model_of(answer.one("registered_model"))


def _version(answer: Given) -> ModelVersion:
    return _with_tags_read(version_of(answer.one("model_version")))


def _with_tags_read(version: ModelVersion) -> ModelVersion:
    """What the server says, and what tags say in its place."""
    tags = version.tags
    if _STATUS_TAG not in tags:
        return version
    return replace(
        version,
        status=VersionStatus(tags[_STATUS_TAG]),
        digest=version.digest or tags.get(_DIGEST_TAG, ""),
        status_message=version.status_message or tags.get(_MESSAGE_TAG, ""),
    )
