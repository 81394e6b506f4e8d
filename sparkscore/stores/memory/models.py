"""Registered models, versions and aliases in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import RLock

from sparkscore.names import AliasName, ModelName
from sparkscore.records import ModelVersion, RegisteredModel, Stage, VersionStatus
from sparkscore.search import MODEL_VERSIONS, REGISTERED_MODELS, Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.matching import page_of, plain_values


class MemoryModelStore:
    """Registered models of one process, safe to share between its threads."""

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._lock = RLock()
        self._models: dict[str, RegisteredModel] = {}
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        # Counts up and never down, so that a number is not given twice even after a deletion.
        self._last_version: dict[str, int] = {}

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            if name in self._models:
                raise rules.model_exists(name)
            now = self._clock()
            self._models[name] = RegisteredModel(name, now, now, description, dict(tags or {}))
            self._versions[name] = {}
            self._last_version[name] = 0
            return self._models[name]

    def get_model(self, name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        with self._lock:
            if name not in self._models:
                raise rules.no_model(name, self._models)
            return self._models[name]

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """See ModelStore."""
        with self._lock:
            return [self._models[name] for name in sorted(self._models)[:limit]]

    def search_models(self, query: Query) -> Page[RegisteredModel]:
        """See ModelStore."""
        with self._lock:
            return page_of(list(self._models.values()), query, REGISTERED_MODELS, plain_values)

    def rename_model(self, name: ModelName, new_name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        with self._lock:
            model = self.get_model(name)
            if new_name != name and new_name in self._models:
                raise rules.model_exists(new_name)
            del self._models[name]
            self._last_version[new_name] = self._last_version.pop(name)
            self._versions[new_name] = {
                number: replace(version, name=new_name)
                for number, version in self._versions.pop(name).items()
            }
            return self._touch(replace(model, name=new_name))

    def describe_model(self, name: ModelName, description: str) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        with self._lock:
            return self._touch(replace(self.get_model(name), description=description))

    def delete_model(self, name: ModelName) -> None:
        """See ModelStore."""
        with self._lock:
            self.get_model(name)
            del self._models[name], self._versions[name], self._last_version[name]

    def set_model_tags(self, name: ModelName, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            model = self.get_model(name)
            self._models[name] = replace(model, tags={**model.tags, **tags})

    def delete_model_tag(self, name: ModelName, key: str) -> None:
        """See ModelStore."""
        with self._lock:
            model = self.get_model(name)
            self._models[name] = replace(model, tags=_without(model.tags, key))

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
        rules.check_new_version(
            description,
            tags,
            {"source": source, "run id": run_id, "run link": run_link, "user id": user_id},
            model_id,
        )
        with self._lock:
            model = self._touch(self.get_model(name))
            self._last_version[name] += 1
            version = ModelVersion(
                name=name,
                version=self._last_version[name],
                creation_time_ms=model.last_update_time_ms,
                last_update_time_ms=model.last_update_time_ms,
                source=source,
                status=VersionStatus.PENDING_REGISTRATION,
                run_id=run_id,
                description=description,
                tags=dict(tags or {}),
                run_link=run_link,
                model_id=model_id,
                user_id=user_id,
            )
            self._versions[name][version.version] = version
            return version

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
        """See ModelStore."""
        with self._lock:
            pending = self.get_version(name, version)
            rules.check_finish(pending, status)
            return self._keep(
                replace(
                    pending,
                    status=status,
                    source=pending.source if source is None else source,
                    digest=digest,
                    status_message=message,
                    last_update_time_ms=self._clock(),
                )
            )

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """See ModelStore."""
        with self._lock:
            model = self.get_model(name)
            if version not in self._versions[name]:
                raise rules.no_version(name, version, sorted(self._versions[name], reverse=True))
            pointing = sorted(alias for alias, at in model.aliases.items() if at == version)
            return replace(self._versions[name][version], aliases=tuple(pointing))

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """See ModelStore."""
        with self._lock:
            self.get_model(name)
            numbers = sorted(self._versions[name], reverse=True)
            return [self.get_version(name, number) for number in numbers]

    def search_versions(self, query: Query) -> Page[ModelVersion]:
        """See ModelStore."""
        with self._lock:
            known = [it for name in self._models for it in self.list_versions(ModelName(name))]
        return page_of(known, query, MODEL_VERSIONS, plain_values)

    def describe_version(self, name: ModelName, version: int, description: str) -> ModelVersion:
        """See ModelStore."""
        rules.check_description(description)
        with self._lock:
            held = self.get_version(name, version)
            now = self._clock()
            return self._keep(replace(held, description=description, last_update_time_ms=now))

    def move_version(
        self, name: ModelName, version: int, stage: Stage, *, archive_others: bool
    ) -> ModelVersion:
        """See ModelStore."""
        rules.check_archiving(stage, archive_others=archive_others)
        with self._lock:
            moved = self.get_version(name, version)
            now = self._touch(self.get_model(name)).last_update_time_ms
            for other in self._versions[name].values():
                if archive_others and other.stage is stage and other.version != version:
                    self._keep(replace(other, stage=Stage.ARCHIVED, last_update_time_ms=now))
            return self._keep(replace(moved, stage=stage, last_update_time_ms=now))

    def delete_version(self, name: ModelName, version: int) -> None:
        """See ModelStore."""
        with self._lock:
            self.get_version(name, version)
            del self._versions[name][version]
            model = self.get_model(name)
            left = {alias: at for alias, at in model.aliases.items() if at != version}
            self._touch(replace(model, aliases=left))

    def delete_version_tag(self, name: ModelName, version: int, key: str) -> None:
        """See ModelStore."""
        with self._lock:
            held = self.get_version(name, version)
            self._keep(replace(held, tags=_without(held.tags, key)))

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._lock:
            held = self.get_version(name, version)
            self._keep(replace(held, tags={**held.tags, **tags}))

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """See ModelStore."""
        with self._lock:
            rules.check_alias_target(self.get_version(name, version))
            model = self._models[name]
            self._touch(replace(model, aliases={**model.aliases, alias: version}))

    def delete_alias(self, name: ModelName, alias: AliasName) -> None:
        """See ModelStore."""
        with self._lock:
            model = self.get_model(name)
            if alias in model.aliases:
                left = {known: at for known, at in model.aliases.items() if known != alias}
                self._touch(replace(model, aliases=left))

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """See ModelStore."""
        with self._lock:
            aliases = self.get_model(name).aliases
            if alias not in aliases:
                raise rules.no_alias(name, alias, sorted(aliases))
            return self.get_version(name, aliases[alias])

    def _touch(self, model: RegisteredModel) -> RegisteredModel:
        self._models[model.name] = replace(model, last_update_time_ms=self._clock())
        return self._models[model.name]

    def _keep(self, version: ModelVersion) -> ModelVersion:
        self._versions[version.name][version.version] = version
        return version


def _without(tags: Mapping[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name != key}
