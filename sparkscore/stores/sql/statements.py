"""Statements that every database writes in its own way, made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    column,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from sparkscore.stores import rules
from sparkscore.stores.sql.tables import latest_metrics

# SQLite takes 32,766 values in a statement, and PostgreSQL 65,535.
_MAX_KEYS = 5000

_Insert = sqlite.Insert | postgresql.Insert


Rows = Sequence[Mapping[str, object]]
"""Values by column, the same two or more in each; no two rows have the same primary key."""


def add_rows(connection: Connection, table: Table, rows: Rows) -> int:
    """Insert rows; those whose key exists stay as they are. Returns how many are new."""
    return _insert(connection, table, rows, _add)


def put_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert rows; those whose primary key exists get the new values."""
    _insert(connection, table, rows, _put)


def put_latest_points(connection: Connection, rows: Rows) -> None:
    """Insert into the latest points; of two the later is kept, as `rules.metric_order`."""
    _insert(connection, latest_metrics, rows, _put_latest)


def put_pairs(
    connection: Connection,
    table: Table,
    owner: Mapping[str, object],
    pairs: Mapping[str, str] | None,
) -> None:
    """Add keys and values of `owner`, or replace those that it has."""
    if pairs:
        rows = [{**owner, "key": key, "value": value} for key, value in pairs.items()]
        put_rows(connection, table, rows)


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


def _insert(
    connection: Connection, table: Table, rows: Rows, conflict: Callable[[_Insert], _Insert]
) -> int:
    if not rows:
        return 0
    names = tuple(rows[0])
    if connection.dialect.name == "sqlite":
        # Bare, since SQLAlchemy's binding takes longer than SQLite's inserting.
        statement, bound = _from_values(table, names, conflict)
        values = list(map(itemgetter(*bound), rows))
        return connection.exec_driver_sql(statement, values).rowcount
    # psycopg takes no list of mixed types, such as 1 with 0.5, or a text with a StrEnum.
    plain = {name: table.c[name].type.python_type for name in names}
    arrays = {
        name: [None if row[name] is None else plain[name](row[name]) for row in rows]
        for name in names
    }
    return connection.execute(_from_arrays(table, names, conflict), arrays).rowcount


@cache
def _from_values(
    table: Table, names: tuple[str, ...], conflict: Callable[[_Insert], _Insert]
) -> tuple[str, Sequence[str]]:
    """SQLite's text of an insertion, and which column each of its parameters is."""
    statement = conflict(sqlite.insert(table))
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=names)
    assert compiled.positiontup is not None
    return str(compiled), compiled.positiontup


@cache
def _from_arrays(
    table: Table, names: tuple[str, ...], conflict: Callable[[_Insert], _Insert]
) -> _Insert:
    """One statement for all rows, of one array a column.

    psycopg would send a statement a row: 100 points take 1.4 ms so, and took 3.5 ms.
    """
    columns = [table.c[name] for name in names]
    arrays = [bindparam(it.name, type_=postgresql.ARRAY(it.type)) for it in columns]
    given = [column(it.name, it.type) for it in columns]
    rows = func.unnest(*arrays).table_valued(*given, name="given").render_derived()
    return conflict(postgresql.insert(table).from_select(names, select(*rows.c)))


def _add(statement: _Insert) -> _Insert:
    return statement.on_conflict_do_nothing()


def _put(statement: _Insert) -> _Insert:
    table = statement.table
    values = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    keys = list(table.primary_key)
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _put_latest(statement: _Insert) -> _Insert:
    table = latest_metrics
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
