"""Versions and aliases of registered models in SQL tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, select, tuple_, update

from sparkscore.names import AliasName, ModelName
from sparkscore.records import ModelVersion, Stage, VersionStatus
from sparkscore.search import Page, Query
from sparkscore.stores import rules
from sparkscore.stores.sql.registered_models import (
    SqlRegisteredModels,
    get_model,
    hold_model,
    no_model,
)
from sparkscore.stores.sql.searched_tables import searched_versions
from sparkscore.stores.sql.searching import search_rows
from sparkscore.stores.sql.statements import (
    delete_pair,
    in_slices,
    put_pairs,
    put_rows,
)
from sparkscore.stores.sql.tables import (
    model_aliases,
    model_version_tags,
    model_versions,
    registered_models,
)

_VERSIONS = range(1, 2**31)


class SqlModelStore(SqlRegisteredModels):
    """Registered models in a SQL database; safe between threads and processes."""

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

        def work(connection: Connection) -> ModelVersion:
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
                    stage=Stage.NONE,
                    run_link=run_link,
                    model_id=model_id,
                    user_id=user_id,
                )
            )
            put_pairs(connection, model_version_tags, {"name": name, "version": version}, tags)
            return _get_version(connection, name, version)

        return self._database.write(work)

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

        def work(connection: Connection) -> ModelVersion:
            pending = _hold_version(connection, name, version)
            rules.check_finish(pending, status)
            values = {} if source is None else {"source": source}
            self._change(
                connection,
                pending,
                status=status,
                digest=digest,
                status_message=message,
                **values,
            )
            return _get_version(connection, name, version)

        return self._database.write(work)

    def get_version(self, name: ModelName, version: int) -> ModelVersion:
        """See ModelStore."""
        with self._database.read() as connection:
            return _get_version(connection, name, version)

    def list_versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """See ModelStore."""
        query = select(model_versions).where(model_versions.c.name == name)
        query = query.order_by(model_versions.c.version.desc())
        with self._database.read() as connection:
            get_model(connection, name)
            return whole_versions(connection, connection.execute(query).all())

    def search_versions(self, query: Query) -> Page[ModelVersion]:
        """See ModelStore."""
        with self._database.read() as connection:
            found = search_rows(connection, searched_versions, query)
            return Page(tuple(whole_versions(connection, found.rows)), found.next_token)

    def describe_version(self, name: ModelName, version: int, description: str) -> ModelVersion:
        """See ModelStore."""
        rules.check_description(description)

        def work(connection: Connection) -> ModelVersion:
            held = _hold_version(connection, name, version)
            self._change(connection, held, description=description)
            return _get_version(connection, name, version)

        return self._database.write(work)

    def move_version(
        self, name: ModelName, version: int, stage: Stage, *, archive_others: bool
    ) -> ModelVersion:
        """See ModelStore."""
        rules.check_archiving(stage, archive_others=archive_others)

        def work(connection: Connection) -> ModelVersion:
            _hold_version(connection, name, version)
            now = self._clock()
            self._touch(connection, name, last_update_time_ms=now)
            it = model_versions.c
            if archive_others:
                connection.execute(
                    update(model_versions)
                    .where(it.name == name, it.stage == stage, it.version != version)
                    .values(stage=Stage.ARCHIVED, last_update_time_ms=now)
                )
            connection.execute(
                update(model_versions)
                .where(it.name == name, it.version == version)
                .values(stage=stage, last_update_time_ms=now)
            )
            return _get_version(connection, name, version)

        return self._database.write(work)

    def delete_version(self, name: ModelName, version: int) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            _hold_version(connection, name, version)
            self._touch(connection, name)
            it = model_versions.c
            connection.execute(delete(model_versions).where(it.name == name, it.version == version))

        self._database.write(work)

    def delete_version_tag(self, name: ModelName, version: int, key: str) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            _hold_version(connection, name, version)
            owner = {"name": name, "version": version}
            delete_pair(connection, model_version_tags, owner, key)

        self._database.write(work)

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)

        def work(connection: Connection) -> None:
            _hold_version(connection, name, version)
            put_pairs(connection, model_version_tags, {"name": name, "version": version}, tags)

        self._database.write(work)

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            rules.check_alias_target(_hold_version(connection, name, version))
            row = {"name": name, "alias": alias, "version": version}
            put_rows(connection, model_aliases, [row])
            self._touch(connection, name)

        self._database.write(work)

    def delete_alias(self, name: ModelName, alias: AliasName) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            hold_model(connection, name)
            it = model_aliases.c
            done = connection.execute(
                delete(model_aliases).where(it.name == name, it.alias == alias)
            )
            if done.rowcount:
                self._touch(connection, name)

        self._database.write(work)

    def get_version_by_alias(self, name: ModelName, alias: AliasName) -> ModelVersion:
        """See ModelStore."""
        it = model_aliases.c
        query = select(model_versions).join(
            model_aliases,
            and_(it.name == model_versions.c.name, it.version == model_versions.c.version),
        )
        query = query.where(it.name == name, it.alias == alias)
        with self._database.read() as connection:
            for version in whole_versions(connection, connection.execute(query).all()):
                return version
            raise rules.no_alias(name, alias, sorted(get_model(connection, name).aliases))

    def _change(self, connection: Connection, version: ModelVersion, **values: object) -> None:
        it = model_versions.c
        connection.execute(
            update(model_versions)
            .where(it.name == version.name, it.version == version.version)
            .values(last_update_time_ms=self._clock(), **values)
        )


def whole_versions(connection: Connection, rows: Sequence[Row[Any]]) -> list[ModelVersion]:
    """These rows of the table of versions, with tags and aliases."""
    keys = [(row.name, row.version) for row in rows]
    tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    it = model_version_tags.c
    for row in in_slices(connection, select(model_version_tags), tuple_(it.name, it.version), keys):
        tags[row.name, row.version][row.key] = row.value
    aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
    at = model_aliases.c
    for row in in_slices(connection, select(model_aliases), tuple_(at.name, at.version), keys):
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
            stage=Stage(row.stage),
            run_link=row.run_link,
            model_id=row.model_id,
            user_id=row.user_id,
        )
        for row in rows
    ]


def _next_version(connection: Connection, name: str, now_ms: int) -> int:
    # Counting up takes the row's lock first, so that two processes never see the same number.
    version = connection.scalar(
        update(registered_models)
        .where(registered_models.c.name == name)
        .values(last_version=registered_models.c.last_version + 1, last_update_time_ms=now_ms)
        .returning(registered_models.c.last_version)
    )
    if version is None:
        raise no_model(connection, name)
    return int(version)


def _hold_version(connection: Connection, name: str, version: int) -> ModelVersion:
    hold_model(connection, name)
    return _get_version(connection, name, version)


def _get_version(connection: Connection, name: str, version: int) -> ModelVersion:
    it = model_versions.c
    if version in _VERSIONS:
        query = select(model_versions).where(it.name == name, it.version == version)
        for found in whole_versions(connection, connection.execute(query).all()):
            return found
    get_model(connection, name)
    known = select(it.version).where(it.name == name).order_by(it.version.desc())
    raise rules.no_version(name, version, connection.scalars(known).all())
