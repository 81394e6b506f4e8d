"""Registered models in SQL tables; their versions are in `models`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sparkscore.errors import RecordNotFoundError
from sparkscore.names import ModelName
from sparkscore.records import RegisteredModel
from sparkscore.search import Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.searched_tables import searched_models
from sparkscore.stores.sql.searching import search_rows
from sparkscore.stores.sql.statements import delete_pair, in_slices, pairs_of, put_pairs
from sparkscore.stores.sql.tables import (
    model_aliases,
    registered_model_tags,
    registered_models,
)


class SqlRegisteredModels:
    """The half of SqlModelStore that is about models as a whole."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_model(
        self, name: ModelName, description: str = "", tags: Mapping[str, str] | None = None
    ) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)

        def work(connection: Connection) -> RegisteredModel:
            _check_name_is_free(connection, name)
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
            put_pairs(connection, registered_model_tags, {"name": name}, tags)
            return get_model(connection, name)

        return self._database.write(work)

    def get_model(self, name: ModelName) -> RegisteredModel:
        """See ModelStore."""
        with self._database.read() as connection:
            return get_model(connection, name)

    def list_models(self, *, limit: int = 1000) -> Sequence[RegisteredModel]:
        """See ModelStore."""
        query = select(registered_models).order_by(registered_models.c.name).limit(limit)
        with self._database.read() as connection:
            return whole_models(connection, connection.execute(query).all())

    def search_models(self, query: Query) -> Page[RegisteredModel]:
        """See ModelStore."""
        with self._database.read() as connection:
            found = search_rows(connection, searched_models, query)
            return Page(tuple(whole_models(connection, found.rows)), found.next_token)

    def rename_model(self, name: ModelName, new_name: ModelName) -> RegisteredModel:
        """See ModelStore."""

        def work(connection: Connection) -> RegisteredModel:
            hold_model(connection, name)
            if new_name != name:
                _check_name_is_free(connection, new_name)
            # Versions, tags and aliases follow by their foreign keys.
            self._touch(connection, name, name=new_name)
            return get_model(connection, new_name)

        return self._database.write(work)

    def describe_model(self, name: ModelName, description: str) -> RegisteredModel:
        """See ModelStore."""
        rules.check_description(description)

        def work(connection: Connection) -> RegisteredModel:
            hold_model(connection, name)
            self._touch(connection, name, description=description)
            return get_model(connection, name)

        return self._database.write(work)

    def delete_model(self, name: ModelName) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            hold_model(connection, name)
            connection.execute(delete(registered_models).where(registered_models.c.name == name))

        self._database.write(work)

    def set_model_tags(self, name: ModelName, tags: Mapping[str, str]) -> None:
        """See ModelStore."""
        rules.check_tags(tags, rules.MAX_REGISTRY_TAG_CHARS)

        def work(connection: Connection) -> None:
            hold_model(connection, name)
            put_pairs(connection, registered_model_tags, {"name": name}, tags)

        self._database.write(work)

    def delete_model_tag(self, name: ModelName, key: str) -> None:
        """See ModelStore."""

        def work(connection: Connection) -> None:
            hold_model(connection, name)
            delete_pair(connection, registered_model_tags, {"name": name}, key)

        self._database.write(work)

    def _touch(self, connection: Connection, model: str, **values: object) -> None:
        connection.execute(
            update(registered_models)
            .where(registered_models.c.name == model)
            .values({"last_update_time_ms": self._clock(), **values})
        )


def get_model(connection: Connection, name: str) -> RegisteredModel:
    """The registered model of this name.

    Raises:
        RecordNotFoundError: There is none.
    """
    query = select(registered_models).where(registered_models.c.name == name)
    for model in whole_models(connection, connection.execute(query).all()):
        return model
    raise no_model(connection, name)


def hold_model(connection: Connection, name: str) -> None:
    """Keep other transactions from a model and its versions until this one ends.

    Raises:
        RecordNotFoundError: There is none.
    """
    query = select(registered_models.c.name).where(registered_models.c.name == name)
    if connection.execute(query.with_for_update()).first() is None:
        raise no_model(connection, name)


def no_model(connection: Connection, name: str) -> RecordNotFoundError:
    """The error for an unknown model, which offers near names."""
    return rules.no_model(name, connection.scalars(select(registered_models.c.name)).all())


def whole_models(connection: Connection, rows: Sequence[Row[Any]]) -> list[RegisteredModel]:
    """These rows of the table of registered models, with tags and aliases."""
    names = [row.name for row in rows]
    tags = pairs_of(connection, registered_model_tags, "name", names)
    aliases: dict[str, dict[str, int]] = defaultdict(dict)
    for row in in_slices(connection, select(model_aliases), model_aliases.c.name, names):
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
        for row in rows
    ]


def _check_name_is_free(connection: Connection, name: str) -> None:
    query = select(registered_models.c.name).where(registered_models.c.name == name)
    if connection.execute(query).first() is not None:
        raise rules.model_exists(name)
