"""Statements that every database writes in its own way, made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from sparkscore.stores import rules
from sparkscore.stores.sql.tables import latest_metrics

# SQLite takes 32,766 values in a statement, and PostgreSQL 65,535.
_MAX_KEYS = 5000

_Insert = sqlite.Insert | postgresql.Insert


def insert_new(connection: Connection, table: Table) -> _Insert:
    """An INSERT that leaves rows whose key exists as they are."""
    return _insert_new(connection.dialect.name, table)


def insert_or_replace(connection: Connection, table: Table) -> _Insert:
    """An INSERT that gives rows whose primary key exists the new values."""
    return _insert_or_replace(connection.dialect.name, table)


def insert_latest(connection: Connection) -> _Insert:
    """An INSERT into the latest points that keeps the later of two, as `rules.metric_order`."""
    return _insert_latest(connection.dialect.name)


def put_pairs(
    connection: Connection,
    table: Table,
    owner: Mapping[str, object],
    pairs: Mapping[str, str] | None,
) -> None:
    """Add keys and values of `owner`, or replace those that it has."""
    if pairs:
        rows = [{**owner, "key": key, "value": value} for key, value in pairs.items()]
        connection.execute(insert_or_replace(connection, table), rows)


def add_params(
    connection: Connection,
    table: Table,
    owner: Mapping[str, object],
    params: Mapping[str, str] | None,
    noun: str,
) -> None:
    """Add params of `owner`, which messages call `noun`.

    Raises:
        InvalidStateError: A param is known with another value.
    """
    if params:
        (column, owned_by), *_ = owner.items()
        query = select(table.c.key, table.c.value).where(table.c[column] == owned_by)
        rows = in_slices(connection, query, table.c.key, list(params))
        known = {row.key: row.value for row in rows}
        rules.check_params_kept(noun, known, params)
        new = {key: value for key, value in params.items() if key not in known}
        put_pairs(connection, table, owner, new)


def pairs_of(
    connection: Connection, table: Table, column: str, owners: Sequence[Any]
) -> Mapping[Any, Mapping[str, str]]:
    """Keys and values by owner; an owner without any has none."""
    pairs: dict[Any, dict[str, str]] = defaultdict(dict)
    for row in in_slices(connection, select(table), table.c[column], owners):
        pairs[getattr(row, column)][row.key] = row.value
    return pairs


def lock_for_writing(connection: Connection, table: Table) -> None:
    """Let no other transaction write to a table before this one ends; SQLite's are so already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE")


def delete_pair(
    connection: Connection, table: Table, owner: Mapping[str, object], key: str
) -> bool:
    """Remove a key of `owner` with its value; whether there was one."""
    of_owner = [table.c[column] == value for column, value in owner.items()]
    return connection.execute(delete(table).where(*of_owner, table.c.key == key)).rowcount > 0


def in_slices(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], keys: Sequence[Any]
) -> Iterator[Row[Any]]:
    """The rows of `query` whose `column` is one of `keys`, asked for by as many as SQL takes."""
    for start in range(0, len(keys), _MAX_KEYS):
        yield from connection.execute(query.where(column.in_(keys[start : start + _MAX_KEYS])))


def _insert(dialect: str, table: Table) -> _Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _insert_new(dialect: str, table: Table) -> _Insert:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _insert_or_replace(dialect: str, table: Table) -> _Insert:
    statement = _insert(dialect, table)
    keys = list(table.primary_key.columns)
    values = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


@cache
def _insert_latest(dialect: str) -> _Insert:
    table = latest_metrics
    statement = _insert(dialect, table)
    new = statement.excluded
    # NaN comes before every number, so its mark is compared the other way round.
    is_later = tuple_(new.step, new.timestamp_ms, table.c.is_nan, new.value) > tuple_(
        table.c.step, table.c.timestamp_ms, new.is_nan, table.c.value
    )
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={c.name: new[c.name] for c in table.c if not c.primary_key},
        where=is_later,
    )
