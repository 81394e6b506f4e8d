"""The seams behind which models are kept: those that are registered, and those of experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sparkscore.names import AliasName, ModelName
from sparkscore.records import (
    LoggedModel,
    LoggedModelStatus,
    ModelVersion,
    RegisteredModel,
    Stage,
    VersionStatus,
)
from sparkscore.search import Page, Query


class ModelStore(Protocol):
    """Registered models, their versions and aliases. Any call may raise StoreUnavailableError."""

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """A new registered model without versions.

        Raises:
            RecordExistsError: The name is taken.
        """
        ...

    def get_model(self, name: ModelName) -> RegisteredModel:
        """The registered model of this name.

        Raises:
            RecordNotFoundError: There is none; near names are offered.
        """
        ...

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """Registered models by name."""
        ...

    def search_models(self, query: Query) -> Page[RegisteredModel]:
        """Registered models that fit; without an order by name.

        Raises:
            UsageError: The token is of another query, or of none.
        """
        ...

    def rename_model(self, name: ModelName, new_name: ModelName) -> RegisteredModel:
        """The model under another name, with its versions, tags and aliases.

        Raises:
            RecordNotFoundError: No such model.
            RecordExistsError: The new name is taken.
        """
        ...

    def describe_model(self, name: ModelName, description: str) -> RegisteredModel:
        """The model with another description.

        Raises:
            RecordNotFoundError: No such model.
            UsageError: The description is too long.
        """
        ...

    def delete_model(self, name: ModelName) -> None:
        """Remove a model with its versions, tags and aliases.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

    def set_model_tags(self, name: ModelName, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a model.

        Raises:
            RecordNotFoundError: No such model.
            InvalidNameError: A key is not usable.
            UsageError: A value is over its limit.
        """
        ...

    def delete_model_tag(self, name: ModelName, key: str) -> None:
        """Remove a tag of a model; nothing happens where there is none.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

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
        """A new PENDING_REGISTRATION version with the next number; numbers are never reused.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

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
        """Turn a pending version READY (without a digest: not verified) or FAILED_REGISTRATION.

        Raises:
            RecordNotFoundError: No such version.
            InvalidStateError: The version is not pending.
        """
        ...

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """One version with its tags and the aliases that point at it.

        Raises:
            RecordNotFoundError: There is none; the known numbers are listed.
        """
        ...

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """All versions of a model, highest number first.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

    def search_versions(self, query: Query) -> Page[ModelVersion]:
        """Versions that fit; without an order last updated first, then by name and number.

        Raises:
            UsageError: The token is of another query, or of none.
        """
        ...

    def describe_version(self, name: ModelName, version: int, description: str) -> ModelVersion:
        """The version with another description.

        Raises:
            RecordNotFoundError: No such version.
            UsageError: The description is too long.
        """
        ...

    def move_version(
        self, name: ModelName, version: int, stage: Stage, *, archive_others: bool
    ) -> ModelVersion:
        """The version in another stage.

        Args:
            name: The model.
            version: Which of its versions.
            stage: Where it goes.
            archive_others: Move those that are in this stage to `Archived`.

        Raises:
            RecordNotFoundError: No such version.
            UsageError: `archive_others` with a stage other than Staging and Production.
        """
        ...

    def delete_version(self, name: ModelName, version: int) -> None:
        """Remove a version with its tags and the aliases that point at it.

        Raises:
            RecordNotFoundError: No such version.
        """
        ...

    def delete_version_tag(self, name: ModelName, version: int, key: str) -> None:
        """Remove a tag of a version; nothing happens where there is none.

        Raises:
            RecordNotFoundError: No such version.
        """
        ...

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version.

        Raises:
            RecordNotFoundError: No such version.
        """
        ...

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """Point an alias at a READY version, away from any other.

        Raises:
            RecordNotFoundError: No such model or version.
            InvalidStateError: The version is not READY.
        """
        ...

    def delete_alias(self, name: ModelName, alias: AliasName) -> None:
        """Remove an alias; nothing happens where there is none.

        Raises:
            RecordNotFoundError: No such model.
        """
        ...

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """The version that the alias points at now.

        Raises:
            RecordNotFoundError: No such model or alias; the known aliases are listed.
        """
        ...


class LoggedModelStore(Protocol):
    """Models that experiments hold, registered or not. Any call may raise StoreUnavailableError.

    It shares experiments and metrics with a RunStore: a metric that was logged with a model's id
    is among the model's, and a model is gone with its experiment.
    """

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
        """A new PENDING model of an experiment, its files below the experiment's location.

        Raises:
            RecordNotFoundError: There is no such experiment.
            InvalidStateError: It is deleted.
            RecordExistsError: The id is taken.
            InvalidNameError: The name or a key is not usable.
            UsageError: A value is over its limit.
        """
        ...

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """One logged model.

        Raises:
            RecordNotFoundError: There is none, or it is deleted.
        """
        ...

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        query: Query,
        *,
        datasets: Sequence[tuple[str, str]] = (),
    ) -> Page[LoggedModel]:
        """Logged models of these experiments that fit; without an order newest first.

        Args:
            experiment_ids: An id of no experiment finds nothing.
            query: What to look for.
            datasets: Pairs (name, digest or ""); metrics count only where measured on one.

        Raises:
            UsageError: The token is of another query, or of none.
        """
        ...

    def finish_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """The model as READY or UPLOAD_FAILED.

        Raises:
            RecordNotFoundError: There is no such model.
            UsageError: The status is PENDING.
        """
        ...

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags.

        Raises:
            RecordNotFoundError: There is no such model.
            InvalidNameError: A key is not usable.
            UsageError: A value is over its limit.
        """
        ...

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            RecordNotFoundError: There is no such model or tag.
        """
        ...

    def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """Add params; a param never changes.

        Raises:
            RecordNotFoundError: There is no such model.
            InvalidStateError: A param is known with another value.
            UsageError: A value is over its limit.
        """
        ...

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a logged model as deleted.

        Raises:
            RecordNotFoundError: There is none, or it is deleted already.
        """
        ...

    def purge_logged_model(self, model_id: str) -> None:
        """Remove a logged model that is deleted, or its experiment is, with its records, for good.

        Its files are noted to be removed; see PurgeStore.

        Raises:
            RecordNotFoundError: There is no such model.
            InvalidStateError: It is active, and so is its experiment.
        """
        ...
