"""A client's calls of registered models, their versions, and models of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkscore.client.found import Found, query_of
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.records import (
    LoggedModel,
    LoggedModelStatus,
    ModelVersion,
    RegisteredModel,
    Stage,
)
from sparkscore.search import LOGGED_MODELS, MODEL_VERSIONS, REGISTERED_MODELS
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.workspace import Workspace

_MAX_MODELS, _MAX_VERSIONS = 100, 10_000


class ModelCalls:
    """Models of one workspace, by the names of MLflow's client.

    Every call may raise StoreUnavailableError and what the store's call of its name raises.
    Versions are made by `sparkscore.register_model` and `log_model`, which verify their bytes.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def create_registered_model(
        self, name: str, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> RegisteredModel:
        """A new registered model without versions."""
        return self._models.create_model(parse_model_name(name), description, tags)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """A registered model."""
        return self._models.get_model(parse_model_name(name))

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = _MAX_MODELS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Found[RegisteredModel]:
        """One page of models that fit; without an order by name."""
        query = query_of(REGISTERED_MODELS, filter_string, order_by, max_results, page_token)
        return Found.of(self._models.search_models(query))

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """The model under another name."""
        return self._models.rename_model(parse_model_name(name), parse_model_name(new_name))

    def update_registered_model(self, name: str, description: str) -> RegisteredModel:
        """The model with another description."""
        return self._models.describe_model(parse_model_name(name), description)

    def delete_registered_model(self, name: str) -> None:
        """Remove a model with its versions, tags and aliases."""
        self._models.delete_model(parse_model_name(name))

    def set_registered_model_tag(self, name: str, key: str, value: object) -> None:
        """Add or replace a tag of a model."""
        self._models.set_model_tags(parse_model_name(name), {key: str(value)})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a model."""
        self._models.delete_model_tag(parse_model_name(name), key)

    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """Point an alias at a version."""
        self._models.set_alias(parse_model_name(name), parse_alias(alias), int(version))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._models.delete_alias(parse_model_name(name), parse_alias(alias))

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias points at now."""
        return self._models.get_version_by_alias(parse_model_name(name), parse_alias(alias))

    def get_model_version(self, name: str, version: str | int) -> ModelVersion:
        """One version."""
        return self._models.get_version(parse_model_name(name), int(version))

    def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """The highest version in each stage, or in those that are named."""
        latest: dict[Stage, ModelVersion] = {}
        for version in self._models.list_versions(parse_model_name(name)):
            latest.setdefault(version.stage, version)
        asked = set(latest) if stages is None else {Stage(stage.capitalize()) for stage in stages}
        return [version for stage, version in latest.items() if stage in asked]

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = _MAX_VERSIONS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Found[ModelVersion]:
        """One page of versions that fit; without an order last updated first."""
        query = query_of(MODEL_VERSIONS, filter_string, order_by, max_results, page_token)
        return Found.of(self._models.search_versions(query))

    def update_model_version(self, name: str, version: str | int, description: str) -> ModelVersion:
        """The version with another description."""
        return self._models.describe_version(parse_model_name(name), int(version), description)

    def transition_model_version_stage(
        self,
        name: str,
        version: str | int,
        stage: str,
        archive_existing_versions: bool = False,
    ) -> ModelVersion:
        """The version in another stage; aliases are the newer way."""
        return self._models.move_version(
            parse_model_name(name),
            int(version),
            Stage(stage.capitalize()),
            archive_others=archive_existing_versions,
        )

    def delete_model_version(self, name: str, version: str | int) -> None:
        """Remove a version; its number is not used again."""
        self._models.delete_version(parse_model_name(name), int(version))

    def set_model_version_tag(self, name: str, version: str | int, key: str, value: object) -> None:
        """Add or replace a tag of a version."""
        self._models.set_version_tags(parse_model_name(name), int(version), {key: str(value)})

    def delete_model_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Remove a tag of a version."""
        self._models.delete_version_tag(parse_model_name(name), int(version), key)

    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Where the bytes of a version lie."""
        return self.get_model_version(name, version).source

    def get_logged_model(self, model_id: str) -> LoggedModel:
        """A model of an experiment."""
        return self._logged.get_logged_model(model_id)

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        max_results: int = _MAX_MODELS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Found[LoggedModel]:
        """One page of models of experiments that fit; without an order newest first."""
        query = query_of(LOGGED_MODELS, filter_string, order_by, max_results, page_token)
        return Found.of(self._logged.search_logged_models(experiment_ids, query))

    def finalize_logged_model(self, model_id: str, status: str) -> LoggedModel:
        """The model as `LOGGED_MODEL_READY` or `LOGGED_MODEL_UPLOAD_FAILED`."""
        return self._logged.finish_logged_model(model_id, LoggedModelStatus(status))

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, object]) -> None:
        """Add or replace tags of a logged model."""
        texts = {key: str(value) for key, value in tags.items()}
        self._logged.set_logged_model_tags(model_id, texts)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Remove a tag of a logged model."""
        self._logged.delete_logged_model_tag(model_id, key)

    def log_model_params(self, model_id: str, params: Mapping[str, object]) -> None:
        """Add params to a logged model."""
        texts = {key: str(value) for key, value in params.items()}
        self._logged.log_logged_model_params(model_id, texts)

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a logged model as deleted."""
        self._logged.delete_logged_model(model_id)

    @property
    def _models(self) -> ModelStore:
        return self._workspace.models

    @property
    def _logged(self) -> LoggedModelStore:
        return self._workspace.logged_models
