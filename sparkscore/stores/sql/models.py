"""Registered models, versions and aliases in SQL tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, insert, select, tuple_, update

from sparkscore.names import AliasName, ModelName
from sparkscore.records import ModelVersion, RegisteredModel, VersionStatus
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.tables import (
    model_aliases,
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
)

_VERSIONS = range(1, 2**31)


class SqlModelStore:
    """Registered models in a SQL database; safe between threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._database.write() as connection:
            if name in _model_names(connection):
                raise rules.model_exists(name)
            now = self._clock()
            connection.execute(
                insert(registered_models).values(
                    name=name,
                    description=description,
                    creation_time_ms=now,
                    last_update_time_ms=now,
                    last_version=0,
                )
            )
            _insert_tags(connection, registered_model_tags, {"name": name}, tags)
            return _get_model(connection, name)

    def get_model(self, name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        with self._database.read() as connection:
            return _get_model(connection, name)

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """See ModelStore."""
        query = select(registered_models).order_by(registered_models.c.name).limit(limit)
        with self._database.read() as connection:
            return _read_models(connection, query)

    def create_version(
        self,
        name: ModelName,
        *,
        source: str,
        run_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        with self._database.write() as connection:
            now = self._clock()
            version = _next_version(connection, name, now)
            connection.execute(
                insert(model_versions).values(
                    name=name,
                    version=version,
                    creation_time_ms=now,
                    last_update_time_ms=now,
                    source=source,
                    status=VersionStatus.PENDING_REGISTRATION,
                    status_message="",
                    digest="",
                    run_id=run_id,
                    description=description,
                )
            )
            _insert_tags(connection, model_version_tags, {"name": name, "version": version}, tags)
            return _get_version(connection, name, version)

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
        with self._database.write() as connection:
            pending = _get_version(connection, name, version)
            rules.check_finish(pending, status)
            connection.execute(
                update(model_versions)
                .where(model_versions.c.name == name, model_versions.c.version == version)
                .values(
                    status=status,
                    source=pending.source if source is None else source,
                    digest=digest,
                    status_message=message,
                    last_update_time_ms=self._clock(),
                )
            )
            return _get_version(connection, name, version)

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """See ModelStore."""
        with self._database.read() as connection:
            return _get_version(connection, name, version)

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """See ModelStore."""
        query = select(model_versions).where(model_versions.c.name == name)
        with self._database.read() as connection:
            _get_model(connection, name)
            return _read_versions(connection, query.order_by(model_versions.c.version.desc()))

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)
        table = model_version_tags
        with self._database.write() as connection:
            _get_version(connection, name, version)
            connection.execute(
                delete(table).where(
                    table.c.name == name, table.c.version == version, table.c.key.in_(list(tags))
                )
            )
            _insert_tags(connection, table, {"name": name, "version": version}, tags)

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """See ModelStore."""
        table = model_aliases
        with self._database.write() as connection:
            rules.check_alias_target(_get_version(connection, name, version))
            connection.execute(delete(table).where(table.c.name == name, table.c.alias == alias))
            connection.execute(insert(table).values(name=name, alias=alias, version=version))
            connection.execute(
                update(registered_models)
                .where(registered_models.c.name == name)
                .values(last_update_time_ms=self._clock())
            )

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """See ModelStore."""
        with self._database.read() as connection:
            aliases = _get_model(connection, name).aliases
            if alias not in aliases:
                raise rules.no_alias(name, alias, sorted(aliases))
            return _get_version(connection, name, aliases[alias])


def _model_names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(registered_models.c.name)))


def _next_version(connection: Connection, name: str, now_ms: int) -> int:
    # Counting up takes the row's lock first, so that two processes never see the same number.
    version = connection.scalar(
        update(registered_models)
        .where(registered_models.c.name == name)
        .values(last_version=registered_models.c.last_version + 1, last_update_time_ms=now_ms)
        .returning(registered_models.c.last_version)
    )
    if version is None:
        raise rules.no_model(name, _model_names(connection))
    return int(version)


def _insert_tags(
    connection: Connection,
    table: Table,
    owner: Mapping[str, object],
    tags: Mapping[str, str] | None,
) -> None:
    if tags:
        rows = [{**owner, "key": key, "value": value} for key, value in tags.items()]
        connection.execute(insert(table), rows)


def _get_model(connection: Connection, name: str) -> RegisteredModel:
    query = select(registered_models).where(registered_models.c.name == name)
    for model in _read_models(connection, query):
        return model
    raise rules.no_model(name, _model_names(connection))


def _read_models(connection: Connection, query: Select[Any]) -> list[RegisteredModel]:
    names = query.with_only_columns(registered_models.c.name)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(
        select(registered_model_tags).where(registered_model_tags.c.name.in_(names))
    ):
        tags[row.name][row.key] = row.value
    aliases: dict[str, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(select(model_aliases).where(model_aliases.c.name.in_(names))):
        aliases[row.name][row.alias] = row.version
    return [
        RegisteredModel(
            name=row.name,
            creation_time_ms=row.creation_time_ms,
            last_update_time_ms=row.last_update_time_ms,
            description=row.description,
            tags=tags[row.name],
            aliases=aliases[row.name],
        )
        for row in connection.execute(query)
    ]


def _get_version(connection: Connection, name: str, version: int) -> ModelVersion:
    _get_model(connection, name)
    of_model = select(model_versions).where(model_versions.c.name == name)
    # A version comes from a URI and may have more digits than a database number.
    if version in _VERSIONS:
        for found in _read_versions(
            connection, of_model.where(model_versions.c.version == version)
        ):
            return found
    numbers = of_model.with_only_columns(model_versions.c.version)
    known = connection.scalars(numbers.order_by(model_versions.c.version.desc()))
    raise rules.no_version(name, version, list(known))


def _read_versions(connection: Connection, query: Select[Any]) -> list[ModelVersion]:
    keys = query.with_only_columns(model_versions.c.name, model_versions.c.version)
    tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for row in connection.execute(_of_versions(model_version_tags, keys)):
        tags[row.name, row.version][row.key] = row.value
    aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in connection.execute(_of_versions(model_aliases, keys)):
        aliases[row.name, row.version].append(row.alias)
    return [
        ModelVersion(
            name=row.name,
            version=row.version,
            creation_time_ms=row.creation_time_ms,
            last_update_time_ms=row.last_update_time_ms,
            source=row.source,
            status=VersionStatus(row.status),
            status_message=row.status_message,
            digest=row.digest,
            run_id=row.run_id,
            description=row.description,
            tags=tags[row.name, row.version],
            aliases=tuple(sorted(aliases[row.name, row.version])),
        )
        for row in connection.execute(query)
    ]


def _of_versions(table: Table, keys: Select[Any]) -> Select[Any]:
    return select(table).where(tuple_(table.c.name, table.c.version).in_(keys))
